package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/metrics/metricstest"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// bed is a writer that runs against an apiserver, in virtual time.
type bed struct {
	*testing.T
	*api
	w      *Writer
	log    lines
	series *metrics.Series
}

// lines are what was logged.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, string(p))
	return len(p), nil
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.text)
}

// inBed runs a test with a writer in virtual time.
func inBed(t *testing.T, test func(b *bed)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bed{T: t, api: newAPI(), series: metrics.New(metrics.Build{})}
		b.w = New(Options{Metrics: b.series.Writes, Client: b.client(t, 50, 100), Node: func() pod.Node { return node }, Log: slog.New(slog.NewTextHandler(&b.log, nil))})
		b.watcher = b.w
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.w.Run(ctx) }()
		test(b)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

// bind has the scheduler bind a pod, and the agent take it in; took is how long
// calls to the runtime take.
func (b *bed) bind(name string, took map[pod.Kind]time.Duration, alter ...func(*v1.Pod)) *life {
	p := b.put(bound(name, time.Now(), alter...))
	time.Sleep(2 * b.lag)
	l := born(p, time.Now(), b.w.Tell)
	l.took = took
	return l
}

// settle waits until all is told that there is to tell.
func (b *bed) settle() { time.Sleep(5 * time.Second) }

func (b *bed) wantCalls(verb, name string, want int) []call {
	b.Helper()
	calls := b.asked(verb, name)
	if len(calls) != want {
		b.Errorf("%d calls %q for pod %q, want %d:", len(calls), verb, name, want)
		for _, c := range calls {
			b.Errorf("%s %s %s %s", c.at.Format("05.000"), c.verb, c.name, c.body)
		}
	}
	return calls
}

func ready(p *v1.Pod) bool { return p != nil && isTrue(p.Status, v1.PodReady) }

// TestWritesPerStart: a pod that is ready at once is written once, a slower one
// twice, and then no more.
func TestWritesPerStart(t *testing.T) {
	t.Run("at once", func(t *testing.T) {
		inBed(t, func(b *bed) {
			b.bind("a", nil).live("")
			b.settle()
			b.wantCalls("", "", 1)
			if !ready(b.get("a")) {
				b.Errorf("not ready: %+v", b.get("a").Status)
			}
		})
	})
	t.Run("slower", func(t *testing.T) {
		inBed(t, func(b *bed) {
			began := time.Now()
			b.bind("a", quick).live("")
			running := time.Now()
			b.settle()
			calls := b.wantCalls("", "", 2)
			if first := calls[0].at.Sub(began); first < firstAfter || first > firstAfter+50*time.Millisecond {
				b.Errorf("Pending was told after %s", first)
			}
			if last := calls[1].at.Sub(running); last > 10*time.Millisecond {
				b.Errorf("Ready was told %s after it was", last)
			}
			if !ready(b.get("a")) {
				b.Errorf("not ready: %+v", b.get("a").Status)
			}
			time.Sleep(time.Hour)
			b.wantCalls("", "", 2)
		})
	})
	t.Run("burst", func(t *testing.T) {
		inBed(t, func(b *bed) {
			var work sync.WaitGroup
			for i := range 30 {
				work.Go(func() {
					slow := map[pod.Kind]time.Duration{pod.RunSandbox: time.Duration(150+i*90) * time.Millisecond,
						pod.Create: time.Duration(i*50) * time.Millisecond, pod.Start: time.Duration(i*40) * time.Millisecond}
					b.bind(fmt.Sprintf("p%d", i), slow).live("")
				})
			}
			work.Wait()
			b.settle()
			for i := range 30 {
				b.wantCalls("patch", fmt.Sprintf("p%d", i), 2)
			}
		})
	})
}

// TestWritesAreCounted: with how they went, and how long the apiserver's copy was
// untrue.
func TestWritesAreCounted(t *testing.T) {
	inBed(t, func(b *bed) {
		b.bind("a", quick).live("")
		b.settle()
		b.wantCalls("patch", "a", 2)
		got := metricstest.Of(b.series.Handler())
		if n := got[`nodeagent_pod_writes_total{result="ok",verb="patch"}`]; n != 2 {
			b.Errorf("%v writes are counted", n)
		}
		if n := got["kubelet_pod_status_sync_duration_seconds_count"]; n < 1 || n > 2 {
			b.Errorf("its copy became true %v times", n)
		}
		if took := got["kubelet_pod_status_sync_duration_seconds_sum"]; took <= 0 || took > 1 {
			b.Errorf("its copy was untrue for %v s", took)
		}
	})
}

// TestLesserNewsWait: what nobody waits for waits a moment for company, and a
// message that changes each second does not make a write of each.
func TestLesserNewsWait(t *testing.T) {
	inBed(t, func(b *bed) {
		l := b.bind("a", nil)
		l.live(pod.RunSandbox)
		b.settle()
		before := len(b.wantCalls("patch", "a", 1))
		began := time.Now()
		l.live(pod.Create)
		b.settle()
		calls := b.wantCalls("patch", "a", before+1)
		if wait := calls[before].at.Sub(began); wait < 500*time.Millisecond || wait > 1100*time.Millisecond {
			b.Errorf("a sandbox was told after %s", wait)
		}
	})
}

// TestEndIsToldAtOnce, and its restart; a pod in a crash loop is told of when
// something happens, not as time passes.
func TestEndIsToldAtOnce(t *testing.T) {
	inBed(t, func(b *bed) {
		l := b.bind("a", nil)
		l.live("")
		b.settle()
		b.wantCalls("patch", "a", 1)
		died := time.Now()
		l.dies("c", 1)
		time.Sleep(50 * time.Millisecond)
		calls := b.wantCalls("patch", "a", 2)
		if wait := calls[len(calls)-1].at.Sub(died); wait > 10*time.Millisecond {
			b.Errorf("the end was told after %s", wait)
		}
		l.live("")
		b.settle()
		if s := b.get("a").Status; !ready(b.get("a")) || s.ContainerStatuses[0].RestartCount != 1 {
			b.Errorf("after the restart: %+v", s)
		}
		l.dies("c", 1)
		b.settle()
		calls = b.asked("", "")
		time.Sleep(4 * time.Second)
		b.wantCalls("", "", len(calls))
	})
}

// TestNewestValueIsSent: what became old while its turn had not come is not
// written.
func TestNewestValueIsSent(t *testing.T) {
	inBed(t, func(b *bed) {
		b.latency = 300 * time.Millisecond
		l := b.bind("a", nil, func(p *v1.Pod) { p.Spec.Containers[0].ReadinessProbe = &v1.Probe{} })
		l.live("")
		for i := range 8 {
			l.probed([]pod.Result{pod.Success, pod.Fail}[i%2])
			time.Sleep(20 * time.Millisecond)
		}
		b.settle()
		if ready(b.get("a")) {
			b.Error("the newest says that it is not ready")
		}
		if n := len(b.asked("patch", "a")); n > 3 {
			b.Errorf("%d writes for what took 160 ms", n)
		}
	})
}

// TestDeletion: the pod goes only after its end is stored and nothing is left of
// it, and nothing is kept of it here.
func TestDeletion(t *testing.T) {
	inBed(t, func(b *bed) {
		l := b.bind("a", quick)
		l.live("")
		b.settle()
		b.change("a", func(p *v1.Pod) { p.DeletionTimestamp, p.DeletionGracePeriodSeconds = new(metav1.Now()), new(int64(30)) })
		l.ends()
		l.live(pod.Unmount)
		b.settle()
		if p := b.get("a"); p == nil || p.Status.Phase != v1.PodFailed {
			b.Fatalf("its end is to be stored while it has volumes: %+v", p)
		}
		b.wantCalls("delete", "a", 0)
		l.live("")
		b.settle()
		b.wantCalls("delete", "a", 1)
		if b.get("a") != nil {
			b.Error("it was not deleted")
		}
		l.apply(pod.Ended{At: time.Now(), Grace: -1, Unwanted: true})
		if !l.live("") {
			b.Error("it is not gone")
		}
		b.w.Forget(l.p.UID())
		b.empty()
	})
}

func (b *bed) empty() {
	b.Helper()
	b.settle()
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	if len(b.w.pods)+len(b.w.ids) != 0 {
		b.Errorf("kept: %v, %v", b.w.pods, b.w.ids)
	}
}

// TestForceDeletion: the pod vanishes before it has ended; it is not written any
// more, and nothing is kept of it.
func TestForceDeletion(t *testing.T) {
	inBed(t, func(b *bed) {
		l := b.bind("a", quick)
		l.live("")
		b.settle()
		b.api.remove("a")
		time.Sleep(2 * b.lag)
		before := len(b.asked("", ""))
		l.apply(pod.Ended{At: time.Now(), Grace: -1, Unwanted: true})
		l.live("")
		b.w.Forget(l.p.UID())
		b.empty()
		b.wantCalls("", "", before)
	})
}

// TestFinalizersHoldThePod: the apiserver is told once that the pod may go, and
// not again with each change that others make.
func TestFinalizersHoldThePod(t *testing.T) {
	inBed(t, func(b *bed) {
		l := b.bind("a", nil, func(p *v1.Pod) { p.Finalizers = []string{"example.com/stay"} })
		l.live("")
		b.settle()
		b.change("a", func(p *v1.Pod) { p.DeletionTimestamp, p.DeletionGracePeriodSeconds = new(metav1.Now()), new(int64(30)) })
		l.ends()
		l.live("")
		b.settle()
		b.wantCalls("delete", "a", 1)
		for i := range 3 {
			b.change("a", func(p *v1.Pod) { p.Labels = map[string]string{"i": fmt.Sprint(i)} })
			b.settle()
		}
		b.wantCalls("delete", "a", 1)
	})
}

// TestFinishedPodStays until somebody deletes it.
func TestFinishedPodStays(t *testing.T) {
	inBed(t, func(b *bed) {
		l := b.bind("a", nil, policy(v1.RestartPolicyNever))
		l.live("")
		l.dies("c", 0)
		l.live("")
		b.settle()
		if p := b.get("a"); p == nil || p.Status.Phase != v1.PodSucceeded {
			b.Fatalf("%+v", p)
		}
		time.Sleep(time.Hour)
		b.wantCalls("delete", "", 0)
	})
}

// TestOtherPodOfTheName: a new pod under the same name is not written with what
// is known of the old one.
func TestOtherPodOfTheName(t *testing.T) {
	inBed(t, func(b *bed) {
		l := b.bind("a", nil)
		l.live("")
		b.settle()
		b.set(func() { b.lag = time.Hour }) // the watch says nothing
		b.change("a", func(p *v1.Pod) { p.UID, p.Status = "other", v1.PodStatus{Phase: v1.PodPending} })
		l.dies("c", 1)
		b.settle()
		if s := b.get("a").Status; len(s.ContainerStatuses) > 0 {
			b.Errorf("the new pod was written: %+v", s)
		}
		if n := len(b.asked("", "a")); n > 6 {
			b.Errorf("%d calls", n)
		}
	})
}

// TestConflict: after a conflict the newest copy is asked for.
func TestConflict(t *testing.T) {
	inBed(t, func(b *bed) {
		l := b.bind("a", nil)
		once := true
		b.set(func() {
			b.fail = func(verb, name string) error {
				if verb != "patch" || !once {
					return nil
				}
				once = false
				return apierrors.NewConflict(v1.Resource("pods"), name, errors.New("somebody was faster"))
			}
		})
		l.live("")
		b.settle()
		var verbs []string
		for _, c := range b.asked("", "a") {
			verbs = append(verbs, c.verb)
		}
		if got := strings.Join(verbs, " "); got != "patch get patch" || !ready(b.get("a")) || b.log.count() != 0 {
			b.Errorf("%s, logged %v", got, b.log.text)
		}
	})
}

// TestDrift: what somebody else makes of our fields is overwritten as soon as it
// is seen, but not without end.
func TestDrift(t *testing.T) {
	inBed(t, func(b *bed) {
		l := b.bind("a", nil)
		l.live("")
		b.settle()
		spoil := func() { b.change("a", func(p *v1.Pod) { p.Status.Phase = v1.PodPending }) }
		spoil()
		time.Sleep(50 * time.Millisecond)
		if b.get("a").Status.Phase != v1.PodRunning {
			b.Error("the phase was not set right")
		}
		for range 2000 {
			spoil()
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(b.asked("patch", "a")); n > 40 {
			b.Errorf("%d writes in 20 s", n)
		}
		b.settle()
		if b.get("a").Status.Phase != v1.PodRunning {
			b.Error("the phase was not set right in the end")
		}
	})
}

// TestServerThatKnowsLess: a field that an apiserver drops is not written again
// and again.
func TestServerThatKnowsLess(t *testing.T) {
	inBed(t, func(b *bed) {
		b.alter = func(p *v1.Pod) {
			p.Status.ObservedGeneration = 0
			for i := range p.Status.Conditions {
				p.Status.Conditions[i].ObservedGeneration = 0
			}
		}
		l := b.bind("a", quick)
		l.live("")
		b.settle()
		b.wantCalls("patch", "a", 2)
		l.dies("c", 1)
		b.settle()
		b.wantCalls("patch", "a", 3)
		b.change("a", func(p *v1.Pod) { p.Status.Phase = v1.PodPending })
		b.settle()
		b.wantCalls("patch", "a", 4)
	})
}

// TestRefusal: a pod that the apiserver does not take is tried again ever more
// seldom, and said so once.
func TestRefusal(t *testing.T) {
	inBed(t, func(b *bed) {
		b.fail = func(verb, name string) error {
			if verb == "patch" && name == "bad" {
				return apierrors.NewForbidden(v1.Resource("pods"), name, errors.New("no"))
			}
			return nil
		}
		bad, good := b.bind("bad", nil), b.bind("good", nil)
		bad.live("")
		good.live("")
		time.Sleep(10 * time.Minute)
		if n := len(b.asked("patch", "bad")); n < 10 || n > 30 {
			b.Errorf("%d tries in 10 minutes", n)
		}
		if !ready(b.get("good")) || b.log.count() != 1 {
			b.Errorf("ready %v, logged %v", ready(b.get("good")), b.log.text)
		}
	})
}

// TestOutage: while the apiserver is away one call at a time looks for it; when
// it is back all is told soon, with two lines in the log.
func TestOutage(t *testing.T) {
	inBed(t, func(b *bed) {
		var lives []*life
		for i := range 100 {
			lives = append(lives, b.bind(fmt.Sprintf("p%d", i), nil))
			lives[i].live("")
		}
		b.settle()
		b.set(func() {
			b.calls = nil
			b.fail = func(string, string) error { return errors.New("connection refused") }
		})
		for _, l := range lives {
			l.dies("c", 1)
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(55 * time.Second)
		if n := len(b.asked("", "")); n > 60 {
			b.Errorf("%d calls in a minute of outage", n)
		}
		if b.log.count() != 1 {
			b.Errorf("logged: %v", b.log.text)
		}
		b.set(func() { b.fail, b.calls = nil, nil })
		b.settle()
		for _, l := range lives {
			if ready(b.get(l.p.Spec.Name)) {
				b.Errorf("%s: not told", l.p.Spec.Name)
			}
		}
		b.wantCalls("patch", "", 100)
		if b.log.count() != 2 {
			b.Errorf("logged: %v", b.log.text)
		}
	})
}
