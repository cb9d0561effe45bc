package syncloop

import (
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
	"github.com/nodeagent/nodeagent/pkg/trace"
)

// record keeps the spans of what the agent does from now on.
func (b *bench) record() *tracetest.SpanRecorder {
	r := tracetest.NewSpanRecorder()
	b.agent.loop.Tracer = trace.New(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r)))
	return r
}

// stretches are the stretches of work in order, and of each the actions by kind;
// a stretch is named with its update_type. Every span must say whose pod it is.
func stretches(t *testing.T, r *tracetest.SpanRecorder, uid string) (names []string, actions map[string]map[string]sdktrace.ReadOnlySpan) {
	t.Helper()
	actions = map[string]map[string]sdktrace.ReadOnlySpan{}
	byID := map[string]string{}
	attribute := func(s sdktrace.ReadOnlySpan, key string) string {
		for _, a := range s.Attributes() {
			if string(a.Key) == key {
				return a.Value.AsString()
			}
		}
		return ""
	}
	for _, s := range r.Started() {
		if s.EndTime().IsZero() {
			t.Errorf("%s does not end", s.Name())
		}
		if got := attribute(s, "k8s.pod.uid"); got != uid {
			t.Errorf("%s is of pod %q", s.Name(), got)
		}
		if !s.Parent().IsValid() {
			name := s.Name()
			if update := attribute(s, "k8s.pod.update_type"); update != "" {
				name += "/" + update
			}
			names = append(names, name)
			byID[s.SpanContext().SpanID().String()] = name
			continue
		}
		above := byID[s.Parent().SpanID().String()]
		if actions[above] == nil {
			actions[above] = map[string]sdktrace.ReadOnlySpan{}
		}
		actions[above][s.Name()] = s
	}
	return names, actions
}

// A pod's start is a trace, its end others, each with its actions; a pod that just
// runs has none.
func TestSpansOfALife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(*world) {})
		r := b.record()
		b.deliver(nil, static("web", "w", "term=0s"))
		names, actions := stretches(t, r, "w")
		if len(names) == 0 || names[0] != "syncPod/create" {
			t.Fatalf("stretches %v", names)
		}
		start := actions["syncPod/create"]
		for _, kind := range []pod.Kind{pod.Admit, pod.Prepare, pod.Mount, pod.Pull, pod.RunSandbox, pod.Create, pod.Start} {
			if start[string(kind)] == nil {
				t.Errorf("no %s among %v", kind, start)
			}
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if later, _ := stretches(t, r, "w"); len(later) > len(names) {
			t.Errorf("while it just runs: %v", later[len(names):])
		}
		b.deliver(nil)
		later, actions := stretches(t, r, "w")
		later = later[len(names):]
		if len(later) != 2 || later[0] != "syncTerminatingPod" || later[1] != "syncTerminatedPod" {
			t.Errorf("its end: %v", later)
		}
		if actions["syncTerminatingPod"]["stop"] == nil || actions["syncTerminatedPod"]["erase"] == nil {
			t.Errorf("its end: %v", actions)
		}
	})
}

// An action that fails fails its stretch of work; what follows after a while is
// another.
func TestSpansOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(*world) {})
		r := b.record()
		p := static("web", "w", "term=0s")
		p.Spec.RuntimeClassName = new("missing")
		b.updates <- source.Update{Source: "file", Pods: []source.Desired{{Pod: p, Origin: "/m/web"}}}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		names, actions := stretches(t, r, "w")
		if len(names) < 2 || names[0] != "syncPod/create" || names[1] != "syncPod/sync" {
			t.Fatalf("stretches %v", names)
		}
		if got := actions["syncPod/create"]["sandbox"]; got == nil || got.Status().Code != codes.Error || got.Status().Description == "" {
			t.Errorf("the sandbox's span: %v", got)
		}
		for _, s := range r.Started() {
			if s.Name() == "syncPod" && s.Status().Code != codes.Error {
				t.Errorf("a stretch of work that failed says %v", s.Status())
			}
		}
	})
}

// Without traces an action costs nothing more.
func TestNoSpans(t *testing.T) {
	s, p := &spans{}, &pod.Pod{}
	act, e := pod.Action{Kind: pod.Create, Container: "app"}, pod.Event(pod.Done{})
	if n := testing.AllocsPerRun(100, func() {
		_, span := s.begin(t.Context(), p, act, "create")
		endSpan(span, e)
		s.failed(nil)
		s.rest()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
