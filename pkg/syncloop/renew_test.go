package syncloop

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
)

// A pod whose volumes show a token is woken when it is due, and for nothing
// else.
func TestVolumesAreRenewedWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(w *world) { w.quiet = true; w.disk.tokens = time.Hour })
		b.updates <- source.Update{Source: "file", Pods: []source.Desired{{Pod: static("web", "w", "term=0s"), Origin: "/m/web"}}}
		time.Sleep(150 * time.Minute)
		var mounted []time.Time
		b.agent.world.locked(func() { mounted = slices.Clone(b.agent.world.disk.mounted) })
		if len(mounted) != 3 {
			t.Fatalf("mounted %d times in 2.5 hours: %v", len(mounted), mounted)
		}
		for i := range 2 {
			if gap := mounted[i+1].Sub(mounted[i]); (gap - time.Hour).Abs() > time.Second {
				t.Errorf("mounted again after %s", gap)
			}
		}
	})
}

// refusal is an error that people are told of by a reason of its own.
type refusal string

func (r refusal) Error() string { return string(r) }

func (r refusal) EventReason() string { return "Denied" }

func TestErrorsWithAReasonAreEvents(t *testing.T) {
	plain := errors.New("no such key")
	if got := eventsOf(plain); got != nil {
		t.Errorf("a plain error is told as %v", got)
	}
	if got := eventsOf(nil); got != nil {
		t.Errorf("no error is told as %v", got)
	}
	err := fmt.Errorf("mount: %w", errors.Join(plain, fmt.Errorf("sources[1]: %w", refusal("request r was denied"))))
	want := []pod.Note{{Warning: true, Reason: "Denied", Message: "request r was denied"}}
	if d := cmp.Diff(want, eventsOf(err)); d != "" {
		t.Error(d)
	}
}

// What the apiserver is only being asked for is told as missing when it lasts.
func TestUnreadIsAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(*world) {})
		b.agent.loop.Objects.Remote = true
		p := static("web", "w", "term=0s")
		p.Spec.RuntimeClassName = new("safe")
		b.updates <- source.Update{Source: "file", Pods: []source.Desired{{Pod: p, Origin: "/m/web"}}}
		told := func(after time.Duration) bool {
			time.Sleep(after)
			synctest.Wait()
			return slices.ContainsFunc(b.agent.loop.actor("w").now.Load().Notes, func(n pod.Note) bool { return n.Reason == "FailedCreatePodSandBox" })
		}
		if told(2 * time.Second) {
			t.Error("told while it is asked for")
		}
		if !told(5 * time.Second) {
			t.Error("not told though it lasts")
		}
	})
}
