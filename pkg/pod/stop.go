package pod

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// minimumGrace is what an instance is given at least between TERM and KILL
// (behaviour row 1.5-9).
const minimumGrace = 2 * time.Second

// stop plans the pod's end: containers, then sandbox, then volumes and cgroup,
// and of an unwanted pod every trace.
func (l *planner) stop() {
	l.cancel()
	if l.Verdict.State == Unasked && l.busy(Admit) {
		l.wait("the ledger's answer, to be given back")
		return
	}
	if !l.ended() {
		return
	}
	if !l.Setup.Unmounted {
		l.do(Action{Kind: Unmount, Why: "the pod has ended"})
	}
	if !l.Setup.Cleaned {
		l.do(Action{Kind: Clean, Why: "the pod has ended"})
	}
	if !l.Setup.Unmounted || !l.Setup.Cleaned {
		l.wait("volumes and cgroup are being removed")
	}
	if l.Stop.Unwanted && len(l.View.Sandboxes)+len(l.View.Containers) > 0 {
		l.wait("the sandbox and its containers are being removed")
		return
	}
	if !l.Setup.Unmounted || !l.Setup.Cleaned {
		return
	}
	if !l.Setup.Released {
		l.do(Action{Kind: Release, Why: "the pod has ended"})
		return
	}
	switch {
	case !l.Stop.Unwanted:
	case l.busy(Save):
		l.wait("the record is being written, to be erased")
	case !l.Setup.Erased:
		l.do(Action{Kind: Erase, Why: "no source wants the pod"})
	default:
		l.do(Action{Kind: Forget, Why: "nothing is left of the pod"})
	}
}

// cancel gives up what the pod no longer wants. What was already sent to the
// runtime is not cancelled by this: its result is awaited and then undone.
func (l *planner) cancel() {
	for _, key := range sortedKeys(l.Doing) {
		switch d := l.Doing[key]; d.Action.Kind {
		case Pull, Mount, PostStart, RunSandbox, Create, Start:
			if !d.Canceled {
				l.actions = append(l.actions, Action{Kind: Cancel, ID: key, Why: "the pod is to end"})
			}
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// ended plans the end of containers and sandboxes and says whether all are
// down.
func (l *planner) ended() bool {
	if l.busy(RunSandbox, Create, Start, Mount, Prepare, Allocate, Actuate) {
		l.wait("a call in flight ends first")
		return false
	}
	if !l.runtime() {
		return false
	}
	if l.killAll() {
		return false
	}
	down := true
	for _, s := range l.View.Sandboxes {
		if !s.Stopped {
			down = false
			l.do(Action{Kind: StopSandbox, ID: s.ID, Why: "the pod is to end"})
		}
	}
	if !down {
		l.wait("the sandbox is being stopped")
	}
	return down
}

// killAll ends every container, the sidecars after all others and in reverse
// order; their preStop hooks run at once, and nobody waits beyond the grace
// (behaviour rows 1.5-9, 1.5-10). It says whether any is left.
func (l *planner) killAll() bool {
	var turns [][]Container
	for _, c := range l.View.Containers {
		if c.State != Running && c.State != Unknown {
			continue
		}
		turn := 0
		for i, m := range inits(l.Spec) {
			if m.Name == c.Name && m.role == sidecar {
				turn = len(l.Spec.Spec.InitContainers) - i
			}
		}
		for len(turns) <= turn {
			turns = append(turns, nil)
		}
		turns[turn] = append(turns[turn], c)
	}
	deadline := l.stopDeadline()
	left := false
	for _, turn := range turns {
		waits := left && deadline.After(l.now) // for those of an earlier turn
		for _, c := range turn {
			why := "Stopping container " + c.Name
			if waits {
				l.preStop(c, why, deadline)
				l.wakeAt(deadline)
				continue
			}
			l.kill(c, why, deadline.Sub(l.killedAt(c)))
			l.wait("container %s is being stopped", c.Name)
		}
		left = left || len(turn) > 0
	}
	return left
}

// stopDeadline is when the pod's grace ends.
func (l *planner) stopDeadline() time.Time {
	if l.Stop.Began.IsZero() {
		return l.now.Add(l.Stop.Grace)
	}
	return l.Stop.Began.Add(l.Stop.Grace)
}

// killedAt is when the end of the instance was begun; now, if it was not.
func (l *planner) killedAt(c Container) time.Time {
	inst := l.Containers[c.Name].Instance
	if inst.ID == c.ID && !inst.KillAt.IsZero() {
		return inst.KillAt
	}
	return l.now
}

// kill ends one instance within grace, counted from its first step: the
// preStop hook, then the runtime's stop with what is left (behaviour rows
// 1.5-2, 1.5-9). A shorter grace overtakes a longer one that is under way.
func (l *planner) kill(c Container, why string, grace time.Duration) {
	deadline := l.killedAt(c).Add(grace)
	if l.preStop(c, why, deadline) {
		return
	}
	left := max(deadline.Sub(l.now), minimumGrace)
	for _, d := range l.Doing {
		if d.Action.Kind == StopContainer && d.Action.ID == c.ID && !d.Since.Add(d.Action.Grace).After(l.now.Add(left+time.Second)) {
			return
		}
	}
	whole := (left + time.Second - 1).Truncate(time.Second)
	l.do(Action{Kind: StopContainer, Container: c.Name, ID: c.ID, Grace: whole, Why: why})
}

// preStop runs the instance's hook and says whether the stop must wait for it.
func (l *planner) preStop(c Container, why string, deadline time.Time) bool {
	m, _ := find(l.Spec, c.Name)
	if m.Container == nil || m.Lifecycle == nil || m.Lifecycle.PreStop == nil || !deadline.After(l.now) || c.State != Running {
		return false
	}
	mem := l.Containers[c.Name]
	if mem.Instance.ID == c.ID && mem.Instance.PreStop != HookPending {
		return false
	}
	l.do(Action{Kind: PreStop, Container: c.Name, ID: c.ID, Grace: deadline.Sub(l.now), Why: why})
	l.wait("preStop of container %s", c.Name)
	l.wakeAt(deadline)
	return true
}

// sweep removes from the runtime what nobody needs any more: ended instances
// but the newest of each container, sandboxes that are down and empty, and of
// an unwanted pod everything (behaviour rows 1.11-2, 1.11-3).
func (l *planner) sweep() {
	if l.Stale || l.node.Runtime != "" || l.busy(RunSandbox, Create) {
		return
	}
	unwanted := l.Stop != nil && l.Stop.Unwanted && !l.alive()
	kept := map[string]bool{}  // containers by name
	inUse := map[string]bool{} // sandboxes by ID
	for _, c := range l.View.Containers {
		switch {
		case c.State == Running || c.State == Unknown || c.State == Created && l.Stop == nil && l.Containers[c.Name].Known.is(c.ID):
			inUse[c.SandboxID] = true
		case c.State == Created && l.Stop == nil:
			l.do(Action{Kind: Remove, Container: c.Name, ID: c.ID, Why: "it came too late: another instance took its place"})
		case !kept[c.Name] && !unwanted && l.wanted(c.Name):
			kept[c.Name], inUse[c.SandboxID] = true, true
		case !unwanted:
			l.do(Action{Kind: Remove, Container: c.Name, ID: c.ID, Why: "newer instances exist"})
		}
	}
	for i, s := range l.View.Sandboxes {
		if s.Stopped && !inUse[s.ID] && (i > 0 || unwanted) {
			l.do(Action{Kind: RemoveSandbox, ID: s.ID, Why: "it is down and empty"})
		}
	}
	for _, c := range l.View.Containers {
		if unwanted && !slices.ContainsFunc(l.View.Sandboxes, func(s Sandbox) bool { return s.ID == c.SandboxID }) {
			l.do(Action{Kind: Remove, Container: c.Name, ID: c.ID, Why: "its sandbox is gone"})
		}
	}
}

// wanted says whether the spec still has a container of that name.
func (l *planner) wanted(name string) bool { return FindContainer(l.Spec, name) != nil }

// phase is the pod's phase by what its containers do (behaviour rows 1.3-1 to
// 1.3-4). A pod that is to end keeps its phase until nothing can be running.
func (p Pod) phase() v1.PodPhase {
	if p.Stop != nil {
		if p.alive() || p.sandboxReady() {
			return p.Phase
		}
		return p.lastPhase()
	}
	return p.livePhase()
}

// livePhase is the phase of a pod that is not to end.
func (p Pod) livePhase() v1.PodPhase {
	for _, m := range inits(p.Spec) {
		k := p.Containers[m.Name].Known
		if p.mainsBegan() {
			break
		}
		if m.role == initial && (k == nil || k.State != Exited || k.ExitCode != 0) {
			return v1.PodPending
		}
		if m.role == sidecar && (k == nil || k.StartedAt.IsZero()) {
			return v1.PodPending
		}
	}
	for _, m := range mains(p.Spec) {
		mem := p.Containers[m.Name]
		if !mem.Ran && mem.Last == nil && (mem.Known == nil || mem.Known.NeverRan()) || mem.Last == nil && p.hooking(mem) {
			return v1.PodPending
		}
	}
	return v1.PodRunning
}

func (p Pod) sandboxReady() bool {
	return slices.ContainsFunc(p.View.Sandboxes, func(s Sandbox) bool { return s.Ready })
}

// lastPhase is the phase that an ended pod stays in.
func (p Pod) lastPhase() v1.PodPhase {
	if p.Stop.Phase != "" {
		return p.Stop.Phase
	}
	for _, m := range mains(p.Spec) {
		if k := p.Containers[m.Name].Known; k == nil || k.State != Exited || k.ExitCode != 0 {
			return v1.PodFailed
		}
	}
	return v1.PodSucceeded
}
