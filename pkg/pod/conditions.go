package pod

import (
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
)

// conditions are those that the agent owns, in the order it writes them
// (behaviour rows 1.3-7 to 1.3-12). Their transition times are kept by whoever
// publishes them, as only he knows what was published before.
func (p Pod) conditions(s v1.PodStatus, now time.Time) []v1.PodCondition {
	ready := p.containersReady(s)
	podReady := ready
	podReady.Type = v1.PodReady
	if ready.Status == v1.ConditionTrue {
		if missing := p.gates(); len(missing) > 0 {
			podReady.Status, podReady.Reason = v1.ConditionFalse, "ReadinessGatesNotReady"
			podReady.Message = strings.Join(missing, ", ")
		}
	}
	out := []v1.PodCondition{
		truth(v1.PodReadyToStartContainers, p.sandboxUsable()),
		p.initializedCondition(s),
		podReady,
		ready,
		truth(v1.PodScheduled, true),
	}
	if p.Setup.Restarting != "" {
		restarting := truth(v1.AllContainersRestarting, true)
		restarting.Reason = "RestartAllContainersStarted"
		out = append(out, restarting)
	}
	if p.Stop != nil && p.Stop.Disruption != "" && IsTerminal(p.Phase) {
		disrupted := truth(v1.DisruptionTarget, true)
		disrupted.Reason, disrupted.Message = v1.PodReasonTerminationByKubelet, p.Stop.Disruption
		out = append(out, disrupted)
	}
	for i := range out {
		out[i].ObservedGeneration = p.Spec.Generation
	}
	return append(out, p.resizeConditions()...)
}

func truth(t v1.PodConditionType, ok bool) v1.PodCondition {
	c := v1.PodCondition{Type: t, Status: v1.ConditionFalse}
	if ok {
		c.Status = v1.ConditionTrue
	}
	return c
}

func (p Pod) sandboxUsable() bool {
	return len(p.View.Sandboxes) > 0 && p.View.Sandboxes[0].usable(p.Spec)
}

// containersReady says which containers keep the pod from being ready;
// ephemeral ones and ordinary init containers do not count.
func (p Pod) containersReady(s v1.PodStatus) v1.PodCondition {
	c := v1.PodCondition{Type: v1.ContainersReady, Status: v1.ConditionFalse}
	switch p.Phase {
	case v1.PodSucceeded:
		c.Reason = "PodCompleted"
		return c
	case v1.PodFailed:
		c.Reason = "PodFailed"
		return c
	}
	var unready []string
	for _, m := range lasting(p.Spec) {
		if m.role != initial && !p.isReady(m) {
			unready = append(unready, m.Name)
		}
	}
	if len(unready) > 0 {
		c.Reason = "ContainersNotReady"
		c.Message = fmt.Sprintf("containers with unready status: %v", unready)
		return c
	}
	c.Status = v1.ConditionTrue
	return c
}

// gates are the readiness gates that somebody else has not yet opened.
func (p Pod) gates() (missing []string) {
	for _, g := range p.Spec.Spec.ReadinessGates {
		why := fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType)
		for _, c := range p.Spec.Status.Conditions {
			switch {
			case c.Type != g.ConditionType:
			case c.Status == v1.ConditionTrue:
				why = ""
			default:
				why = fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", g.ConditionType, c.Status)
			}
		}
		if why != "" {
			missing = append(missing, why)
		}
	}
	return missing
}

// initializedCondition stays true once any main container has started.
func (p Pod) initializedCondition(s v1.PodStatus) v1.PodCondition {
	c := v1.PodCondition{Type: v1.PodInitialized, Status: v1.ConditionTrue}
	if p.Phase == v1.PodSucceeded {
		c.Reason = "PodCompleted"
		return c
	}
	for _, m := range mains(p.Spec) {
		if mem := p.Containers[m.Name]; mem.Ran || mem.Last != nil && !mem.Last.StartedAt.IsZero() {
			return c // though init containers run anew
		}
	}
	var unready []string
	for _, m := range inits(p.Spec) {
		if m.role == initial && !p.isReady(m) || m.role == sidecar && !p.isStarted(m) {
			unready = append(unready, m.Name)
		}
	}
	if len(unready) > 0 {
		c.Status, c.Reason = v1.ConditionFalse, "ContainersNotInitialized"
		c.Message = fmt.Sprintf("containers with incomplete status: %v", unready)
	}
	return c
}
