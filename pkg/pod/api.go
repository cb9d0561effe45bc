package pod

import (
	"slices"

	v1 "k8s.io/api/core/v1"
)

// owned are the conditions of a pod that the node alone sets (behaviour row
// 1.3-7).
var owned = []v1.PodConditionType{
	v1.PodScheduled, v1.PodReady, v1.PodInitialized, v1.ContainersReady, v1.PodReadyToStartContainers,
	v1.PodResizeInProgress, v1.PodResizePending, v1.AllContainersRestarting,
}

// OwnsCondition says whether the node alone sets the condition. Those of others
// are left as they are.
func OwnsCondition(t v1.PodConditionType) bool { return slices.Contains(owned, t) }

// obey has the pod end because its apiserver says so: somebody deletes it, or
// it is in a phase that is never left. What asks again changes nothing.
func (p *Pod) obey(w Wanted) {
	status := w.Spec.Status
	if IsTerminal(status.Phase) && !IsTerminal(p.Phase) && (p.Stop == nil || p.Stop.Phase == "") {
		p.end(Ended{At: w.At, Grace: -1, Phase: status.Phase, Reason: status.Reason, Message: status.Message})
	}
	if w.Spec.DeletionTimestamp != nil {
		p.end(Ended{At: w.At, Grace: specGrace(w.Spec)})
	}
}

// Reclaimed says that the pod has ended and nothing of it is left that others
// could miss: no container runs, its volumes and its cgroup are gone. Then it
// may be deleted from its apiserver (behaviour row T1).
func (p Pod) Reclaimed() bool { return p.Stop != nil && IsTerminal(p.Phase) && p.Setup.Released }
