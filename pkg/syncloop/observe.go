package syncloop

import (
	"cmp"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// stopwatch times what an actor does for its pod (docs/METRICS.md). It follows
// from the pod's values before and after each event, and is the actor's own.
type stopwatch struct {
	*metrics.Pods
	fresh bool // the pod's start is this process's to time

	// A stretch of work lasts until nothing is in flight.
	work      time.Time // when it began, zero while nothing is in flight
	operation string    // what it counts as
	worked    bool      // there was one before
	wished    bool      // a wish was read since

	// The pod's start.
	idle   time.Time     // since when only images and init containers keep it
	waited time.Duration // in which they did, before that
	up     time.Time     // when all its containers had started
	over   bool          // it is ready, or will never be
}

// steps are the actions of a start, by what they are called.
var steps = map[pod.Kind]string{
	pod.Prepare: "prepare", pod.Mount: "volumes", pod.Pull: "pull", pod.RunSandbox: "sandbox",
	pod.Create: "create", pod.Start: "start", pod.PostStart: "poststart",
}

// observe takes in what an event made of the pod.
func (w *stopwatch) observe(before, p *pod.Pod, event pod.Event) {
	if w.Pods == nil {
		return
	}
	now := time.Now()
	switch e := event.(type) {
	case pod.Wanted:
		w.wished = true
	case pod.Begun:
		w.begun(p, e.Action, now)
	case pod.Judged:
		w.judged(before, e)
	case pod.Ended:
		if e.Reason == ledger.Preempting && before.Stop == nil {
			w.Preempted()
		}
	case pod.Done:
		w.done(before, p, e)
		w.ends(before, p)
	}
	if before.Phase == v1.PodPending && p.Phase == v1.PodRunning {
		w.Running(now.Sub(p.Started))
	}
	if !w.over {
		w.start(p, now)
	}
}

// begun begins a stretch of work, if none is under way.
func (w *stopwatch) begun(p *pod.Pod, act pod.Action, now time.Time) {
	if !w.work.IsZero() || act.Kind == pod.Cancel {
		return
	}
	w.work = now
	switch {
	case !w.worked:
		w.operation = "create"
	case w.wished:
		w.operation = "update"
	default:
		w.operation = "sync"
	}
	if w.fresh && !w.worked {
		w.Taken(now.Sub(p.Started), len(p.Spec.Spec.Containers))
	}
}

// planned ends the stretch of work, if there was nothing left to plan.
func (w *stopwatch) planned(p *pod.Pod) {
	if w.Pods == nil || len(p.Doing) > 0 {
		return
	}
	w.wished = false
	if w.work.IsZero() {
		return
	}
	if p.Stop != nil {
		w.operation = "kill"
	}
	w.Worked(w.operation, time.Since(w.work))
	w.work, w.worked = time.Time{}, true
}

func (w *stopwatch) judged(before *pod.Pod, e pod.Judged) {
	asked, ok := before.Doing[string(pod.Admit)]
	switch {
	case !ok:
	case e.Verdict.State == pod.Granted:
		w.Step("admit", e.At.Sub(asked.Since))
	case e.Verdict.State == pod.Refused:
		w.Rejected(rejection(e.Verdict.Reason))
	}
}

// rejection is the reason, without the names of resources that pods make up.
func rejection(reason string) string {
	resource, ok := strings.CutPrefix(reason, "OutOf")
	if ok && !slices.Contains([]string{"cpu", "memory", "ephemeral-storage", "pods"}, resource) {
		return "OutOfExtendedResources"
	}
	return reason
}

// done counts how an action ended. One that was given up because the pod no
// longer wants it, counts as nothing.
func (w *stopwatch) done(before, p *pod.Pod, e pod.Done) {
	act, failure := e.Action, e.Failure
	doing, ok := before.Doing[act.Key()]
	if !ok || failure != nil && (failure.Canceled || failure.Awaited) {
		return
	}
	if failure != nil {
		w.StepFailed(string(act.Kind))
	} else if step := steps[act.Kind]; step != "" && p.Stop == nil && !(act.Kind == pod.Mount && before.Setup.Mounted) {
		w.Step(step, e.At.Sub(doing.Since))
	}
	kind := typeOf(p.Spec, act.Container)
	switch act.Kind {
	case pod.RunSandbox:
		w.Sandbox(p.Spec.Spec.HostUsers != nil && !*p.Spec.Spec.HostUsers, failure != nil)
	case pod.Pull, pod.Create:
		if failure != nil {
			w.ContainerFailed(kind, cmp.Or(failure.Reason, "Unknown"))
		}
	case pod.Start:
		if failure != nil {
			w.ContainerFailed(kind, cmp.Or(failure.Reason, "Unknown"))
		} else {
			w.ContainerStarted(kind)
		}
	case pod.PostStart:
		if failure != nil {
			w.HookFailed(kind)
		}
	}
	if slices.ContainsFunc(e.Told, func(n pod.Note) bool { return n.Reason == "LifecycleHTTPFallback" }) {
		w.HookFellBack()
	}
}

// ends counts the containers that are now known to have ended.
func (w *stopwatch) ends(before, p *pod.Pod) {
	for name, m := range p.Containers {
		k, old := m.Known, before.Containers[name].Known
		if k == old || k == nil || k.State != pod.Exited || k.NeverRan() || old != nil && old.ID == k.ID && old.State == pod.Exited {
			continue
		}
		w.ContainerEnded(typeOf(p.Spec, name), k.ExitCode, k.Reason)
	}
}

// typeOf is what the container is, in the words of the metrics.
func typeOf(spec *v1.Pod, name string) string {
	for i := range spec.Spec.InitContainers {
		if spec.Spec.InitContainers[i].Name == name {
			return "init_container"
		}
	}
	for i := range spec.Spec.EphemeralContainers {
		if spec.Spec.EphemeralContainers[i].Name == name {
			return "ephemeral_container"
		}
	}
	return "container"
}

// start follows the start of a pod that this process began.
func (w *stopwatch) start(p *pod.Pod, now time.Time) {
	if !w.fresh || p.Stop != nil {
		w.over = true
		return
	}
	if w.up.IsZero() {
		w.rest(p, now)
		if p.Phase != v1.PodRunning || !p.AllRun() {
			return
		}
		w.up = now
		if !pod.IsStatic(p.Spec) {
			w.Up(string(p.UID()), metrics.Start{Created: p.Spec.CreationTimestamp.Time, Waited: w.waited, Stateful: stateful(p.Spec)})
		}
	}
	if p.Ready() {
		w.over = true
		w.Step("ready", now.Sub(w.up))
	}
}

// rest adds up the time in which only images and init containers keep the pod.
func (w *stopwatch) rest(p *pod.Pod, now time.Time) {
	switch resting := p.Initializing() || onlyImages(p); {
	case resting && w.idle.IsZero():
		w.idle = now
	case !resting && !w.idle.IsZero():
		w.waited += now.Sub(w.idle)
		w.idle = time.Time{}
	}
}

// onlyImages says that images are waited for, and nothing else.
func onlyImages(p *pod.Pod) bool {
	pulls := 0
	for _, d := range p.Doing {
		switch d.Action.Kind {
		case pod.Pull:
			pulls++
		case pod.Save, pod.Observe:
		default:
			return false
		}
	}
	return pulls > 0
}

// stateful says that the pod mounts what outlives it, as Kubernetes' objective for
// the start of pods has it.
func stateful(p *v1.Pod) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v v1.Volume) bool {
		return v.EmptyDir == nil && v.ConfigMap == nil && v.Secret == nil && v.DownwardAPI == nil && v.Projected == nil
	})
}
