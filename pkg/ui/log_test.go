package ui

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext":                              "plain\ttext",
		"grüße 日本語 👩‍💻":                            "grüße 日本語 👩‍💻",
		"\x1b[31mred\x1b[0m":                       "red",
		"\x1b]0;title\x07shown":                    "shown",
		"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\": "link",
		"a\x1bPq#0\x1b\\b":                         "ab",
		"\x1b(0\x1b7\x1bc.":                        ".",
		"cut \x1b[3":                               "cut ",
		"cut \x1b]0;tit":                           "cut ",
		"10%\r20%\r":                               "10%␍20%",
		"a\x00\x07\x08\x7f":                        "a␀␇␈␡",
		"a\u202egnp.exe":                           "a⟨202E⟩gnp.exe",
		"a\u2028b\u200b\u0085":                     "a⟨2028⟩b⟨200B⟩⟨0085⟩",
		"a\xffb":                                   "a\ufffdb",
	} {
		if got := clean([]byte(in)); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add([]byte("\x1b[31mred\x1b]0;x"))
	f.Add([]byte("\x1b\x1b[[m"))
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, r := range clean(line) {
			if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e {
				t.Fatalf("%q keeps %U", line, r)
			}
		}
	})
}

// logOf writes a log as runtimes do: each line is its stream, a space and text.
func logOf(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	appendLog(t, path, lines...)
	return path
}

func appendLog(t *testing.T, path string, lines ...string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, l := range lines {
		stream, text, _ := strings.Cut(l, " ")
		fmt.Fprintf(f, "2026-01-02T15:04:05.5Z %s F %s\n", stream, text)
	}
}

const stamp = "2026-01-02T15:04:05.500000000Z "

func TestLog(t *testing.T) {
	p := withState(podOf("u1", "web"), pod.Running, 0)
	m := p.Containers["main"]
	before := *m.Known
	before.ID, before.State = "id-before", pod.Exited
	m.Last = &before
	p.Containers["main"] = m
	n := &node{pods: []pod.Pod{p}, logs: map[string]string{
		"id-main":   logOf(t, "stdout one", "stderr \x1b[31mtwo", "stdout "+strings.Repeat("x", maxLine+7)),
		"id-before": logOf(t, "stdout old"),
	}}
	w := get(t, n.handler(), "/ui/api/pods/u1/log?container=main")
	want := "o" + stamp + "one\ne" + stamp + "two\n"
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), want) || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%d %q, want %q first", w.Code, w.Body, want)
	}
	if !strings.HasSuffix(w.Body.String(), fmt.Sprintf("… and %d bytes more\n!end\n", len(stamp)+7)) {
		t.Errorf("the long line, and the end: %q", w.Body.String()[w.Body.Len()-80:])
	}
	w = get(t, n.handler(), "/ui/api/pods/u1/log?container=main&previous")
	if w.Body.String() != "o"+stamp+"old\n!end\n" {
		t.Errorf("previous: %q", w.Body)
	}
	for _, target := range []string{"/ui/api/pods/u1/log?container=none", "/ui/api/pods/u1/log", "/ui/api/pods/none/log?container=main"} {
		if w := get(t, n.handler(), target); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d %q", target, w.Code, w.Body)
		}
	}
}

func TestLogIsTheLastLines(t *testing.T) {
	var all []string
	for i := range 2000 {
		all = append(all, fmt.Sprintf("stdout line %d", i))
	}
	n := &node{pods: []pod.Pod{withState(podOf("u1", "web"), pod.Running, 0)}, logs: map[string]string{"id-main": logOf(t, all...)}}
	lines := strings.Split(strings.TrimSpace(get(t, n.handler(), "/ui/api/pods/u1/log?container=main").Body.String()), "\n")
	if len(lines) != int(logTail)+1 || !strings.HasSuffix(lines[0], "line 1500") {
		t.Errorf("%d lines from %q", len(lines), lines[0])
	}
}

func TestLogEndsAtItsLimit(t *testing.T) {
	var all []string
	for range 10 {
		all = append(all, "stdout "+strings.Repeat("x", int(logBytes/8)))
	}
	n := &node{pods: []pod.Pod{withState(podOf("u1", "web"), pod.Running, 0)}, logs: map[string]string{"id-main": logOf(t, all...)}}
	if out := get(t, n.handler(), "/ui/api/pods/u1/log?container=main").Body.String(); !strings.HasSuffix(out, "\n!limit\n") {
		t.Errorf("ends with %q", out[max(0, len(out)-60):])
	}
}

// guarded has pods that may change.
type guarded struct {
	node
	mu   sync.Mutex
	news chan struct{} // closed when they have
}

func (g *guarded) Pods() []pod.Pod {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.pods)
}

func (g *guarded) Await(ctx context.Context, uid types.UID, is func(pod.Pod) bool) {
	select {
	case <-ctx.Done():
	case <-g.news:
		if p := g.Pods()[0]; p.UID() == uid && !is(p) {
			<-ctx.Done()
		}
	}
}

// One who follows gets what is printed when it is, until the container has ended;
// one who goes away leaves nothing behind.
func TestFollowLog(t *testing.T) {
	g := &guarded{news: make(chan struct{}), node: node{pods: []pod.Pod{withState(podOf("u1", "web"), pod.Running, 0)}, logs: map[string]string{"id-main": logOf(t, "stdout one")}}}
	s := &site{Options: Options{Pods: g, Logs: g}, streams: make(chan struct{}, 1), stall: logStall}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ui/api/pods/{uid}/log", s.log)
	server := httptest.NewServer(mux)
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ask := func(ctx context.Context) *http.Response {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/ui/api/pods/u1/log?container=main&follow", nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	first := ask(ctx)
	defer first.Body.Close()
	lines := bufio.NewScanner(first.Body)
	if !lines.Scan() || lines.Text() != "o"+stamp+"one" {
		t.Fatalf("first %q", lines.Text())
	}
	appendLog(t, g.logs["id-main"], "stdout two")
	if !lines.Scan() || lines.Text() != "o"+stamp+"two" {
		t.Fatalf("then %q", lines.Text())
	}
	second := ask(t.Context())
	second.Body.Close()
	if second.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one too many: %d", second.StatusCode)
	}
	cancel()
	var third *http.Response
	for deadline := time.Now().Add(30 * time.Second); ; { // its place is free once the reader has seen the end
		if third = ask(t.Context()); third.StatusCode == http.StatusOK {
			break
		}
		third.Body.Close()
		if time.Now().After(deadline) {
			t.Fatal("the place of one who went away is not free")
		}
	}
	defer third.Body.Close()
	g.mu.Lock()
	g.pods = []pod.Pod{withState(podOf("u1", "web"), pod.Exited, 0)}
	g.mu.Unlock()
	close(g.news)
	last := ""
	for lines = bufio.NewScanner(third.Body); lines.Scan(); {
		last = lines.Text()
	}
	if last != "!end" {
		t.Errorf("the last line is %q", last)
	}
}

// While a container waits to be started again, its log is that of the instance
// that ended; what ended before that one is gone from the runtime.
func TestLogsOfOneThatEndsAgainAndAgain(t *testing.T) {
	p := withState(podOf("u1", "web"), pod.Exited, 1)
	m := p.Containers["main"]
	before := *m.Known
	before.ID = "id-before"
	m.Last = &before
	p.Containers["main"] = m
	n := &node{pods: []pod.Pod{p}}
	if c := read[Detail](t, n.handler(), "/ui/api/pods/u1").Containers[0]; c.Log != "id-main" || c.Previous {
		t.Errorf("waiting to be started again: %+v", c)
	}
	m.Known.State = pod.Running
	if c := read[Detail](t, n.handler(), "/ui/api/pods/u1").Containers[0]; c.Log != "id-main" || !c.Previous {
		t.Errorf("running again: %+v", c)
	}
}

// A log that is quiet for longer than the server has patience for questions, and
// than a browser may take to accept a line, is followed on: also over HTTP/2,
// whose streams end when a deadline passes.
func TestFollowQuietLog(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &node{pods: []pod.Pod{withState(podOf("u1", "web"), pod.Running, 0)}, logs: map[string]string{"id-main": logOf(t, "stdout one")}}
			s := &site{Options: Options{Pods: n, Logs: n}, streams: make(chan struct{}, 1), stall: time.Second}
			mux := http.NewServeMux()
			mux.HandleFunc("GET /ui/api/pods/{uid}/log", func(w http.ResponseWriter, r *http.Request) {
				c, at := http.NewResponseController(w), time.Now().Add(time.Second)
				_, _ = c.SetReadDeadline(at), c.SetWriteDeadline(at)
				s.log(w, r)
			})
			server := httptest.NewUnstartedServer(mux)
			server.EnableHTTP2 = http2
			server.StartTLS()
			defer server.Close()
			resp, err := server.Client().Get(server.URL + "/ui/api/pods/u1/log?container=main&follow")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewScanner(resp.Body)
			lines.Scan()
			time.Sleep(2 * time.Second) // longer than both
			appendLog(t, n.logs["id-main"], "stdout two")
			if !lines.Scan() || lines.Text() != "o"+stamp+"two" {
				t.Errorf("%s: %q, %v", resp.Proto, lines.Text(), lines.Err())
			}
		})
	}
}
