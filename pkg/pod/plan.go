package pod

import (
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Plan is what to do next for the pod, and when to look again if nothing
// happens; a zero time means never. What is in flight is not planned again.
// The actions are independent of each other and may run side by side.
func Plan(p Pod, n Node, now time.Time) (actions []Action, wake time.Time) {
	l := plan(p, n, now)
	return l.actions, l.wake
}

// Waits says in words what the pod waits for, the outermost reason first;
// empty when nothing is amiss.
func Waits(p Pod, n Node, now time.Time) []string { return plan(p, n, now).waits }

func plan(p Pod, n Node, now time.Time) *planner {
	l := &planner{Pod: p, node: n, now: now}
	if p.Stop != nil {
		l.stop()
	} else {
		l.run()
		if deadline, some := p.deadline(); some {
			l.wakeAt(deadline)
		}
	}
	l.sweep()
	l.save()
	return l
}

// planner collects what to do for one pod at one moment.
type planner struct {
	Pod
	node    Node
	now     time.Time
	actions []Action
	wake    time.Time
	waits   []string
}

// do plans an action, unless it is planned, in flight or waits for its retry.
func (l *planner) do(a Action) {
	same := func(o Action) bool { return o.Key() == a.Key() }
	if _, busy := l.Doing[a.Key()]; busy || slices.ContainsFunc(l.actions, same) {
		return
	}
	f, failed := l.Setup.Failures[a.failureKey()]
	if failed && f.Retry.After(l.now) {
		l.waitUntil(f.Retry, "%s failed: %s", a.failureKey(), f.Message)
		return
	}
	if failed && a.Kind == Remove && l.Setup.Seen.Before(f.Retry) {
		// The runtime refused perhaps because somebody was starting it, and to
		// remove one that runs by now would kill it.
		l.do(Action{Kind: Observe, Why: "what could not be removed may have changed"})
		return
	}
	l.actions = append(l.actions, a)
}

// wakeAt asks to be planned again at t, at the latest.
func (l *planner) wakeAt(t time.Time) {
	if l.wake.IsZero() || t.Before(l.wake) {
		l.wake = t
	}
}

// wait says what the pod waits for.
func (l *planner) wait(format string, args ...any) {
	l.waits = append(l.waits, fmt.Sprintf(format, args...))
}

// waitUntil says what the pod waits for, and that time will end it.
func (l *planner) waitUntil(t time.Time, format string, args ...any) {
	l.wait(format+" (again at "+t.Format(time.TimeOnly)+")", args...)
	l.wakeAt(t)
}

// busy says whether an action of one of the kinds is in flight.
func (l *planner) busy(kinds ...Kind) bool {
	for _, d := range l.Doing {
		for _, k := range kinds {
			if d.Action.Kind == k {
				return true
			}
		}
	}
	return false
}

// underway says whether an action of one of the kinds is in flight or planned.
func (l *planner) underway(kinds ...Kind) bool {
	return l.busy(kinds...) || slices.ContainsFunc(l.actions, func(a Action) bool { return slices.Contains(kinds, a.Kind) })
}

// inFlight says whether the action on that instance is in flight.
func (l *planner) inFlight(k Kind, id string) bool {
	_, ok := l.Doing[Action{Kind: k, ID: id}.Key()]
	return ok
}

// run plans towards running containers.
func (l *planner) run() {
	if !l.admitted() {
		return
	}
	if !l.Setup.Prepared {
		l.do(Action{Kind: Prepare, Why: "the pod's folders and cgroup"})
	}
	lacks := l.lacks()
	if l.Setup.Prepared && !lacks {
		l.mount()
	}
	if !l.runtime() {
		return
	}
	l.resize()
	if lacks {
		return // containers that another agent began go on
	}
	if !l.sandbox() {
		l.pulls()
		return
	}
	if !l.Setup.Mounted {
		l.pulls()
		l.wait("volumes are being mounted")
		return
	}
	l.cancelPulls()
	if l.Setup.Restarting != "" {
		l.restartAll()
		return
	}
	l.containers()
}

// mount makes the volumes ready, or brings them up to date.
func (l *planner) mount() {
	renew := l.Setup.Renew
	switch {
	case !l.Setup.Mounted || l.Setup.Outdated:
		l.do(Action{Kind: Mount, Why: "the pod's volumes"})
	case renew.IsZero():
	case renew.After(l.now):
		l.wakeAt(renew)
	default:
		l.do(Action{Kind: Mount, Why: "what a volume shows is to be renewed"})
	}
}

// admitted asks the ledger first.
func (l *planner) admitted() bool {
	switch l.Verdict.State {
	case Unasked:
		l.do(Action{Kind: Admit, Why: "resources, ports and name on this node"})
	case Waiting:
		l.wait("admission: %s", l.Verdict.Message)
	}
	return l.Verdict.State == Granted
}

// runtime makes sure that the runtime is up and the view of it true.
func (l *planner) runtime() bool {
	if l.node.Runtime != "" {
		l.wait("runtime: %s", l.node.Runtime)
		return false
	}
	if l.Stale {
		l.do(Action{Kind: Observe, Why: "the runtime's view may have changed"})
		return false
	}
	return true
}

// current is the sandbox that the pod can use.
func (l *planner) current() (Sandbox, bool) {
	if len(l.View.Sandboxes) == 0 {
		return Sandbox{}, false
	}
	s := l.View.Sandboxes[0]
	return s, s.usable(l.Spec)
}

// usable says whether containers may be started in the sandbox (row 1.4-4).
func (s Sandbox) usable(spec *v1.Pod) bool {
	return s.Ready && s.HostNetwork == spec.Spec.HostNetwork && (s.HostNetwork || len(s.IPs) > 0)
}

// sandbox plans towards the one usable sandbox, and says whether it stands.
func (l *planner) sandbox() bool {
	if l.busy(RunSandbox) {
		// The runtime may show it before the call has returned.
		l.wait("the sandbox is being created")
		return false
	}
	if _, ok := l.current(); ok {
		return l.clear(l.View.Sandboxes[1:])
	}
	if l.Spec.Spec.RestartPolicy == v1.RestartPolicyNever && l.everStarted() {
		// Such a pod is never begun a second time (behaviour row 1.4-3).
		l.wait("the sandbox is gone and the pod must not start again")
		l.clear(l.View.Sandboxes)
		return false
	}
	if !l.clear(l.View.Sandboxes) {
		return false
	}
	switch {
	case !l.Setup.Prepared:
		l.wait("the pod's folders and cgroup are being made")
	case l.node.Network != "" && !l.Spec.Spec.HostNetwork:
		l.wait("network: %s", l.node.Network)
	default:
		attempt := uint32(0)
		if len(l.View.Sandboxes) > 0 {
			attempt = l.View.Sandboxes[0].Attempt + 1
		}
		l.do(Action{Kind: RunSandbox, Attempt: attempt, Why: "no usable sandbox"})
	}
	return false
}

// everStarted says whether any container of the pod was ever started.
func (p Pod) everStarted() bool {
	for _, m := range members(p.Spec) {
		if p.Containers[m.Name].Ran {
			return true
		}
	}
	return false
}

// clear ends what lives in sandboxes that are not used any more; true when
// nothing does.
func (l *planner) clear(old []Sandbox) bool {
	done := true
	for _, s := range old {
		quiet := true
		for _, c := range l.View.Containers {
			if c.SandboxID == s.ID && (c.State == Running || c.State == Unknown) {
				quiet = false
				l.kill(c, "Pod sandbox changed, it will be killed and re-created.", specGrace(l.Spec))
			}
		}
		if quiet && !s.Stopped {
			l.do(Action{Kind: StopSandbox, ID: s.ID, Why: "another sandbox takes its place"})
		}
		done = done && quiet && s.Stopped
	}
	if !done {
		l.wait("an old sandbox is being stopped")
	}
	return done
}

// pulls fetches the images of the containers next in turn, side by side, while
// the sandbox and the volumes are on their way.
func (l *planner) pulls() {
	l.cancelPulls()
	if list := inits(l.Spec); len(list) > 0 {
		l.pull(list[0])
		return
	}
	for _, m := range mains(l.Spec) {
		l.pull(m)
	}
}

// cancelPulls gives up pulls of images that the spec no longer names.
func (l *planner) cancelPulls() {
	for _, key := range sortedKeys(l.Doing) {
		d := l.Doing[key]
		if d.Action.Kind != Pull || d.Canceled {
			continue
		}
		if c := FindContainer(l.Spec, d.Action.Container); c == nil || c.Image != d.Action.Image {
			l.actions = append(l.actions, Action{Kind: Cancel, ID: key, Why: "the spec names another image"})
		}
	}
}

// pull makes the container's image present, if it is to be started and its
// back-off is over.
func (l *planner) pull(m member) {
	mem := l.Containers[m.Name]
	if mem.Image != "" || !l.startNow(m) {
		return
	}
	l.do(Action{Kind: Pull, Container: m.Name, Image: m.Image, Why: string(m.ImagePullPolicy)})
}

// startNow says whether the container is to be started now; if it is to be
// started later the plan wakes up for it.
func (l *planner) startNow(m member) bool {
	mem := l.Containers[m.Name]
	if f := mem.Failure; f != nil && f.Retry.After(l.now) {
		l.waitUntil(f.Retry, "container %s: %s", m.Name, prefix(f.Reason, f.Message))
		return false
	}
	k := mem.Known
	if k == nil {
		return true
	}
	// What never ran in a sandbox that is gone did not fail by itself.
	never := !l.present(k) && k.StartedAt.IsZero()
	again := l.again(m, *k) || never
	fresh := !l.present(k) && (m.role == initial || m.role == sidecar)
	if !again && !fresh {
		return false
	}
	if due := mem.Backoff.Due(k.FinishedAt, l.node.MaxBackoff); again && !never && due.After(l.now) {
		l.waitUntil(due, "container %s: back-off after exit code %d", m.Name, k.ExitCode)
		return false
	}
	return true
}

// save plans to write the record when the durable part has changed. The first
// record is the grant, which Admit writes; the last comes before the pod is
// erased.
func (l *planner) save() {
	if l.Setup.Recorded == nil || l.underway(Allocate) || l.Stop != nil && l.Stop.Unwanted && l.Setup.Released {
		return
	}
	if want := l.Record(); !want.equal(*l.Setup.Recorded) {
		l.do(Action{Kind: Save, Why: "the durable part changed"})
	}
}
