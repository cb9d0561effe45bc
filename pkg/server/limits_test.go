package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestPathsMeanOneThing: who may see figures gets nowhere else, however he
// writes the path.
func TestPathsMeanOneThing(t *testing.T) {
	k := newKit(t)
	k.reviewer.may = func(user, _, sub string) bool {
		return user == "figures" && (sub == "stats" || sub == "metrics" || sub == "log")
	}
	var reached atomic.Value
	mux := http.NewServeMux()
	note := func(w http.ResponseWriter, r *http.Request) { reached.Store(r.URL.Path) }
	for _, pattern := range []string{"/exec/{a}/{b}/{c}", "/run/", "/pods", "/configz", "/debug/pprof/", "/{$}"} {
		mux.HandleFunc(pattern, note)
	}
	for _, pattern := range []string{"/stats/summary", "/metrics", "/metrics/cadvisor", "/logs/"} {
		mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
	}
	k.next = mux
	k.start()
	const ask = " HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer user:figures\r\nConnection: close\r\n"
	for _, path := range []string{
		"/stats/../exec/a/b/c", "/stats/%2e%2e/exec/a/b/c", "/stats/%2E%2E%2Fexec/a/b/c", "/stats/..%2fexec/a/b/c", "/stats/..%5cexec",
		"//exec/a/b/c", "/stats//../exec/a/b/c", "///exec/a/b/c", "/./exec/a/b/c", "/stats/summary/../../exec/a/b/c",
		"/metrics/..;/exec/a/b/c", "/stats;/../exec/a/b/c", "/%2fexec/a/b/c", "/metrics%2f..%2fexec/a/b/c", "/%65xec/a/b/c", "/exec/a/b/%2e%2e",
		"/stats/%252e%252e/exec/a/b/c", "/metrics/%00/../exec/a/b/c", "/metrics%00", "/logs/..%2fexec/a/b/c", "/logs/%2e%2e/%2e%2e/pods",
		"/pods", "/pods/", "/Pods", "/configz?x=/stats/", "/debug/pprof/?/metrics", "https://node/exec/a/b/c", "https://node//exec/a/b/c", "*",
	} {
		for _, method := range []string{"GET", "POST", "CONNECT", "OPTIONS", "PROPFIND"} {
			k.raw(method + " " + path + ask + "Content-Length: 0\r\n\r\n")
			if at := reached.Load(); at != nil {
				t.Fatalf("%s %s reached %s", method, path, at)
			}
		}
	}
	// A bearer of many headers is one, too.
	for _, path := range []string{"/stats/summary", "/metrics", "/logs/a%20b"} {
		if code, _ := k.raw("GET " + path + ask + "X-Original-Url: /exec/a/b/c\r\nX-HTTP-Method-Override: POST\r\n\r\n"); code != 200 {
			t.Errorf("%s: code %d", path, code)
		}
	}
	if code, h := k.raw("GET /metrics//./cadvisor?a=b" + ask + "\r\n"); code != 301 || h.Get("Location") != "/metrics/cadvisor?a=b" {
		t.Errorf("%d to %q", code, h.Get("Location"))
	}
	if code, h := k.raw("GET //evil.example/%2e%2e" + ask + "\r\n"); code != 301 || h.Get("Location") != "/" {
		t.Errorf("%d to %q", code, h.Get("Location"))
	}
}

// TestHeaderTooLarge: a mebibyte is the most, more is answered 431, also of a
// stranger.
func TestHeaderTooLarge(t *testing.T) {
	k := newKit(t).start()
	if code, _ := k.raw("GET /pods HTTP/1.1\r\nHost: x\r\nX-Much: " + strings.Repeat("a", 900<<10) + "\r\nConnection: close\r\n\r\n"); code != 401 {
		t.Errorf("900 KiB: code %d", code)
	}
	c, err := tls.Dial("tcp", k.address, k.tls())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() { // the answer comes before all is sent
		_, _ = io.WriteString(c, "GET /pods HTTP/1.1\r\nHost: x\r\nX-Much: "+strings.Repeat("a", 2<<20)+"\r\n\r\n")
	}()
	line := make([]byte, 64)
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, _ := io.ReadAtLeast(c, line, 12)
	if !strings.HasPrefix(string(line[:n]), "HTTP/1.1 431") {
		t.Errorf("answered %q", line[:n])
	}
}

// TestBodyTooLarge: no path takes a large body.
func TestBodyTooLarge(t *testing.T) {
	k := newKit(t)
	k.reviewer.may = func(string, string, string) bool { return true }
	var read atomic.Int64
	k.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		read.Store(n)
		if err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	})
	k.start()
	c := k.caller(k.ca.issue("u", x509.ExtKeyUsageClientAuth))
	for _, size := range []int{1 << 10, 10 << 20} {
		r, err := c.Post("https://"+k.address+"/run/a/b/c", "", strings.NewReader(strings.Repeat("x", size)))
		if err != nil {
			continue // cut off
		}
		r.Body.Close()
		if large := size > 1<<20; (r.StatusCode == 413) != large || read.Load() > k.sizes.bodyBytes {
			t.Errorf("%d bytes: code %d, read %d", size, r.StatusCode, read.Load())
		}
	}
}

// TestSlowCallers: who does not get on with it is cut off, at every stage, and
// leaves nothing.
func TestSlowCallers(t *testing.T) {
	k := newKit(t)
	k.sizes.header, k.sizes.idle, k.sizes.request = 500*time.Millisecond, 500*time.Millisecond, time.Second
	k.reviewer.may = func(string, string, string) bool { return true }
	k.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stats/large" {
			for chunk := make([]byte, 1<<20); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}
	})
	k.start()
	cert := k.ca.issue("u", x509.ExtKeyUsageClientAuth)
	first := k.caller(cert)
	k.ask(first, "GET", "/pods", "") // and the right is remembered
	first.CloseIdleConnections()
	before := runtime.NumGoroutine()
	var cut sync.WaitGroup
	secure := func(c net.Conn) net.Conn { return tls.Client(c, k.tls(cert)) }
	for name, stall := range map[string]func(c net.Conn){
		"says nothing":        func(net.Conn) {},
		"half a handshake":    func(c net.Conn) { _, _ = c.Write([]byte{0x16, 3, 1, 2, 0, 1, 0}) },
		"no request":          func(c net.Conn) { _ = secure(c).(*tls.Conn).Handshake() },
		"half a header":       func(c net.Conn) { _, _ = io.WriteString(secure(c), "GET /pods HTTP/1.1\r\nHost: x\r\nX-A") },
		"a header that drips": func(c net.Conn) { drip(secure(c), "GET /pods HTTP/1.1\r\nHost: x\r\n", "X: y\r\n") },
		"no next request":     func(c net.Conn) { _, _ = io.WriteString(secure(c), "GET /x HTTP/1.1\r\nHost: x\r\n\r\n") },
		"a stranger's body": func(c net.Conn) {
			drip(tls.Client(c, k.tls()), "POST /run/a/b/c HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n", "x")
		},
		"a body that drips": func(c net.Conn) {
			drip(secure(c), "POST /stats/summary HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n", "x")
		},
		"does not read":          func(c net.Conn) { _, _ = io.WriteString(secure(c), "GET /stats/large HTTP/1.1\r\nHost: x\r\n\r\n") },
		"HTTP/2, no window":      func(c net.Conn) { stallHTTP2(c, k.tls(cert), "/stats/large") },
		"HTTP/2, a stranger":     func(c net.Conn) { stallHTTP2(c, k.tls(), "/exec/ns/pod/main") },
		"HTTP/2, half a request": func(c net.Conn) { halfHTTP2(c, k.tls(cert)) },
	} {
		cut.Go(func() {
			c, err := net.Dial("tcp", k.address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			held := func() bool { return established(t, c.LocalAddr().String()) }
			for !held() && t.Context().Err() == nil {
				time.Sleep(time.Millisecond) // until it is let in
			}
			go stall(c)
			// Cut off means that nobody holds the other end any more.
			for late := time.Now().Add(30 * time.Second); held(); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(late) {
					t.Errorf("not cut off: who %s", name)
					return
				}
			}
		})
	}
	cut.Wait()
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+2 })
}

// drip writes a beginning, and more again and again.
func drip(c net.Conn, begin, more string) {
	_, err := io.WriteString(c, begin)
	for err == nil {
		time.Sleep(20 * time.Millisecond)
		_, err = io.WriteString(c, more)
	}
}

// h2 speaks HTTP/2 by hand: it asks for the path with the window for answers
// that is given.
func h2(c net.Conn, config *tls.Config, path string, window uint32, end bool) *tls.Conn {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	t := tls.Client(c, config)
	frame := func(kind, flags byte, stream byte, payload string) {
		_, _ = io.WriteString(t, string([]byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, stream})+payload)
	}
	_, _ = io.WriteString(t, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	frame(4, 0, 0, string([]byte{0, 4, byte(window >> 24), byte(window >> 16), byte(window >> 8), byte(window)}))
	frame(4, 1, 0, "")
	flags := byte(1) // end of stream
	if end {
		flags |= 4 // end of headers
	}
	// :method GET, :scheme https, :authority x, :path
	frame(1, flags, 1, "\x82\x87\x41\x01x\x44"+string(rune(len(path)))+path)
	return t
}

func stallHTTP2(c net.Conn, config *tls.Config, path string) {
	t := h2(c, config, path, 0, true)
	_, _ = io.Copy(io.Discard, t)
}

func halfHTTP2(c net.Conn, config *tls.Config) {
	t := h2(c, config, "/stats/large", 65535, false)
	_, _ = io.Copy(io.Discard, t)
}

// TestThousandConnections: who opens a thousand and says nothing shuts out
// nobody, and leaves neither goroutine nor descriptor behind.
func TestThousandConnections(t *testing.T) {
	k := newKit(t)
	k.reviewer.may = func(string, string, string) bool { return true }
	k.start()
	quiet := k.caller(k.ca.issue("u", x509.ExtKeyUsageClientAuth)) // here before, and idle meanwhile
	if code, _ := k.ask(quiet, "GET", "/pods", ""); code != 200 {
		t.Fatalf("code %d", code)
	}
	goroutines, files := runtime.NumGoroutine(), len(opened(t))
	const many = 1000
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conns := make([]net.Conn, many)
	var wg sync.WaitGroup
	for i := range conns {
		c, err := from.Dial("tcp", k.address)
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c
		if i%2 == 0 {
			wg.Go(func() { // shakes hands and then says nothing
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				_ = tls.Client(c, k.tls()).HandshakeContext(ctx)
			})
		}
	}
	eventually(t, "few are left", func() bool { return len(opened(t)) <= files+many+k.sizes.strangers+20 })
	for _, c := range []*http.Client{quiet, k.caller(), k.caller(k.ca.issue("v", x509.ExtKeyUsageClientAuth))} {
		began := time.Now()
		if code, _ := k.ask(c, "GET", "/pods", "user:w"); code != 200 {
			t.Errorf("code %d", code)
		}
		t.Logf("answered in %v beside %d silent connections", time.Since(began).Round(time.Millisecond), many)
	}
	if n := len(k.logged.lines("cut")); n > 0 {
		t.Errorf("%d lines", n)
	}
	for _, c := range conns {
		c.Close()
	}
	wg.Wait()
	eventually(t, "nothing is left", func() bool { return len(opened(t)) <= files+8 && runtime.NumGoroutine() <= goroutines+16 })
}

// TestWhoGoesFirst: over the limit the oldest goes of the address that has the
// most; who is known counts no longer.
func TestWhoGoesFirst(t *testing.T) {
	s := &strangers{limit: 3}
	come := func(host string) (*peer, *peer) {
		p := &peer{host: host, of: s}
		return p, s.enter(p)
	}
	a, _ := come("a")
	b1, _ := come("b")
	b2, _ := come("b")
	if _, out := come("c"); out != b1 {
		t.Errorf("%v had to go", out)
	}
	s.known(a)
	if d, out := come("d"); out != nil {
		t.Errorf("%v had to go though there was room: %v", out, d)
	}
	if _, out := come("c"); out == b2 || out == nil {
		t.Errorf("%v had to go", out)
	}
}

// TestAuditLine: each request has a line for who looks closely, with what was
// answered, and none otherwise.
func TestAuditLine(t *testing.T) {
	k := newKit(t)
	k.reviewer.may = func(string, string, string) bool { return true }
	k.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/cut"
		w.WriteHeader(http.StatusTeapot)
		w.(http.Flusher).Flush()
		_, _ = w.Write([]byte("12345"))
	})
	k.start()
	k.ask(k.caller(), "PUT", "/debug/flags/v", "user:me")
	k.ask(k.caller(), "GET", "/pods", "")
	eventually(t, "two lines", func() bool { return len(k.logged.lines("msg=request ")) == 2 })
	lines := k.logged.lines("msg=request ")
	for i, parts := range [][]string{
		{"user=me", "verb=PUT", "path=/debug/flags/v", "code=418", "bytes=5", "took=", "from=127.0.0.1:"},
		{`user=""`, "verb=GET", "path=/pods", "code=401", "bytes=12"},
	} {
		for _, part := range parts {
			if !strings.Contains(lines[i], part) {
				t.Errorf("line lacks %s: %s", part, lines[i])
			}
		}
	}
	k.level.Set(0)
	k.ask(k.caller(), "GET", "/pods", "")
	if n := len(k.logged.lines("msg=request ")); n != 2 {
		t.Errorf("%d lines", n)
	}
}

// TestUpgrade: a handler can take the connection over, and such a connection
// may be idle for longer than any request.
func TestUpgrade(t *testing.T) {
	k := newKit(t)
	k.reviewer.may = func(string, string, string) bool { return true }
	k.sizes.request, k.sizes.idle, k.sizes.header = 300*time.Millisecond, 300*time.Millisecond, 5*time.Second
	k.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(c, rw)
	})
	k.start()
	c, err := tls.Dial("tcp", k.address, k.tls())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, "POST /exec/a/b/c HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user:u\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n\r\n")
	head := make([]byte, 36)
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatalf("%v after %q", err, head)
	}
	time.Sleep(time.Second) // longer than a request may take
	_, _ = io.WriteString(c, "echo")
	back := make([]byte, 4)
	if _, err := io.ReadFull(c, back); err != nil || string(back) != "echo" {
		t.Errorf("%q %v", back, err)
	}
	c.Close()
	eventually(t, "a line", func() bool { return len(k.logged.lines("code=101")) == 1 })
}

// TestCheckpointTakesLong: that of a large container takes longer than any
// question may, and is not given up for that.
func TestCheckpointTakesLong(t *testing.T) {
	k := newKit(t)
	k.sizes.request = time.Second
	k.reviewer.may = func(_, verb, sub string) bool { return verb == "create" && sub == "checkpoint" }
	k.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			t.Error("given up")
		case <-time.After(2 * time.Second): // longer than a request
		}
		_, _ = io.WriteString(w, "done")
	})
	k.start()
	if code, body := k.ask(k.caller(), "POST", "/checkpoint/ns/web/main", "user:x"); code != 200 || body != "done" {
		t.Errorf("%d %q", code, body)
	}
}

// TestForeignPages: a page of another site, whose requests a browser sends with
// its user's certificate, can run nothing.
func TestForeignPages(t *testing.T) {
	k := newKit(t)
	k.reviewer.may = func(string, string, string) bool { return true }
	k.next = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	k.start()
	browser := k.caller(k.ca.issue("admin", x509.ExtKeyUsageClientAuth))
	for _, c := range []struct {
		method, headers string
		code            int
	}{
		{"POST", "", 200}, // kubectl
		{"POST", "Origin=https://evil.example", 403},
		{"POST", "Origin=null", 403},
		{"POST", "Origin=https://" + k.address, 200},
		{"POST", "Origin=https://" + k.address + ",Sec-Fetch-Site=same-origin", 200},
		{"POST", "Sec-Fetch-Site=cross-site", 403},
		{"POST", "Sec-Fetch-Site=same-site", 403}, // another port of the same host
		{"GET", "Origin=https://evil.example,Connection=Upgrade,Upgrade=websocket,Sec-WebSocket-Protocol=base64url.bearer.authorization.k8s.io.eA", 403},
		{"GET", "Origin=https://evil.example,Connection=Upgrade,Upgrade=websocket,X-Forwarded-For=10.0.0.1", 200}, // a dashboard's, from the apiserver
		{"POST", "Origin=https://dashboard.example,Authorization=Bearer user:x", 200},
		{"GET", "Origin=https://evil.example,Sec-Fetch-Site=cross-site", 200}, // it cannot read the answer
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, "https://"+k.address+"/run/ns/web/main", nil)
		if err != nil {
			t.Fatal(err)
		}
		for header := range strings.SplitSeq(c.headers, ",") {
			name, value, _ := strings.Cut(header, "=")
			if name != "" {
				r.Header.Set(name, value)
			}
		}
		answer, err := browser.Do(r)
		if err != nil {
			t.Fatal(c, err)
		}
		answer.Body.Close()
		if answer.StatusCode != c.code {
			t.Errorf("%s %s: code %d, want %d", c.method, c.headers, answer.StatusCode, c.code)
		}
	}
}

// TestFollowing: what people follow may say nothing for longer than any other
// request may take.
func TestFollowing(t *testing.T) {
	k := newKit(t)
	k.reviewer.may = func(string, string, string) bool { return true }
	k.sizes.request = 300 * time.Millisecond
	k.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(time.Second):
			_, _ = io.WriteString(w, "said")
		}
	})
	k.start()
	for name, c := range map[string]*http.Client{"HTTP/2": k.caller(), "HTTP/1.1": {Transport: &http.Transport{TLSClientConfig: k.tls()}}} {
		if code, text := k.ask(c, http.MethodGet, "/containerLogs/a/b/c", "user:u"); code != http.StatusOK || text != "said" {
			t.Errorf("over %s: %d %q", name, code, text)
		}
		c.CloseIdleConnections()
	}
}
