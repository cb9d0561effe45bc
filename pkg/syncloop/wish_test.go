package syncloop

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/objects"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
)

// bench is a machine without faults and an agent on it.
type bench struct {
	*world
	updates chan source.Update
	series  *metrics.Series
}

// newBench starts an agent that expects a source "file". What the machine has
// already is for before to say.
func newBench(t *testing.T, known map[types.UID]pod.Record, before func(w *world)) *bench {
	return newBenchOf(t, []string{"file"}, Offline{}, known, before)
}

// newBenchOf expects other sources.
func newBenchOf(t *testing.T, sources []string, offline Offline, known map[types.UID]pod.Record, before func(w *world)) *bench {
	b := &bench{world: newWorld(1), updates: make(chan source.Update), series: metrics.New(metrics.Build{})}
	b.quiet = true
	before(b.world)
	a := &agent{world: b.world, number: 1, dead: make(chan struct{}), busy: map[string]int{}}
	store := &objects.Store{}
	a.loop = New(Config{
		Runtime: a, Volumes: a, Cgroups: groups{a}, Records: records{a}, States: states{a}, Probes: probes{a}, Hooks: hooks{a}, Objects: store, Env: env.Resolver{Objects: store}, Log: slog.New(slog.DiscardHandler),
		Sources: sources, Offline: offline, Known: known, Ledger: ledger.Ledger{Allocatable: capacity}, Slots: slotCount, Timeout: callLimit,
		Connected: func(context.Context) error { return nil }, Metrics: b.series.Pods, Attempts: b.series.Probes,
	})
	b.series.Pods.Count(a.loop.Counts)
	b.agent = a
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.loop.Run(ctx, b.updates) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return b
}

// deliver says what the source wants, and lets a minute pass.
func (b *bench) deliver(held []string, pods ...*v1.Pod) {
	u := source.Update{Source: "file", Held: held}
	for _, p := range pods {
		u.Pods = append(u.Pods, source.Desired{Pod: p, Origin: "/m/" + p.Name})
	}
	b.updates <- u
	time.Sleep(time.Minute)
	synctest.Wait()
}

// static is a static pod of one container.
func static(name, uid, image string) *v1.Pod {
	grace := int64(1)
	p := &v1.Pod{}
	p.Name, p.Namespace, p.UID = name, "default", types.UID(uid)
	p.Annotations = map[string]string{pod.SourceAnnotation: "file"}
	p.Spec.TerminationGracePeriodSeconds = &grace
	p.Spec.RestartPolicy = v1.RestartPolicyAlways
	p.Spec.Containers = []v1.Container{{Name: "app", Image: image}}
	return p
}

// running has the pod run in the runtime, as another agent would have started it.
func running(w *world, p *v1.Pod) {
	w.locked(func() {
		s := w.runtime.addSandbox("old sandbox of "+string(p.UID), p, 0)
		id := "old container of " + string(p.UID)
		if _, err := w.runtime.addContainer(id, p, cri.CreateRequest{Container: "app", SandboxID: s.ID}); err != nil {
			panic(err)
		}
		if _, err := w.runtime.startContainer(id); err != nil {
			panic(err)
		}
		w.disk.folders[p.UID] = true
	})
}

// A wish that comes back before the actor has read the one between counts.
func TestWishThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(*world) {})
		one, two := static("a", "u", "one"), static("a", "u", "two")
		b.deliver(nil, one)
		for range 20 {
			for _, p := range []*v1.Pod{two, one} {
				b.updates <- source.Update{Source: "file", Pods: []source.Desired{{Pod: p, Origin: "/m/a"}}}
			}
			synctest.Wait()
			if got := b.agent.loop.actor("u").now.Load().Spec; got != one {
				t.Fatalf("the pod wants image %s, not that of the last wish", got.Spec.Containers[0].Image)
			}
		}
	})
}

// What another agent started is adopted if it is what the source wants.
func TestAdoption(t *testing.T) {
	record := func(p *v1.Pod) map[types.UID]pod.Record {
		return map[types.UID]pod.Record{p.UID: {Spec: p, Origin: "/m/a", Granted: true}}
	}
	same := static("a", "old", "one")
	changed := static("a", "old", "one")
	changed.Spec.HostNetwork = true
	other := static("a", "old", "one")
	other.Annotations[pod.SourceAnnotation] = "http"
	for name, c := range map[string]struct {
		runs  *v1.Pod
		known map[types.UID]pod.Record
		want  types.UID
	}{
		"the same":                     {same, nil, "old"},
		"the same, and known so":       {same, record(same), "old"},
		"changed while we were away":   {same, record(changed), "new"},
		"another image":                {static("a", "old", "two"), nil, "new"},
		"another name":                 {static("b", "old", "one"), nil, "new"},
		"the same from another source": {other, nil, "new"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, c.known, func(w *world) { running(w, c.runs) })
				b.deliver(nil, static("a", "new", "one"))
				pods := b.agent.loop.Pods()
				if len(pods) != 1 || pods[0].UID() != c.want || pods[0].Phase != v1.PodRunning {
					t.Errorf("%d pods, want one that runs with UID %s", len(pods), c.want)
				}
				if old := b.runtime.sandboxes["old sandbox of old"]; (old != nil) != (c.want == "old") {
					t.Errorf("the old sandbox is there: %v", old != nil)
				}
				for _, v := range b.wrong {
					t.Error(v)
				}
			})
		})
	}
}

// Orphans end when all sources have spoken, and not while what they may have
// come from cannot be read.
func TestOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(w *world) {
			running(w, static("a", "orphan", "one"))
			w.disk.folders["folder"] = true
		})
		left := func(when string, want bool) {
			t.Helper()
			if got := len(b.runtime.sandboxes) > 0; got != want {
				t.Errorf("%s: the orphan's sandbox is there: %v, want %v", when, got, want)
			}
		}
		time.Sleep(5 * time.Minute)
		left("before the source has spoken", true)
		b.deliver([]string{"/m/a"})
		left("while its file cannot be read", true)
		b.deliver(nil)
		time.Sleep(2 * auditPeriod)
		left("when no source wants it", false)
		if len(b.disk.folders) > 0 {
			t.Errorf("folders are left: %v", b.disk.folders)
		}
		for _, v := range b.wrong {
			t.Error(v)
		}
	})
}

// Where the runtime has no events, the end of a container is noticed while a
// hook of its neighbour goes on for long.
func TestEndIsSeenDuringHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(w *world) { w.runtime.noEvents = true })
		p := static("a", "u", "run=5s,exit=1")
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: "slow", Image: "two", Lifecycle: &v1.Lifecycle{
			PostStart: &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 1000}}}})
		b.deliver(nil, p)
		now := b.agent.loop.actor("u").now.Load()
		if _, hooking := now.Doing["poststart/"+now.Containers["slow"].Instance.ID]; !hooking {
			t.Errorf("the hook does not run, but %v", now.InFlight())
		}
		if n := now.Containers["app"].Restarts; n == 0 {
			t.Error("nobody saw that the container ended")
		}
		for _, v := range b.wrong {
			t.Error(v)
		}
	})
}

// Pods that ended before the agent began, and one that was deleted before it
// ran, have no part in what the node gives (behaviour row 1.2-2).
func TestEndedPodsAskForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended, recorded, deleted := fromAPI("ended", 0, "2"), fromAPI("recorded", 0, "2"), fromAPI("deleted", 0, "2")
		ended.Status.Phase = v1.PodSucceeded
		deleted.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		known := map[types.UID]pod.Record{"recorded": {Spec: recorded, Granted: true, Phase: v1.PodFailed}}
		b := newBench(t, known, func(*world) {})
		b.deliver(nil, ended, recorded, deleted, fromAPI("new", 0, "2"))
		if p := b.agent.loop.actor("new").now.Load(); p.Phase != v1.PodRunning {
			t.Errorf("the pod is %s: %+v", p.Phase, p.Verdict)
		}
	})
}
