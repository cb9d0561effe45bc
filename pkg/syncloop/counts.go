package syncloop

import (
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/volumes"
)

// Counts are how many there are of what now, for the metrics.
func (l *Loop) Counts() metrics.Counts {
	n := metrics.NewCounts()
	for _, a := range l.all() {
		countPod(&n, a.now.Load(), l.World != nil)
		n.Unread += a.mail.len()
	}
	n.Waiting = l.slots.waits()
	return n
}

// stateNames are the runtime's states of a container, by name.
var stateNames = map[pod.State]string{pod.Created: "created", pod.Running: "running", pod.Exited: "exited", pod.Unknown: "unknown"}

func countPod(n *metrics.Counts, p *pod.Pod, joined bool) {
	static := pod.IsStatic(p.Spec)
	working := metrics.Working{Lifecycle: "sync", Config: "desired", Static: static}
	if p.Stop != nil {
		working.Lifecycle = "terminating"
		if p.Reclaimed() {
			working.Lifecycle = "terminated"
		}
	}
	if p.Stop != nil && p.Stop.Unwanted {
		working.Config = "orphan"
	} else {
		n.Desired[static]++
	}
	n.Working[working]++
	if lives(p.View) {
		n.Sandboxes++
	}
	for _, c := range p.View.Containers {
		n.Containers[stateNames[c.State]]++
	}
	n.Ephemeral += len(p.Spec.Spec.EphemeralContainers)
	for _, d := range p.Doing {
		n.Steps[string(d.Action.Kind)]++
	}
	if p.Verdict.State == pod.Granted && !pod.IsTerminal(p.Phase) {
		n.Active[static]++
		if static && joined {
			n.Mirrors++
		}
		countVolumes(n, p)
	}
	switch p.Resize.Answer.State {
	case pod.Waiting:
		n.Resizes["deferred"]++
	case pod.Refused:
		n.Resizes["infeasible"]++
	}
	if p.Resize.Actuated != nil {
		n.Resizing++
	}
}

func countVolumes(n *metrics.Counts, p *pod.Pod) {
	if len(p.Spec.Spec.Volumes) == 0 {
		return
	}
	used := pod.UsedVolumes(p.Spec)
	for i := range p.Spec.Spec.Volumes {
		v := &p.Spec.Spec.Volumes[i]
		if !used[v.Name] {
			continue
		}
		plugin := volumes.Plugin(v)
		n.Volumes[metrics.Volume{Plugin: plugin, State: "desired_state_of_world"}]++
		if p.Setup.Mounted {
			n.Volumes[metrics.Volume{Plugin: plugin, State: "actual_state_of_world"}]++
		}
	}
}
