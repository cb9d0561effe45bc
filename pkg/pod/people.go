package pod

import v1 "k8s.io/api/core/v1"

// InFlight are the actions in flight, by key.
func (p Pod) InFlight() []Doing {
	var out []Doing
	for _, key := range sortedKeys(p.Doing) {
		out = append(out, p.Doing[key])
	}
	return out
}

// Learning says that a short action is in flight whose end tells what the
// runtime shows. A pull, a hook or a stop with its grace may take for ever.
func (p Pod) Learning() bool {
	for _, d := range p.Doing {
		if k := d.Action.Kind; k == Observe || k != StopContainer && d.Action.ChangesRuntime() {
			return true
		}
	}
	return false
}

// Completes says whether the container of that name is meant to end before the
// main ones start: an init container that is no sidecar.
func Completes(spec *v1.Pod, name string) bool {
	m, ok := find(spec, name)
	return ok && m.role == initial
}

// Word is the pod's state in one word: what is most worth knowing. Ending says
// that nobody wants it any more.
func Word(s v1.PodStatus, ending bool) string {
	if ending {
		return "Terminating"
	}
	if s.Reason != "" {
		return s.Reason
	}
	for _, list := range [][]v1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses} {
		for _, c := range list {
			if c.State.Waiting != nil && c.State.Waiting.Reason != "" && !IsTerminal(s.Phase) {
				return c.State.Waiting.Reason
			}
		}
	}
	if s.Phase == v1.PodSucceeded {
		return "Completed"
	}
	return string(s.Phase)
}
