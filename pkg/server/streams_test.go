package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// dialects are how clients may speak.
var dialects = map[string]func(n *node, u *url.URL) (remotecommand.Executor, error){
	"SPDY": func(n *node, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(n.client(), http.MethodPost, u)
	},
	"WebSocket4": func(n *node, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutorForProtocols(n.client(), http.MethodGet, u.String(), "v4.channel.k8s.io")
	},
	"WebSocket5": func(n *node, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(n.client(), http.MethodGet, u.String())
	},
}

// stream runs a command of the pod web, or attaches to it with path attach.
func (n *node) speak(ctx context.Context, dialect, path string, o remotecommand.StreamOptions, command ...string) error {
	q := url.Values{"command": command}
	for name, on := range map[string]bool{"input": o.Stdin != nil, "output": o.Stdout != nil, "error": o.Stderr != nil, "tty": o.Tty} {
		if on {
			q.Set(name, "1")
		}
	}
	u, err := url.Parse(n.url + path + "?" + q.Encode())
	n.must(err)
	e, err := dialects[dialect](n, u)
	n.must(err)
	return e.StreamWithContext(ctx, o)
}

func TestExec(t *testing.T) {
	n := newNode(t, nil)
	data := make([]byte, 5<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for dialect := range dialects {
		t.Run(dialect, func(t *testing.T) {
			for _, path := range []string{"/exec/default/web/main", "/exec/default/web/uid-web/main"} {
				in, sum := io.Reader(bytes.NewReader(data)), sha256.New()
				if dialect == "WebSocket4" { // it cannot say that the input ends
					in = nil
				}
				command := []string{"cat"}
				if in == nil {
					command = []string{"fail"}
				}
				var errs bytes.Buffer
				err := n.speak(t.Context(), dialect, path, remotecommand.StreamOptions{Stdin: in, Stdout: sum, Stderr: &errs}, command...)
				if in != nil && (err != nil || !bytes.Equal(sum.Sum(nil), sha(data))) {
					t.Errorf("%s: %v, or other bytes", path, err)
				}
				if exit, ok := err.(exec.CodeExitError); in == nil && (!ok || exit.Code != 42 || errs.String() != "no") {
					t.Errorf("%s: %v, %q", path, err, &errs)
				}
			}
			var out bytes.Buffer
			err := n.speak(t.Context(), dialect, "/exec/default/web/main", remotecommand.StreamOptions{Stdout: &out, Tty: true, TerminalSizeQueue: &oneSize{}}, "size")
			if err != nil || out.String() != "90x30" {
				t.Errorf("terminal: %v, %q", err, &out)
			}
			err = n.speak(t.Context(), dialect, "/exec/default/web/main", remotecommand.StreamOptions{Stdout: io.Discard, Stderr: &out}, "fail")
			if exit, ok := err.(exec.CodeExitError); !ok || exit.Code != 42 {
				t.Errorf("exit code: %v", err)
			}
		})
	}
}

func sha(data []byte) []byte { s := sha256.Sum256(data); return s[:] }

// oneSize is the size of a terminal that never changes.
type oneSize struct{ told bool }

func (o *oneSize) Next() *remotecommand.TerminalSize {
	if o.told {
		return nil
	}
	o.told = true
	return &remotecommand.TerminalSize{Width: 90, Height: 30}
}

// TestAttach: whether there is a terminal says the container's spec.
func TestAttach(t *testing.T) {
	n := newNode(t, nil)
	n.set("shell", func(p *pod.Pod) { p.Spec.Spec.Containers[0].TTY = true })
	for dialect, want := range map[string]string{"SPDY": "terminal true\nhello", "WebSocket5": "terminal true\nhello"} {
		var out bytes.Buffer
		err := n.speak(t.Context(), dialect, "/attach/default/shell/main", remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Tty: true}, "x")
		if err != nil || out.String() != want {
			t.Errorf("%s: %v, %q", dialect, err, &out)
		}
	}
	var out bytes.Buffer
	err := n.speak(t.Context(), "WebSocket5", "/attach/default/shell/main", remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out}, "x")
	if err != nil || !strings.HasPrefix(out.String(), "terminal true\n") {
		t.Errorf("a client that knows of no terminal: %v, %q", err, &out)
	}
}

// forward opens a connection that carries connections to ports of a pod.
func (n *node) forward(dialect, path string) (httpstream.Connection, error) {
	u, err := url.Parse(n.url + path)
	n.must(err)
	if dialect == "SPDY" {
		trip, upgrader, err := spdy.RoundTripperFor(n.client())
		n.must(err)
		c, _, err := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: trip}, http.MethodPost, u).Dial("portforward.k8s.io")
		return c, err
	}
	d, err := portforward.NewSPDYOverWebsocketDialerForStreaming(u, n.client())
	n.must(err)
	c, _, err := d.Dial("portforward.k8s.io")
	return c, err
}

// carry sends and receives over one connection to a port; failure is what the
// runtime says went wrong.
func carry(c httpstream.Connection, id, port int, data []byte) (echo []byte, failure string, err error) {
	header := func(kind string) http.Header {
		return http.Header{"streamType": {kind}, "port": {fmt.Sprint(port)}, "requestID": {fmt.Sprint(id)}}
	}
	wrong, err := c.CreateStream(header("error"))
	if err != nil {
		return nil, "", err
	}
	both, err := c.CreateStream(header("data"))
	if err != nil {
		return nil, "", err
	}
	go func() {
		_, _ = both.Write(data)
		both.Close()
	}()
	echo, err = io.ReadAll(both)
	wrong.Close()
	text, _ := io.ReadAll(wrong)
	return echo, string(text), err
}

func TestPortForward(t *testing.T) {
	n := newNode(t, nil)
	for _, dialect := range []string{"SPDY", "Tunnel"} {
		c, err := n.forward(dialect, "/portForward/default/web")
		n.must(err)
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				data := bytes.Repeat([]byte{byte(i)}, 100_000)
				echo, failure, err := carry(c, i, 80, data)
				if err != nil || failure != "" || !bytes.Equal(echo, data) {
					t.Errorf("%s: %v, %q, %d bytes", dialect, err, failure, len(echo))
				}
			})
		}
		wg.Wait()
		if _, failure, _ := carry(c, 99, 81, nil); !strings.Contains(failure, "connection refused") {
			t.Errorf("%s: a closed port says %q", dialect, failure)
		}
		c.Close()
	}
}

// TestRefusedStreams: what cannot begin says why, in the kubelet's words.
func TestRefusedStreams(t *testing.T) {
	n := newNode(t, nil)
	n.container("gone", pod.Container{ID: "gone", State: pod.Exited})
	n.set("down", func(p *pod.Pod) { p.View.Sandboxes[0].Ready = false })
	for request, want := range map[string]string{
		"POST /exec/default/web/main?command=cat":                            "400 you must specify at least 1 of stdin, stdout, stderr",
		"POST /exec/default/none/main?output=1":                              "404 pod does not exist",
		"POST /exec/other/web/main?output=1":                                 "404 pod does not exist",
		"POST /exec/default/web/uid-else/main?output=1":                      "404 pod does not exist",
		"GET /exec/default/web/other?output=1":                               `500 container not found ("other")`,
		"GET /exec/default/gone/main?output=1":                               `500 container not found ("main")`,
		"POST /exec/default/web/main?output=1":                               "400 Upgrade request required",
		"POST /attach/default/web/main":                                      "400 you must specify at least 1 of stdin, stdout, stderr",
		"GET /attach/default/none/main?output=1":                             "404 pod does not exist",
		"GET /attach/default/gone/main?output=1":                             `500 container not found ("main")`,
		"POST /portForward/default/none":                                     "404 pod does not exist",
		"GET /portForward/default/web/uid-else":                              "404 pod does not exist",
		"POST /portForward/default/down":                                     `500 pod not found ("down_default")`,
		"POST /portForward/default/web":                                      "400 Upgrade request required",
		"PUT /portForward/default/web":                                       "405 Method Not Allowed\n",
		"POST /run/default/web/main?cmd=echo+a+b":                            "200 web: echo|a|b",
		"POST /run/default/web/uid-web/main?cmd=ls":                          "200 web: ls",
		"POST /run/default/web/main?cmd=fail+x":                              "500 command 'fail x' exited with 3: no",
		"POST /run/default/none/main?cmd=ls":                                 "404 pod does not exist",
		"POST /run/default/gone/main?cmd=ls":                                 `500 container not found ("main")`,
		"GET /run/default/web/main?cmd=ls":                                   "405 Method Not Allowed\n",
		"GET /portForward/default/web?port=x <websocket>":                    `400 unable to parse "x" as a port: strconv.ParseUint: parsing "x": invalid syntax`,
		"GET /portForward/default/web <websocket>":                           `400 query parameter "port" is required`,
		"POST /exec/default/web/main?output=1 <websocket> <a body>":          "400 a request for an upgrade has no body",
		"GET /exec/default/web/main?input=yes&output=true&command=cat&tty=2": "400 you must specify at least 1 of stdin, stdout, stderr",
	} {
		if got := n.ask(request); got != want {
			t.Errorf("%s: %q, want %q", request, got, want)
		}
	}
}

// ask makes a request, and gives the code and what is answered.
func (n *node) ask(request string) string {
	answer := n.begin(request)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	n.must(err)
	return fmt.Sprintf("%d %s", answer.StatusCode, text)
}

// begin makes a request, and returns when its answer has begun.
func (n *node) begin(request string) *http.Response {
	words := strings.Fields(request)
	var body io.Reader
	if strings.Contains(request, "<a body>") {
		body = strings.NewReader("body")
	}
	r, err := http.NewRequest(words[0], n.url+words[1], body)
	n.must(err)
	if strings.Contains(request, "<websocket>") {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
	}
	t := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: !strings.Contains(request, "<websocket>")}
	answer, err := t.RoundTrip(r)
	n.must(err)
	return answer
}

// TestCutOff: of streams that are cut off at any moment nothing is left.
func TestCutOff(t *testing.T) {
	n := newNode(t, nil)
	n.log("web", "a line", "another")
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	one := func(i int) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(40_000))*time.Microsecond)
		defer cancel()
		r, w := io.Pipe()
		defer w.Close()
		switch i % 6 {
		case 0:
			_ = n.speak(ctx, "SPDY", "/exec/default/web/main", remotecommand.StreamOptions{Stdin: r, Stdout: io.Discard}, "cat")
		case 1:
			_ = n.speak(ctx, "WebSocket5", "/exec/default/web/main", remotecommand.StreamOptions{Stdout: io.Discard}, "flood")
		case 2:
			_ = n.speak(ctx, "WebSocket4", "/attach/default/web/main", remotecommand.StreamOptions{Stdin: r, Stdout: io.Discard}, "x")
		case 3, 4:
			c, err := n.forward([]string{"SPDY", "Tunnel"}[i%2], "/portForward/default/web")
			if err == nil {
				// The library's client waits for half a minute to make a stream of
				// a connection that was closed.
				go func() { _, _, _ = carry(c, 1, 80, make([]byte, 1<<20)) }()
				<-ctx.Done()
				c.Close()
			}
		case 5:
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+"/containerLogs/default/web/main?follow=1", nil)
			n.must(err)
			if answer, err := web.Do(r); err == nil {
				_, _ = io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
			}
		}
	}
	one(5) // so that what is made once is there
	web.CloseIdleConnections()
	goroutines, files := n.usage()
	const count, abreast = 1000, 16
	var wg sync.WaitGroup
	next := make(chan int)
	for range abreast {
		wg.Go(func() {
			for i := range next {
				one(i)
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	wg.Wait()
	web.CloseIdleConnections()
	n.settles(goroutines, files)
}

// What requests for an upgrade say.
const (
	toSPDY   = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
	toTunnel = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n"
)

// raw opens a connection and asks for an upgrade, and does nothing more.
func (n *node) raw(method, path, upgrade string) net.Conn {
	c, err := tls.Dial("tcp", strings.TrimPrefix(n.url, "https://"), &tls.Config{InsecureSkipVerify: true})
	n.must(err)
	_, err = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, path, upgrade)
	n.must(err)
	return c
}

// ends waits until the request is answered or, once upgraded, its connection is
// closed, and gives the answer's first line.
func ends(t *testing.T, c net.Conn) string {
	t.Helper()
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(c)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Errorf("no answer: %v", err)
		return ""
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusSwitchingProtocols {
		if _, err := io.Copy(io.Discard, in); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Error("the connection stays open")
		}
	}
	return answer.Status
}

// TestStalledUpgrade: neither a runtime that does not answer nor a client that
// does not go on holds anything for long.
func TestStalledUpgrade(t *testing.T) {
	n := newNode(t, func(s *Server) { s.waits.open, s.waits.idle = 300*time.Millisecond, 300*time.Millisecond })
	goroutines, files := n.usage()
	if got := ends(t, n.raw("POST", "/exec/default/web/main?output=1&command=cat", toSPDY)); got != "101 Switching Protocols" {
		t.Errorf("a client that does not go on: %s", got)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	n.must(err)
	n.address = "http://" + l.Addr().String()
	for _, path := range []string{"/exec/default/web/main?output=1&command=cat", "/portForward/default/web"} {
		if got := ends(t, n.raw("POST", path, toSPDY)); got != "500 Internal Server Error" {
			t.Errorf("a runtime that says nothing: %s", got)
		}
	}
	if err := n.speak(t.Context(), "WebSocket5", "/exec/default/web/main", remotecommand.StreamOptions{Stdout: io.Discard}, "flood"); err == nil {
		t.Error("a command ran without a runtime")
	}
	l.Close()
	n.settles(goroutines, files)
}

// TestRuntimeHangsUp: the client's connection ends with the runtime's, though
// nobody says so otherwise.
func TestRuntimeHangsUp(t *testing.T) {
	n := newNode(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	n.must(err)
	defer l.Close()
	n.address = "http://" + l.Addr().String()
	goroutines, files := n.usage()
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n")
			time.Sleep(100 * time.Millisecond) // until what the client says is waited for
			c.Close()
		}
	}()
	for upgrade, method := range map[string]string{toSPDY: "POST", toTunnel: "GET"} {
		if got := ends(t, n.raw(method, "/portForward/default/web", upgrade)); got != "101 Switching Protocols" {
			t.Errorf("%s: %s", upgrade, got)
		}
	}
	n.settles(goroutines, files)
}

// TestIdle: a stream over which nothing goes ends (streamingConnectionIdleTimeout).
func TestIdle(t *testing.T) {
	n := newNode(t, func(s *Server) { s.waits.idle = 500 * time.Millisecond })
	r, w := io.Pipe()
	defer w.Close()
	go func() { // for a while there is something
		for range 10 {
			time.Sleep(100 * time.Millisecond)
			_, _ = w.Write([]byte("."))
		}
	}()
	var out bytes.Buffer
	began := time.Now()
	_ = n.speak(t.Context(), "WebSocket4", "/exec/default/web/main", remotecommand.StreamOptions{Stdin: r, Stdout: &out}, "cat")
	if took := time.Since(began); out.String() != ".........." || took < time.Second {
		t.Errorf("it ended after %v with %q", took, &out)
	}
}

// TestNeverIdle: without a limit a stream may be idle as long as it likes.
func TestNeverIdle(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for given, want := range map[time.Duration]time.Duration{time.Minute: time.Minute, 0: year + lastWords} {
		k := newKit(t)
		k.options.Config.StreamingConnectionIdleTimeout.Duration = given
		s, err := New(k.options)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			began, over, done := time.Now(), make(chan struct{}), make(chan struct{})
			session := newSession(t.Context(), s.waits, s.log)
			session.moved.Store(began.UnixNano())
			session.ready <- struct{}{}
			session.ready <- struct{}{}
			go func() {
				defer close(done)
				session.watch(over)
			}()
			time.AfterFunc(year, func() { close(over) })
			<-done
			if took := time.Since(began); took != want {
				t.Errorf("limit %v: ended after %v", given, took)
			}
		})
	}
}

// TestSlowClient: what a client does not read is not kept for it.
func TestSlowClient(t *testing.T) {
	n := newNode(t, nil)
	for dialect := range dialects {
		n.mu.Lock()
		n.written = 0
		n.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		hold := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = n.speak(ctx, dialect, "/exec/default/web/main", remotecommand.StreamOptions{Stdout: blocked(hold)}, "flood")
		}()
		if kept := n.standstill(); kept > 24<<20 { // most of it in the kernel's buffers
			t.Errorf("%s: %d bytes are kept", dialect, kept)
		}
		cancel()
		close(hold)
		<-done
	}
}

// standstill waits until a flood goes no further, and says how far it went.
func (n *node) standstill() int {
	for before := -1; ; {
		time.Sleep(500 * time.Millisecond)
		n.mu.Lock()
		now := n.written
		n.mu.Unlock()
		if now == before && now > 0 {
			return now
		}
		before = now
	}
}

// blocked takes nothing until it is closed.
type blocked chan struct{}

func (b blocked) Write(data []byte) (int, error) {
	<-b
	return 0, io.ErrClosedPipe
}

// TestEndOfPod: streams over a pod end with it.
func TestEndOfPod(t *testing.T) {
	n := newNode(t, func(s *Server) { s.waits.last = 300 * time.Millisecond })
	n.log("web", "a line")
	for name, change := range map[string]func(){
		"Exited":  func() { n.container("web", pod.Container{ID: "web", State: pod.Exited}) },
		"Another": func() { n.container("web", pod.Container{ID: "web2", State: pod.Running, Attempt: 1}) },
		"Gone": func() {
			n.mu.Lock()
			delete(n.pods, types.UID("uid-web"))
			close(n.news)
			n.news = make(chan struct{})
			n.mu.Unlock()
		},
	} {
		n.set("web", func(*pod.Pod) {})
		goroutines, files := n.usage()
		var wg sync.WaitGroup
		for _, dialect := range []string{"SPDY", "WebSocket5"} {
			started := make(chan struct{})
			r, w := io.Pipe()
			wg.Go(func() {
				defer w.Close()
				_ = n.speak(t.Context(), dialect, "/exec/default/web/main", remotecommand.StreamOptions{Stdin: r, Stdout: signal(started)}, "cat")
			})
			_, err := w.Write([]byte("x"))
			n.must(err)
			<-started
		}
		logs := n.begin("GET /containerLogs/default/web/main?follow=1")
		forward, err := n.forward("SPDY", "/portForward/default/web")
		n.must(err)
		change()
		if name != "Gone" {
			n.set("web", func(p *pod.Pod) {
				p.Containers = map[string]pod.Memory{"main": {Known: &pod.Container{ID: "web3", Name: "main", State: pod.Running}}}
				p.View.Sandboxes[0].ID = "another"
			})
		}
		<-forward.CloseChan()
		forward.Close()
		wg.Wait()
		if text, err := io.ReadAll(logs.Body); err != nil || string(text) != "a line\n" {
			t.Errorf("%s: logs: %v, %q", name, err, text)
		}
		logs.Body.Close()
		n.settles(goroutines, files)
	}
}

// signal is closed by the first write.
type signal chan struct{}

func (s signal) Write(data []byte) (int, error) {
	select {
	case <-s:
	default:
		close(s)
	}
	return len(data), nil
}

// TestStop: the agent's end ends all streams, and awaits them.
func TestStop(t *testing.T) {
	n := newNode(t, nil)
	n.log("web", "a line")
	var wg sync.WaitGroup
	for dialect := range dialects {
		started := make(chan struct{})
		r, w := io.Pipe()
		wg.Go(func() {
			defer w.Close()
			_ = n.speak(t.Context(), dialect, "/exec/default/web/main", remotecommand.StreamOptions{Stdin: r, Stdout: signal(started)}, "cat")
		})
		_, err := w.Write([]byte("x"))
		n.must(err)
		<-started
	}
	forward, err := n.forward("Tunnel", "/portForward/default/web")
	n.must(err)
	n.stop()
	<-forward.CloseChan()
	wg.Wait()
}

func FuzzStreams(f *testing.F) {
	f.Add("input=1&output=1&tty=1&error=1")
	f.Add("tty=1&error=1")
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		s, err := streamsOf(q)
		if (err == nil) != (s.Stdin || s.Stdout || s.Stderr) || s.TTY && s.Stderr {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
