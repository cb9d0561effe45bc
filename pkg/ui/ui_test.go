package ui

import (
	"context"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	info "github.com/google/cadvisor/info/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
	"github.com/nodeagent/nodeagent/pkg/stats"
	"github.com/nodeagent/nodeagent/pkg/timeline"
)

// node has the pods, logs and figures it is given.
type node struct {
	pods    []pod.Pod
	logs    map[string]string // paths by container ID
	samples []stats.Container
}

func (n *node) Pods() []pod.Pod { return n.pods }
func (n *node) Node() pod.Node  { return pod.Node{Name: "n1", Network: "no network yet"} }
func (n *node) Problems() []source.Problem {
	return []source.Problem{{Origin: "/etc/pods/b.yaml", Field: "spec", Message: "is missing"}}
}
func (n *node) Await(ctx context.Context, _ types.UID, _ func(pod.Pod) bool) { <-ctx.Done() }
func (n *node) LogPath(_ context.Context, id string) (string, error)         { return n.logs[id], nil }
func (n *node) Sample(context.Context, stats.Depth) ([]stats.Container, error) {
	return n.samples, nil
}

func (n *node) handler() http.Handler {
	return Handler(Options{Version: "v1", Pods: n, Logs: n, Stats: n})
}

// podOf is the spec of a pod with one container, which has something to hide.
func podOf(uid types.UID, name string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: uid, Annotations: map[string]string{"note": "open-sesame"}},
		Spec: v1.PodSpec{Containers: []v1.Container{{Name: "main", Image: "i",
			Env: []v1.EnvVar{{Name: "PASSWORD", Value: "open-sesame"}}, Args: []string{"--token=open-sesame"}}}},
	}
}

func withState(spec *v1.Pod, state pod.State, code int32) pod.Pod {
	at := time.Now().Add(-time.Minute)
	view := pod.View{Sandboxes: []pod.Sandbox{{ID: "s", Ready: true, IPs: []string{"10.0.0.1"}}}}
	for _, c := range spec.Spec.Containers {
		view.Containers = append(view.Containers, pod.Container{ID: "id-" + c.Name, Name: c.Name, SandboxID: "s", State: state, ExitCode: code,
			CreatedAt: at, StartedAt: at, FinishedAt: at.Add(time.Second), Reason: "Error"})
	}
	p := pod.New(pod.Wanted{At: at, Spec: spec, Origin: "/etc/pods/a.yaml"}, view, nil)
	return pod.Apply(p, pod.Judged{At: at, Verdict: pod.Verdict{State: pod.Granted}})
}

func get(t *testing.T, h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// read decodes an answer.
func read[T any](t *testing.T, h http.Handler, target string) (v T) {
	t.Helper()
	w := get(t, h, target)
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%s: %d %s: %s", target, w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// Every answer, found or not, forbids the browser all but the page's own files.
func TestHeadersForbidAllElse(t *testing.T) {
	n := &node{pods: []pod.Pod{withState(podOf("u1", "web"), pod.Running, 0)}}
	for _, target := range []string{"/ui/", "/ui/main.js", "/ui/style.css", "/ui/api/pods", "/ui/api/pods/u1", "/ui/api/pods/none", "/ui/api/none", "/ui/none", "/ui"} {
		h := get(t, n.handler(), target).Header()
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
		} {
			if !strings.HasPrefix(h.Get(name), want) {
				t.Errorf("%s: %s is %q, want %q", target, name, h.Get(name), want)
			}
		}
		if strings.Contains(h.Get("Content-Security-Policy"), "unsafe") {
			t.Errorf("%s: the policy lets in what is unsafe", target)
		}
		if strings.HasPrefix(target, "/ui/api/") && h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: may be kept: %q", target, h.Get("Cache-Control"))
		}
	}
}

// The page changes nothing: it is only asked.
func TestOnlyReads(t *testing.T) {
	n := &node{}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		w := httptest.NewRecorder()
		n.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/ui/api/pods", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
}

// Behind a proxy the page has another path: none of its addresses is absolute.
func TestRedirectIsRelative(t *testing.T) {
	w := get(t, (&node{}).handler(), "/ui")
	if w.Code != http.StatusFound || w.Header().Get("Location") != "ui/" {
		t.Errorf("%d to %q", w.Code, w.Header().Get("Location"))
	}
}

// forbidden is what would make text into markup or script, reach out, or need a
// looser policy.
var forbidden = []*regexp.Regexp{
	regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|DOMParser|createContextualFragment|srcdoc`),
	regexp.MustCompile(`\beval\b|new Function|set(Timeout|Interval)\(\s*["'\x60]|javascript:`),
	regexp.MustCompile(`\bimport\(|importScripts|new Worker|WebSocket|XMLHttpRequest|sendBeacon|localStorage|document\.cookie`),
	regexp.MustCompile(`(?i)<script(?:\s[^>]*)?>[^<]|<style|\sstyle=|\son[a-z]+=|<iframe|<object|<base|@import|url\(`),
	regexp.MustCompile(`(?:https?:)?//[a-z0-9-]+\.[a-z]`),
}

// Nothing in the files turns text into markup, runs what is not a file of the
// page, or asks anybody else.
func TestFilesAreHarmless(t *testing.T) {
	entries, err := fs.ReadDir(page, "page")
	if err != nil || len(entries) < 5 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	imports := regexp.MustCompile(`from "([^"]+)"|(?:src|href)="([^"#]+)"`)
	total := 0
	for _, e := range entries {
		body, err := fs.ReadFile(page, "page/"+e.Name())
		if err != nil {
			t.Fatal(err)
		}
		total += len(body)
		text := strings.ReplaceAll(string(body), "http://www.w3.org/2000/svg", "")
		for _, bad := range forbidden {
			if at := bad.FindString(text); at != "" {
				t.Errorf("%s: %q", e.Name(), at)
			}
		}
		for _, m := range imports.FindAllStringSubmatch(text, -1) {
			if _, err := fs.Stat(page, path.Join("page", m[1]+m[2])); err != nil || strings.HasPrefix(m[1]+m[2], "/") {
				t.Errorf("%s: %q is no file beside it", e.Name(), m[1]+m[2])
			}
		}
	}
	if total > 100<<10 {
		t.Errorf("the page has grown to %d bytes", total)
	}
}

func TestFilesHaveTheirTypes(t *testing.T) {
	n := &node{}
	for target, want := range map[string]string{"/ui/": "text/html", "/ui/main.js": "text/javascript", "/ui/style.css": "text/css", "/ui/icon.svg": "image/svg+xml"} {
		w := get(t, n.handler(), target)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != want+"; charset=utf-8" {
			t.Errorf("%s: %d, %s", target, w.Code, w.Header().Get("Content-Type"))
		}
		if again := get(t, n.handler(), target, "If-None-Match", w.Header().Get("ETag")); again.Code != http.StatusNotModified {
			t.Errorf("%s again: %d", target, again.Code)
		}
	}
}

// What did not change is not sent again, and with it is told what time it is.
func TestUnchangedAnswersAreNotSentAgain(t *testing.T) {
	n := &node{pods: []pod.Pod{withState(podOf("u1", "web"), pod.Running, 0)}}
	h := n.handler()
	for _, target := range []string{"/ui/api/pods", "/ui/api/pods/u1", "/ui/api/events"} {
		first := get(t, h, target)
		again := get(t, h, target, "If-None-Match", first.Header().Get("ETag"))
		if again.Code != http.StatusNotModified || again.Body.Len() > 0 || again.Header().Get("Node-Time") == "" {
			t.Errorf("%s again: %d, %d bytes, node time %q", target, again.Code, again.Body.Len(), again.Header().Get("Node-Time"))
		}
	}
	first := get(t, h, "/ui/api/pods")
	n.pods = append(n.pods, withState(podOf("u2", "other"), pod.Running, 0))
	if w := get(t, h, "/ui/api/pods", "If-None-Match", first.Header().Get("ETag")); w.Code != http.StatusOK {
		t.Errorf("with another pod: %d", w.Code)
	}
}

// Nothing that a spec may keep from others is in any answer: variables,
// arguments, annotations.
func TestTellsNoSecrets(t *testing.T) {
	n := &node{pods: []pod.Pod{withState(podOf("u1", "web"), pod.Running, 0)}}
	for _, target := range []string{"/ui/api/pods", "/ui/api/pods/u1", "/ui/api/events", "/ui/api/stats?pod=u1"} {
		w := get(t, n.handler(), target)
		if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "open-sesame") {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

func TestStatesOfPods(t *testing.T) {
	never := podOf("u", "p")
	never.Spec.RestartPolicy = v1.RestartPolicyNever
	done := withState(never, pod.Exited, 0)
	done.Phase = v1.PodSucceeded
	ending := withState(podOf("u", "p"), pod.Running, 0)
	ending.Stop = &pod.Stop{Unwanted: true}
	loop := withState(podOf("u", "p"), pod.Exited, 1)
	loop.Spec.Spec.RestartPolicy = v1.RestartPolicyAlways
	m := loop.Containers["main"]
	m.Backoff = pod.Backoff{Delay: time.Hour, At: time.Now()}
	loop.Containers["main"] = m
	for name, c := range map[string]struct {
		pod    pod.Pod
		health Health
		ready  int
	}{
		"running":  {withState(podOf("u", "p"), pod.Running, 0), Running, 1},
		"done":     {done, Done, 0},
		"failed":   {withState(never, pod.Exited, 3), Failing, 0},
		"ending":   {ending, Ending, 1},
		"new":      {pod.New(pod.Wanted{At: time.Now(), Spec: podOf("u", "p")}, pod.View{}, nil), Waiting, 0},
		"backsoff": {loop, Failing, 0},
	} {
		n := &node{pods: []pod.Pod{c.pod}}
		got := read[Node](t, n.handler(), "/ui/api/pods").Pods
		if len(got) != 1 || got[0].Health != c.health || got[0].Ready != c.ready || got[0].State == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Whatever something is called, it comes as it is, as JSON that no browser takes
// for anything else.
func TestHostileNamesStayText(t *testing.T) {
	for _, name := range []string{`<img src=x onerror=alert(1)>`, "</script><script>alert(1)</script>", "a\u202egnp.exe", "\x1b[31mred", strings.Repeat("x", 253), `"};alert(1)//`} {
		n := &node{pods: []pod.Pod{withState(podOf("u1", name), pod.Running, 0)}}
		n.pods[0].Notes = []pod.Note{{Reason: name, Message: name, Count: 1}}
		if got := read[Node](t, n.handler(), "/ui/api/pods").Pods; got[0].Name != name {
			t.Errorf("%q became %q", name, got[0].Name)
		}
		w := get(t, n.handler(), "/ui/api/events")
		if strings.ContainsAny(w.Body.String(), "<>\x1b") {
			t.Errorf("%q: the answer has markup or steers a terminal: %s", name, w.Body)
		}
	}
}

func TestDetail(t *testing.T) {
	p := withState(podOf("u1", "web"), pod.Running, 0)
	p.Launches = []pod.Launch{{Began: p.Started, Steps: []pod.Step{
		{Key: "sandbox", Kind: pod.RunSandbox, Began: p.Started, Ended: p.Started.Add(time.Second)},
		{Key: "start/id-main", Kind: pod.Start, Container: "main", Began: p.Started.Add(time.Second), Ended: p.Started.Add(2 * time.Second), Error: "no"}}}}
	p.Notes = []pod.Note{{At: p.Started, Reason: "First", Count: 1}, {At: p.Started.Add(time.Second), Reason: "Second", Warning: true, Count: 2}}
	n := &node{pods: []pod.Pod{p}}
	d := read[Detail](t, n.handler(), "/ui/api/pods/u1")
	if d.Origin != "/etc/pods/a.yaml" || len(d.Containers) != 1 || d.Containers[0].Health != Running || d.Containers[0].Log != "id-main" || d.Containers[0].Previous {
		t.Errorf("detail %+v", d)
	}
	if len(d.Events) != 2 || d.Events[0].Reason != "Second" || !d.Events[0].Warning {
		t.Errorf("events, the newest first: %+v", d.Events)
	}
	if len(d.Starts) != 1 || !d.Starts[0].Open || !d.Starts[0].Ended.IsZero() || !slices.ContainsFunc(d.Starts[0].Spans, func(o timeline.Span) bool {
		return o.Container == "main" && o.Error == "no"
	}) {
		t.Errorf("starts %+v", d.Starts)
	}
}

func TestFiguresAreOfWhatIsShown(t *testing.T) {
	nano := uint64(250e6)
	sample := func(k stats.Kind, uid types.UID, name string, memory uint64) stats.Container {
		c := stats.Container{Kind: k, UID: uid, Name: name, NanoCores: &nano, Spec: &info.ContainerSpec{HasNetwork: true}, Stats: &info.ContainerStats{Timestamp: time.Now()}}
		c.Stats.Memory.WorkingSet, c.Spec.Memory.Limit, c.Stats.Network.RxBytes = memory, 1<<63, 7
		return c
	}
	n := &node{samples: []stats.Container{sample(stats.KindMachine, "", "", 1), sample(stats.KindPod, "u1", "", 2), sample(stats.KindContainer, "u1", "main", 3),
		sample(stats.KindPod, "u2", "", 4), sample(stats.KindContainer, "u2", "main", 5)}}
	all := read[Figures](t, n.handler(), "/ui/api/stats")
	if len(all.Pods) != 2 || *all.Pods["u2"].CPU != 250 || all.Pods["u2"].Memory != 4 || all.Node.Limit != 0 || len(all.Containers) > 0 || all.Network != nil {
		t.Errorf("all: %+v", all)
	}
	one := read[Figures](t, n.handler(), "/ui/api/stats?pod=u1")
	if len(one.Containers) != 1 || one.Containers["main"].Memory != 3 || one.Network == nil || one.Network.In != 7 {
		t.Errorf("one: %+v", one)
	}
	if w := get(t, Handler(Options{Pods: n, Logs: n}), "/ui/api/stats"); w.Code != http.StatusNotFound {
		t.Errorf("without figures: %d", w.Code)
	}
}
