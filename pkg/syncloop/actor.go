package syncloop

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// actor owns one pod's value. It alone applies events to it; others read the
// newest snapshot.
type actor struct {
	loop *Loop
	log  *slog.Logger
	mail *mailbox[pod.Event]
	// now is the newest value, for everybody to read.
	now  atomic.Pointer[pod.Pod]
	news news

	// wish is the newest wish that it was told, perhaps not read yet. The
	// loop's Run alone touches it.
	wish *v1.Pod

	pod pod.Pod
	// published and actuated are what other agents were last told of it.
	published *v1.Pod
	actuated  *pod.Actuated
	// restored says that an earlier process, or another agent, had the pod.
	restored bool
	told     int // Note.Seq of the newest note that was logged
	watch    stopwatch
	spans    spans
	held     atomic.Int32 // start slots of calls that have ended
	flight   map[string]context.CancelFunc
	probes   map[probeKey]*probing
	work     sync.WaitGroup

	mu     sync.Mutex
	mounts map[string]string // volume name to host path, from the last Mount
}

func newActor(l *Loop, p pod.Pod) *actor {
	a := &actor{
		loop: l, wish: p.Spec, pod: p, mail: newMailbox[pod.Event](),
		log:    l.Log.With("pod", p.Spec.Namespace+"/"+p.Spec.Name, "uid", p.Spec.UID),
		flight: map[string]context.CancelFunc{}, probes: map[probeKey]*probing{}, spans: spans{tracer: l.Tracer},
	}
	a.now.Store(&p)
	return a
}

// run plans and applies until the pod is forgotten or ctx ends, and returns
// when its calls have. It says whether the pod is gone.
func (a *actor) run(ctx context.Context) (gone bool) {
	defer a.uncount()
	defer a.giveBack()
	defer a.spans.rest()
	defer a.work.Wait()
	defer func() {
		for _, cancel := range a.flight {
			cancel()
		}
		for _, r := range a.probes {
			r.stop()
		}
	}()
	a.restore()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wake, gone := a.step(ctx)
		a.giveBack()
		if gone {
			return true
		}
		if wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(wake))
		}
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			a.apply(pod.Tick{At: time.Now()})
		case <-a.mail.ready:
			for _, e := range a.mail.take() {
				a.apply(e)
			}
		}
	}
}

// restore learns from the logs how often the containers were restarted, should
// nothing else tell (behaviour row T4).
func (a *actor) restore() {
	a.watch = stopwatch{Pods: a.loop.Metrics, fresh: !a.restored}
	if spec := a.pod.Spec; a.restored {
		a.apply(pod.Logged{At: time.Now(), Restarts: a.loop.Runtime.LoggedRestarts(spec.Namespace, spec.Name, spec.UID)})
	}
}

// step plans once and begins what is to be done, probes too.
func (a *actor) step(ctx context.Context) (wake time.Time, gone bool) {
	node, now := a.loop.Node(), time.Now()
	actions, wake := pod.Plan(a.pod, node, now)
	for _, act := range actions {
		if act.Kind == pod.Forget {
			a.watch.planned(&a.pod)
			a.log.Info("pod is gone")
			return wake, true
		}
		a.log.Debug("begin", "action", act.Key(), "why", act.Why)
		a.apply(pod.Begun{At: time.Now(), Action: act})
		if act.Kind == pod.Cancel {
			if cancel := a.flight[act.ID]; cancel != nil {
				cancel()
			}
			continue
		}
		a.begin(ctx, act)
	}
	a.watch.planned(&a.pod)
	if len(a.pod.Doing) == 0 {
		a.spans.rest()
	}
	if e, news := pod.HeldUp(a.pod, node, now); news {
		a.apply(e)
	}
	a.keepProbes(ctx)
	return wake, false
}

// giveBack releases the start slots of calls that have ended. It comes after
// the next call of the pod has taken its place among those who wait: otherwise
// the slot would go to a pod behind it, for its long sandbox call.
func (a *actor) giveBack() {
	for range a.held.Swap(0) {
		a.loop.slots.release()
	}
}

// begin runs the action in a goroutine of its own; its end comes back as mail.
func (a *actor) begin(ctx context.Context, act pod.Action) {
	ctx, span := a.spans.begin(ctx, &a.pod, act, a.watch.operation)
	wish, cancel := context.WithCancel(ctx)
	a.flight[act.Key()] = cancel
	p := a.pod
	var turn *waiter
	if act.NeedsSlot() && !looksFirst(p, act) {
		turn = a.loop.slots.join(rankOf(p, act))
	}
	a.work.Go(func() {
		defer cancel()
		a.loop.fault("before-" + string(act.Kind))
		e := a.do(ctx, wish, turn, p, act)
		endSpan(span, e)
		a.loop.fault("after-" + string(act.Kind))
		a.mail.put(e)
	})
}

// apply takes in one event and tells what is new.
func (a *actor) apply(e pod.Event) {
	before := a.pod
	a.pod = pod.Apply(a.pod, e)
	a.watch.observe(&before, &a.pod, e)
	if pod.ForPeople(e) {
		p := a.pod
		a.now.Store(&p)
		return
	}
	switch d := e.(type) {
	case pod.Done:
		delete(a.flight, d.Action.Key())
		a.logDone(d)
	case pod.Judged:
		delete(a.flight, string(pod.Admit))
		a.loop.rebalance()
	case pod.Resized:
		if d.Verdict.State != pod.Unasked {
			delete(a.flight, string(pod.Allocate))
			a.loop.rebalance()
		}
	}
	a.publish()
	p := a.pod
	a.now.Store(&p)
	a.news.tell()
	if a.loop.World != nil {
		a.loop.World.Tell(p)
	}
	if p.Phase != before.Phase {
		if pod.IsTerminal(p.Phase) {
			a.uncount()
		}
		a.log.Info("phase", "phase", p.Phase)
	}
	a.tell()
}

func (a *actor) logDone(d pod.Done) {
	if d.Failure == nil {
		a.log.Debug("done", "action", d.Action.Key())
		return
	}
	a.spans.failed(d.Failure)
	a.log.Debug("failed", "action", d.Action.Key(), "reason", d.Failure.Reason, "error", d.Failure.Message, "uncertain", d.Failure.Uncertain)
}

// tell logs notes that are new; what is only said again is not.
func (a *actor) tell() {
	for _, n := range a.pod.Notes {
		if n.Seq <= a.told {
			continue
		}
		a.told = n.Seq
		level := slog.LevelInfo
		if n.Warning {
			level = slog.LevelWarn
		}
		attrs := []any{"reason", n.Reason}
		if n.Container != "" {
			attrs = append(attrs, "container", n.Container)
		}
		a.log.Log(context.Background(), level, n.Message, attrs...)
	}
}
