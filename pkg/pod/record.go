package pod

import (
	"maps"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Record is the part of the pod to be found again by the agent's next process.
func (p Pod) Record() Record {
	granted := p.Verdict.State == Granted
	if p.Verdict.State == Unasked && p.Setup.Recorded != nil {
		// What was granted stays so until the ledger says otherwise.
		granted = p.Setup.Recorded.Granted
	}
	r := Record{Spec: p.Spec, Origin: p.Origin, Boot: p.Setup.Boot, Granted: granted, Started: p.Started, Stop: p.Stop, Actuated: p.Resize.Actuated}
	if IsTerminal(p.Phase) {
		r.Phase = p.Phase
	}
	for name, m := range p.Containers {
		kept := Remembered{Ran: m.Ran, Restarts: m.Restarts, Unmade: m.Unmade, Backoff: m.Backoff, PullBackoff: m.PullBackoff}
		if p.alwaysAgain(name) && m.Backoff == (Backoff{}) && m.PullBackoff == (Backoff{}) {
			// It is started again in any case, and counted by its logs: not
			// worth writing each start of each container to disk.
			kept = Remembered{}
		}
		if i := m.Instance; i.Startup == Success || i.Readiness == Success {
			kept.Instance, kept.Started, kept.Ready = i.ID, i.Startup == Success, i.Readiness == Success
		}
		if kept != (Remembered{}) {
			r.Containers = with(r.Containers, name, kept)
		}
	}
	return r
}

// alwaysAgain says that the container, and its pod, begin again however they end,
// so that nothing depends on whether it ran.
func (p Pod) alwaysAgain(name string) bool {
	c := FindContainer(p.Spec, name)
	return p.Spec.Spec.RestartPolicy == v1.RestartPolicyAlways &&
		(c == nil || c.RestartPolicy == nil || *c.RestartPolicy == v1.ContainerRestartPolicyAlways)
}

func (r Record) equal(o Record) bool {
	stops := r.Stop == o.Stop || r.Stop != nil && o.Stop != nil && *r.Stop == *o.Stop
	specs := r.Spec == o.Spec || equality.Semantic.DeepEqual(r.Spec, o.Spec)
	return stops && specs && r.Actuated.equal(o.Actuated) && r.Origin == o.Origin && r.Boot == o.Boot && r.Granted == o.Granted && r.Started.Equal(o.Started) &&
		r.Phase == o.Phase && maps.EqualFunc(r.Containers, o.Containers, Remembered.equal)
}

func (r Remembered) equal(o Remembered) bool {
	return r.Ran == o.Ran && r.Restarts == o.Restarts && r.Unmade == o.Unmade && r.Backoff.equal(o.Backoff) && r.PullBackoff.equal(o.PullBackoff) &&
		r.Instance == o.Instance && r.Started == o.Started && r.Ready == o.Ready
}

func (b Backoff) equal(o Backoff) bool { return b.Delay == o.Delay && b.At.Equal(o.At) }
