package pod

import (
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
)

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

// LogOf is the instance of a container whose log people are shown: the newest
// one that ran, or the one that ended before it. The error says, as the kubelet
// does, why there is none (behaviour row 1.20-11).
func LogOf(p Pod, n Node, now time.Time, container string, previous bool) (*Container, error) {
	none := func(why string) (*Container, error) {
		return nil, fmt.Errorf("container %q in pod %q %s", container, p.Spec.Name, why)
	}
	m, ok := find(p.Spec, container)
	if !ok || p.Verdict.State == Refused {
		return none("is not available")
	}
	mem, s := p.Containers[container], p.containerStatus(m, n, now)
	ended := s.LastTerminationState.Terminated
	switch {
	case previous && ended == nil:
		return nil, fmt.Errorf("previous terminated container %q in pod %q not found", container, p.Spec.Name)
	case previous:
	case mem.Known != nil && mem.Known.State == Running: // though its postStart hook has not ended
		return mem.Known, nil
	case s.State.Terminated != nil:
		ended = s.State.Terminated
	case ended == nil:
		return none("is waiting to start: " + waitsFor(s.State.Waiting.Reason))
	}
	for _, c := range []*Container{mem.Known, mem.Last} {
		if c != nil && containerID(n, c.ID) == ended.ContainerID {
			return c, nil
		}
	}
	return none("is terminated")
}

// Over says of a pod's later value that an instance of a container runs no more.
func Over(container, id string) func(Pod) bool {
	return func(p Pod) bool {
		k := p.Containers[container].Known
		return k == nil || k.ID != id || k.State != Running
	}
}

// waitsFor says in the kubelet's words why a container has not begun.
func waitsFor(reason string) string {
	switch reason {
	case "ErrImagePull":
		return "image can't be pulled"
	case "ImagePullBackOff":
		return "trying and failing to pull image"
	}
	return reason
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
