package probe

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// at is an httpGet of the path from the server.
func at(t *testing.T, server *httptest.Server, path string, headers ...v1.HTTPHeader) pod.Probing {
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	get := &v1.HTTPGetAction{Path: path, Port: intstr.Parse(u.Port()), Scheme: v1.URIScheme(strings.ToUpper(u.Scheme)), HTTPHeaders: headers}
	return pod.Probing{Host: u.Hostname(), Container: &v1.Container{Name: "main"},
		Probe: &v1.Probe{TimeoutSeconds: 1, ProbeHandler: v1.ProbeHandler{HTTPGet: get}}}
}

func testServers(t *testing.T, h http.Handler) map[string]*httptest.Server {
	plain, secure := httptest.NewServer(h), httptest.NewTLSServer(h)
	secure.Config.ErrorLog = nil
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	return map[string]*httptest.Server{"http": plain, "https": secure}
}

func handlers() *Handlers { return New(nil, "1.36") }

func TestHTTP(t *testing.T) {
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		var code int
		fmt.Sscan(r.PathValue("code"), &code)
		w.WriteHeader(code)
		fmt.Fprint(w, "secret")
	})
	mux.HandleFunc("/to", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.FormValue("u"), http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) { <-release })
	mux.HandleFunc("/stall", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("/drop", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	servers := testServers(t, mux)
	t.Cleanup(func() { close(release) }) // before the servers are closed
	for scheme, server := range servers {
		for path, want := range map[string]struct {
			outcome pod.Outcome
			message string
		}{
			"/status/200":                      {pod.Passed, ""},
			"/status/204":                      {pod.Passed, ""},
			"/status/304":                      {pod.Warned, "Probe terminated redirects, Response body: "},
			"/status/404":                      {pod.Failed, "HTTP probe failed with statuscode: 404"},
			"/status/500":                      {pod.Failed, "HTTP probe failed with statuscode: 500"},
			"/to?u=/status/200":                {pod.Passed, ""},
			"/to?u=/status/503":                {pod.Failed, "HTTP probe failed with statuscode: 503"},
			"/to?u=http://elsewhere.invalid/x": {pod.Warned, "Probe terminated redirects, Response body: <a href"},
			"/loop":                            {pod.Failed, "stopped after 10 redirects"},
			"/hang":                            {pod.Failed, "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"},
			"/stall":                           {pod.Broken, ""},
			"/early":                           {pod.Passed, ""},
			"/drop":                            {pod.Failed, "EOF"},
			"%zz":                              {pod.Failed, "HTTP probe failed with statuscode: 404"},
		} {
			t.Run(scheme+path, func(t *testing.T) {
				t.Parallel()
				outcome, message := handlers().Ask(at(t, server, path))(t.Context())
				if outcome != want.outcome || !strings.Contains(message, want.message) {
					t.Errorf("%d %q, want %d %q", outcome, message, want.outcome, want.message)
				}
				if strings.Contains(message, "secret") {
					t.Errorf("%q tells the body", message)
				}
			})
		}
	}
}

func TestHTTPHeaders(t *testing.T) {
	header := func(name, value string) v1.HTTPHeader { return v1.HTTPHeader{Name: name, Value: value} }
	var got *http.Request
	servers := testServers(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	for scheme, server := range servers {
		t.Run(scheme, func(t *testing.T) {
			ask := func(headers ...v1.HTTPHeader) *http.Request {
				if outcome, message := handlers().Ask(at(t, server, "/a?b=c", headers...))(t.Context()); outcome != pod.Passed {
					t.Fatal(message)
				}
				return got
			}
			r := ask()
			if r.UserAgent() != "kube-probe/1.36" || r.Header.Get("Accept") != "*/*" || r.Header.Get("Accept-Encoding") != "" || r.RequestURI != "/a?b=c" {
				t.Errorf("%s %v", r.RequestURI, r.Header)
			}
			if r.ProtoMajor == 1 && !r.Close {
				t.Error("the connection is kept")
			}
			r = ask(header("user-agent", "mine"), header("Accept", "text/plain"), header("Host", "me.example"), header("X-A", "1"), header("X-A", "2"))
			if r.UserAgent() != "mine" || r.Header.Get("Accept") != "text/plain" || r.Host != "me.example" || len(r.Header["X-A"]) != 2 {
				t.Errorf("%s %v", r.Host, r.Header)
			}
			r = ask(header("User-Agent", ""), header("Accept", ""))
			if _, some := r.Header["User-Agent"]; some || r.Header["Accept"] != nil {
				t.Errorf("%v", r.Header)
			}
		})
	}
}

// A proxy that the agent was started with is not for probes.
func TestHTTPTakesNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	for scheme, server := range testServers(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) {
		if outcome, message := handlers().Ask(at(t, server, "/"))(t.Context()); outcome != pod.Passed {
			t.Errorf("%s: %s", scheme, message)
		}
	}
}

// Of an answer without end little is taken.
func TestHTTPBigAnswers(t *testing.T) {
	var sent int64
	done := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/body", func(w http.ResponseWriter, _ *http.Request) {
		defer close(done)
		sent, _ = io.CopyN(w, endless{}, 1<<30)
	})
	server := testServers(t, mux)["http"]
	if outcome, message := handlers().Ask(at(t, server, "/body"))(t.Context()); outcome != pod.Passed {
		t.Error(message)
	}
	if <-done; sent > 64<<20 { // what the sockets hold
		t.Errorf("%d bytes were taken", sent)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-A: ")
			_, _ = io.CopyN(c, endless{}, 1<<30)
			c.Close()
		}
	}()
	began := time.Now()
	q := at(t, server, "/")
	q.Probe.HTTPGet.Port = intstr.FromInt(l.Addr().(*net.TCPAddr).Port)
	if outcome, _ := handlers().Ask(q)(t.Context()); outcome != pod.Failed {
		t.Error("headers without end are taken for an answer")
	}
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("it took %v to see that", took)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'a'
	}
	return len(b), nil
}

// What cannot be asked says which container and port it is about.
func TestTargets(t *testing.T) {
	c := &v1.Container{Name: "main", Ports: []v1.ContainerPort{{Name: "web", ContainerPort: 8080}}}
	for _, w := range []struct {
		host string
		port intstr.IntOrString
		want string
		err  string
	}{
		{"10.0.0.1", intstr.FromInt(80), "10.0.0.1:80", ""},
		{"fd00::1", intstr.FromString("web"), "[fd00::1]:8080", ""},
		{"10.0.0.1", intstr.FromString("81"), "10.0.0.1:81", ""},
		{"10.0.0.1", intstr.FromString("wep"), "", `container main has no port named "wep"`},
		{"10.0.0.1", intstr.FromInt(70000), "", "container main: port 70000"},
		{"", intstr.FromInt(80), "", "container main: port 80 cannot be reached: the pod has no address"},
	} {
		got, err := address("", w.host, w.port, c)
		if got != w.want || (err != nil) != (w.err != "") || err != nil && !strings.Contains(err.Error(), w.err) {
			t.Errorf("%v: %q, %v", w, got, err)
		}
	}
	if got, _ := address("own", "10.0.0.1", intstr.FromInt(80), c); got != "own:80" {
		t.Errorf("the probe's own host: %q", got)
	}
	q := pod.Probing{Container: c, Host: "10.0.0.1", Probe: &v1.Probe{ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromString("wep")}}}}
	if outcome, message := handlers().Ask(q)(t.Context()); outcome != pod.Errored || !strings.Contains(message, "wep") {
		t.Errorf("%d %s", outcome, message)
	}
}

func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatalf("this machine has no IPv6 loopback: %v", err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}}
	server.Start()
	defer server.Close()
	if outcome, message := handlers().Ask(at(t, server, "/"))(t.Context()); outcome != pod.Passed {
		t.Error(message)
	}
}

// The same failure is told in the same words, whatever port our end had.
func TestSameFailureSameWords(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close() // resets it
		}
	}()
	server := testServers(t, nil)["http"]
	q := at(t, server, "/")
	q.Probe.HTTPGet.Port = intstr.FromInt(l.Addr().(*net.TCPAddr).Port)
	ask := handlers().Ask(q)
	words := map[string]bool{}
	for range 20 {
		_, message := ask(context.WithoutCancel(t.Context()))
		words[message] = true
	}
	if len(words) > 3 { // a reset may be seen at the write, the read, or as an end
		t.Errorf("%d ways to say it: %v", len(words), words)
	}
}

// What a server answers that speaks no HTTP is not told in full: it would stand
// in the log, in each report and in the agent's memory.
func TestLongAnswersAreToldInBrief(t *testing.T) {
	for name, junk := range map[string]string{
		"Line":     strings.Repeat("\x01", maxAnswer-1),
		"Location": "HTTP/1.1 302 Found\r\nLocation: /" + strings.Repeat("a", 200<<10) + "%\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = io.WriteString(c, junk+"\n")
					_, _ = io.Copy(io.Discard, c)
					_ = c.Close()
				}
			}()
			q := pod.Probing{Host: "127.0.0.1", Container: &v1.Container{Name: "main"}, Probe: &v1.Probe{TimeoutSeconds: 5,
				ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Port: intstr.FromInt32(port(l))}}}}
			outcome, message := attempt(t.Context(), handlers().Ask(q))
			if outcome != pod.Failed || len(message) > maxOutput {
				t.Errorf("probe: outcome %d, told in %d bytes", outcome, len(message))
			}
			k := Hook{LifecycleHandler: &v1.LifecycleHandler{HTTPGet: q.Probe.HTTPGet}, Container: q.Container, Host: q.Host}
			if _, err := handlers().Run(t.Context(), k); err == nil || len(err.Error()) > maxOutput {
				t.Errorf("hook: %.100v", err)
			}
		})
	}
}
