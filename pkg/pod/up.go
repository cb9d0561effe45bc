package pod

import v1 "k8s.io/api/core/v1"

// AllRun says that all main containers run, as their statuses show it.
func (p Pod) AllRun() bool {
	for i := range p.Spec.Spec.Containers {
		mem := p.Containers[p.Spec.Spec.Containers[i].Name]
		if mem.Known == nil || mem.Known.State != Running || p.hooking(mem) {
			return false
		}
	}
	return true
}

// Ready says whether the pod is ready, as its condition of that name.
func (p Pod) Ready() bool {
	return p.containersReady(v1.PodStatus{}).Status == v1.ConditionTrue && len(p.gates()) == 0
}

// Initializing says that an init container runs.
func (p Pod) Initializing() bool {
	for i := range p.Spec.Spec.InitContainers {
		c := &p.Spec.Spec.InitContainers[i]
		if k := p.Containers[c.Name].Known; !IsSidecar(c) && k != nil && k.State == Running {
			return true
		}
	}
	return false
}
