package server

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/config"
)

// TestAnswersToCallers: codes and texts are the kubelet's.
func TestAnswersToCallers(t *testing.T) {
	k := newKit(t)
	k.reviewer.may = func(user, verb, sub string) bool { return user == "reader" && verb == "get" && sub == "pods" }
	k.start()
	known := k.caller(k.ca.issue("reader", x509.ExtKeyUsageClientAuth))
	stranger := k.caller(newAuthority(t, "clients").issue("reader", x509.ExtKeyUsageClientAuth))
	nobody := k.caller()
	for name, c := range map[string]struct {
		client      *http.Client
		path, token string
		code        int
		text        string // exact, "" for any
	}{
		"no credentials":                 {nobody, "/pods", "", 401, "Unauthorized"},
		"no credentials, no such path":   {nobody, "/nowhere", "", 401, "Unauthorized"},
		"a certificate of another CA":    {stranger, "/pods", "", 401, "Unauthorized"},
		"a token of nobody":              {nobody, "/pods", "forged", 401, "Unauthorized"},
		"a certificate with the right":   {known, "/pods", "", 200, ""},
		"a token with the right":         {nobody, "/pods", "user:reader", 200, ""},
		"another CA's, and a good token": {stranger, "/pods", "user:reader", 200, ""},
		"a certificate without": {known, "/configz", "", 403,
			"Forbidden (user=reader, verb=get, resource=nodes, subresource(s)=[configz proxy])\n"},
		"a token without": {nobody, "/metrics", "user:other", 403,
			"Forbidden (user=other, verb=get, resource=nodes, subresource(s)=[metrics])\n"},
	} {
		t.Run(name, func(t *testing.T) {
			code, text := k.ask(c.client, "GET", c.path, c.token)
			if code != c.code || c.text != "" && text != c.text {
				t.Errorf("%d %q, want %d %q", code, text, c.code, c.text)
			}
		})
	}
}

// TestWhatIsAsked: the apiserver is asked by verb and subresource; the broader
// right is asked for where the finer one is missing; methods without a verb have
// an empty one.
func TestWhatIsAsked(t *testing.T) {
	k := newKit(t).start()
	c := k.caller(k.ca.issue("u", x509.ExtKeyUsageClientAuth))
	for request, want := range map[string][]string{
		"GET /pods":              {"get pods", "get proxy"},
		"GET /runningpods/":      {"get pods", "get proxy"},
		"GET /healthz/log":       {"get healthz", "get proxy"},
		"GET /configz":           {"get configz", "get proxy"},
		"GET /flagz":             {"get configz"},
		"GET /statusz":           {"get statusz"},
		"POST /stats/summary":    {"create stats"},
		"GET /metrics/cadvisor":  {"get metrics"},
		"GET /logs/a/b":          {"get log"},
		"POST /checkpoint/a/b/c": {"create checkpoint"},
		"GET /podsx":             {"get proxy"},
		"GET /debug/timeline":    {"get proxy"},
		"PUT /debug/flags/v":     {"update proxy"},
		"DELETE /exec/a/b/c":     {"delete proxy"},
		"PATCH /":                {"patch proxy"},
		"HEAD /metrics":          {" metrics"},
		"OPTIONS /stats":         {" stats"},
		"TRACE /pods":            {" pods", " proxy"},
	} {
		t.Run(request, func(t *testing.T) {
			k.reviewer.set(func() { k.reviewer.asked = nil })
			method, path, _ := strings.Cut(request, " ")
			if code, _ := k.ask(c, method, path, ""); code != 403 {
				t.Errorf("code %d", code)
			}
			var full []string
			for _, w := range want {
				verb, sub, _ := strings.Cut(w, " ")
				full = append(full, strings.Join([]string{"u", verb, "nodes", sub, "node-1"}, " "))
			}
			k.reviewer.set(func() {
				// What was refused is remembered: equal questions aren't asked twice.
				for _, a := range k.reviewer.asked {
					if !slices.Contains(full, a) {
						t.Errorf("asked %q, want of %q", a, full)
					}
				}
			})
		})
	}
}

// TestApiserverAway: what it allowed goes on, others are told soon, and the log
// has one line about it.
func TestApiserverAway(t *testing.T) {
	k := newKit(t)
	k.reviewer.may = func(user, verb, sub string) bool { return true }
	k.start()
	known, nobody := k.caller(k.ca.issue("u", x509.ExtKeyUsageClientAuth)), k.caller()
	if code, _ := k.ask(known, "GET", "/pods", ""); code != 200 {
		t.Fatalf("code %d", code)
	}
	if code, _ := k.ask(nobody, "GET", "/pods", "user:u"); code != 200 {
		t.Fatalf("code %d", code)
	}
	k.reviewer.Server.Close()
	for range 3 {
		if code, _ := k.ask(known, "GET", "/pods", ""); code != 200 {
			t.Errorf("what was allowed: code %d", code)
		}
		if code, _ := k.ask(nobody, "GET", "/pods", "user:u"); code != 200 {
			t.Errorf("who was known by a token: code %d", code)
		}
		began := time.Now()
		code, text := k.ask(known, "GET", "/metrics", "")
		if want := "Authorization error (user=u, verb=get, resource=nodes, subresource=metrics)"; code != 500 || text != want {
			t.Errorf("%d %q, want 500 %q", code, text, want)
		}
		if code, text := k.ask(nobody, "GET", "/pods", "user:new"); code != 401 || text != "Unauthorized" {
			t.Errorf("%d %q", code, text)
		}
		if d := time.Since(began); d > 2*patience {
			t.Errorf("told after %v", d)
		}
	}
	for _, text := range []string{"does not say whether it is allowed", "could not be found out who asks"} {
		if n := len(k.logged.lines(text)); n != 1 {
			t.Errorf("%d lines with %q", n, text)
		}
	}
}

// TestAnswersAreRemembered: the apiserver is asked once for a while, also about
// what it does not allow, and again when the time is over.
func TestAnswersAreRemembered(t *testing.T) {
	k := newKit(t)
	k.options.Config.Authorization.Webhook.CacheUnauthorizedTTL.Duration = time.Second
	k.start()
	c := k.caller()
	for range 5 {
		if code, _ := k.ask(c, "GET", "/metrics", "user:u"); code != 403 {
			t.Fatalf("code %d", code)
		}
	}
	k.reviewer.set(func() {
		if len(k.reviewer.asked) != 1 || len(k.reviewer.tokens) != 1 {
			t.Errorf("asked %q, tokens %q", k.reviewer.asked, k.reviewer.tokens)
		}
		k.reviewer.may = func(string, string, string) bool { return true }
	})
	eventually(t, "allowed now", func() bool {
		code, _ := k.ask(c, "GET", "/metrics", "user:u")
		return code != 403
	})
}

// TestAnonymous: who says nothing is system:anonymous where that is on, and may
// do what the apiserver says; who shows a bad certificate is not let in as
// anonymous.
func TestAnonymous(t *testing.T) {
	k := newKit(t)
	k.options.Config.Authentication.Anonymous.Enabled = ptr.To(true)
	k.reviewer.may = func(user, _, sub string) bool { return user == "system:anonymous" && sub == "healthz" }
	k.start()
	if code, _ := k.ask(k.caller(), "GET", "/healthz", ""); code != 200 {
		t.Errorf("code %d", code)
	}
	if code, text := k.ask(k.caller(), "GET", "/pods", ""); code != 403 || !strings.Contains(text, "user=system:anonymous") {
		t.Errorf("%d %q", code, text)
	}
	stranger := k.caller(newAuthority(t, "clients").issue("u", x509.ExtKeyUsageClientAuth))
	if code, _ := k.ask(stranger, "GET", "/healthz", ""); code != 401 {
		t.Errorf("code %d for a bad certificate", code)
	}
}

// TestNodeOnItsOwn: without an apiserver who has a certificate is let in where
// everything is allowed, and nobody else.
func TestNodeOnItsOwn(t *testing.T) {
	k := newKit(t)
	k.options.Tokens, k.options.Rights = nil, nil
	k.options.Config.Authorization.Mode = "AlwaysAllow"
	k.start()
	if code, _ := k.ask(k.caller(k.ca.issue("me", x509.ExtKeyUsageClientAuth)), "GET", "/pods", ""); code != 200 {
		t.Errorf("with a certificate: %d", code)
	}
	if code, _ := k.ask(k.caller(), "GET", "/pods", "user:me"); code != 401 {
		t.Errorf("with a token: %d", code)
	}
	server := k.ca.issue("me", x509.ExtKeyUsageServerAuth)
	if code, _ := k.ask(k.caller(server), "GET", "/pods", ""); code != 401 {
		t.Errorf("with a certificate that is for servers: %d", code)
	}
}

// TestHeadersNameNobody: names in headers of proxies count for nothing, and a
// token goes no further.
func TestHeadersNameNobody(t *testing.T) {
	k := newKit(t)
	k.reviewer.may = func(string, string, string) bool { return true }
	var seen http.Header
	k.next = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Clone() })
	k.start()
	code, _ := k.raw("GET /pods HTTP/1.1\r\nHost: x\r\nX-Remote-User: admin\r\nX-Remote-Group: system:masters\r\nImpersonate-User: admin\r\nConnection: close\r\n\r\n")
	if code != 401 || seen != nil {
		t.Errorf("code %d, reached %v", code, seen)
	}
	if code, _ := k.ask(k.caller(k.ca.issue("me", x509.ExtKeyUsageClientAuth)), "GET", "/pods", "user:other"); code != 200 || seen.Get("Authorization") != "" {
		t.Errorf("code %d, handed on %q", code, seen.Get("Authorization"))
	}
}

// TestNobody: where nobody could be let in, it is said why.
func TestNobody(t *testing.T) {
	for name, c := range map[string]struct {
		joined bool
		mode   string
		ca     string
		anon   bool
		want   string // "" for somebody
	}{
		"a node of a cluster":           {true, "Webhook", "", false, ""},
		"alone, as by default":          {false, "Webhook", "", false, "no apiserver to ask"},
		"alone, with a CA":              {false, "Webhook", "/ca", false, "no apiserver to ask"},
		"alone, everything allowed":     {false, "AlwaysAllow", "", false, "authentication.x509.clientCAFile"},
		"alone, certificates":           {false, "AlwaysAllow", "/ca", false, ""},
		"alone, open to anybody at all": {false, "AlwaysAllow", "", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			k := config.Default().Kubelet
			k.Authorization.Mode, k.Authentication.X509.ClientCAFile, k.Authentication.Anonymous.Enabled = "AlwaysAllow", c.ca, &c.anon
			if c.mode == "Webhook" {
				k.Authorization.Mode = "Webhook"
			}
			err := Nobody(&k, c.joined)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestClientCAIsReadAgain: callers of a new CA are let in and told of it, those
// of the old one no longer, on the same server.
func TestClientCAIsReadAgain(t *testing.T) {
	k := newKit(t)
	k.reviewer.may = func(string, string, string) bool { return true }
	k.start()
	next := newAuthority(t, "next")
	before, after := k.ca.issue("u", x509.ExtKeyUsageClientAuth), next.issue("u", x509.ExtKeyUsageClientAuth)
	old := k.caller(before)
	if code, _ := k.ask(old, "GET", "/pods", ""); code != 200 {
		t.Fatalf("code %d", code)
	}
	if code, _ := k.ask(k.caller(after), "GET", "/pods", ""); code != 401 {
		t.Fatalf("code %d before it is known", code)
	}
	k.write(k.caFile, next.pem)
	eventually(t, "the next CA counts", func() bool { code, _ := k.ask(k.caller(after), "GET", "/pods", ""); return code == 200 })
	if code, _ := k.ask(old, "GET", "/pods", ""); code != 401 {
		t.Errorf("the old CA's, on a connection of before: code %d", code)
	}
	var told [][]byte
	c := k.tls()
	c.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		told = i.AcceptableCAs
		return &after, nil
	}
	conn, err := tls.Dial("tcp", k.address, c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if len(told) != 1 || string(told[0]) != string(next.cert.RawSubject) {
		t.Errorf("told of %q", told)
	}
	// A file that can't be used changes nothing.
	k.write(k.caFile, []byte("torn"))
	for range 20 {
		if code, _ := k.ask(k.caller(after), "GET", "/pods", ""); code != 200 {
			t.Fatalf("code %d with a torn file", code)
		}
	}
}

// TestClientCAMissing: it is of the configuration, so the agent does not start.
func TestClientCAMissing(t *testing.T) {
	k := newKit(t)
	if err := os.Remove(k.caFile); err != nil {
		t.Fatal(err)
	}
	if _, err := New(k.options); err == nil || !strings.Contains(err.Error(), "clientCAFile") {
		t.Errorf("%v", err)
	}
}

// TestBrokenClientCAIsTold once, and once that it is whole again; who could come
// in still can.
func TestBrokenClientCAIsTold(t *testing.T) {
	k := newKit(t)
	k.level.Set(slog.LevelInfo)
	k.reviewer.may = func(string, string, string) bool { return true }
	k.start()
	cert := k.ca.issue("u", x509.ExtKeyUsageClientAuth)
	told := func(what string, n int) {
		t.Helper()
		eventually(t, what, func() bool { return len(k.logged.lines(what)) == n })
	}
	const broken, whole = "clientCAFile can't be used", "judged by the file again"
	k.write(k.caFile, []byte("torn"))
	told(broken, 1)
	k.write(k.caFile, nil)
	time.Sleep(500 * time.Millisecond) // ten more looks
	told(broken, 1)
	if code, _ := k.ask(k.caller(cert), "GET", "/pods", ""); code != http.StatusOK {
		t.Errorf("code %d", code)
	}
	k.write(k.caFile, k.ca.pem)
	told(whole, 1)
}
