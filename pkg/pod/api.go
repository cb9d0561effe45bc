package pod

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// MayRunAgain says whether a container of the pod that ended with that code may
// come back to life: to be told as one that waits or runs (behaviour row T10).
// It mirrors what an apiserver lets pass.
func MayRunAgain(spec *v1.Pod, container string, exitCode int32) bool {
	if spec.Spec.RestartPolicy == v1.RestartPolicyAlways {
		return true
	}
	m, ok := find(spec, container)
	if !ok {
		return false
	}
	all := slices.ContainsFunc(lasting(spec), func(m member) bool {
		return slices.ContainsFunc(m.RestartPolicyRules, func(r v1.ContainerRestartRule) bool {
			return r.Action == v1.ContainerRestartRuleActionRestartAllContainers
		})
	})
	return all || m.role == sidecar || restartable(spec, m, exitCode)
}

// OfflineAnnotation, with the value "true", says that the pod may be started
// after a reboot though its apiserver cannot be asked.
const OfflineAnnotation = "nodeagent.dev/offline-start"

// MayStartOffline says whether a pod that ran before the machine's reboot may be
// started again without asking its apiserver, which may have given its work to
// another node since: one of a DaemonSet may, and one that is marked; never one
// with a volume that another node may have by now, nor one that was to end.
func MayStartOffline(r Record) bool {
	spec := r.Spec
	if !r.Granted || r.Stop != nil || IsTerminal(r.Phase) || spec.DeletionTimestamp != nil {
		return false
	}
	claims := func(v v1.Volume) bool { return v.PersistentVolumeClaim != nil || v.Ephemeral != nil }
	if slices.ContainsFunc(spec.Spec.Volumes, claims) {
		return false
	}
	daemon := func(o metav1.OwnerReference) bool {
		return o.Kind == "DaemonSet" && o.Controller != nil && *o.Controller
	}
	return spec.Annotations[OfflineAnnotation] == "true" || slices.ContainsFunc(spec.OwnerReferences, daemon)
}
