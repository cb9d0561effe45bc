package pod

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Told is what is worth knowing of containers to an agent that is new to a pod,
// out of what an apiserver was told of them before: how they ended, how often
// they began, whether they were started and ready. It names only those that ran
// once, and is nil if none did.
func Told(s v1.PodStatus) *v1.PodStatus {
	t := &v1.PodStatus{InitContainerStatuses: told(s.InitContainerStatuses), ContainerStatuses: told(s.ContainerStatuses)}
	if len(t.InitContainerStatuses)+len(t.ContainerStatuses) == 0 {
		return nil
	}
	return t
}

func told(list []v1.ContainerStatus) (out []v1.ContainerStatus) {
	for _, c := range list {
		last := c.LastTerminationState.Terminated
		if c.ContainerID == "" || c.State.Waiting != nil && last == nil && c.RestartCount == 0 {
			continue // it never ran
		}
		t := v1.ContainerStatus{Name: c.Name, ContainerID: c.ContainerID, Image: c.Image, ImageID: c.ImageID,
			RestartCount: c.RestartCount, Ready: c.Ready, Started: c.Started}
		t.State.Terminated = c.State.Terminated
		if t.State.Terminated == nil && last != nil && last.ContainerID == c.ContainerID {
			t.State.Terminated = last // it waits for its restart
		}
		out = append(out, t)
	}
	return out
}

// recall makes up for what nobody here knows of the containers any more: neither
// the runtime, as after the loss of its state, nor a record, as when the agent
// that ran the pod was another or was killed before it had written one.
func (p *Pod) recall(t *v1.PodStatus) {
	for _, c := range slices.Concat(t.InitContainerStatuses, t.ContainerStatuses) {
		m, ok := find(p.Spec, c.Name)
		_, id, _ := strings.Cut(c.ContainerID, "://")
		k := p.Containers[c.Name].Known
		switch {
		case !ok:
		case k == nil:
			p.remember(c.Name, func(mem *Memory) {
				mem.Ran, mem.Restarts = true, max(mem.Restarts, c.RestartCount)
				if c.State.Terminated != nil {
					mem.Known = ended(c, id)
				}
			})
		case k.ID == id && k.State == Running:
			p.remember(c.Name, func(mem *Memory) { mem.Instance.recall(m, c) })
		}
	}
}

// ended is the instance that an apiserver was told the end of.
func ended(c v1.ContainerStatus, id string) *Container {
	t := c.State.Terminated
	return &Container{ID: id, Name: c.Name, Attempt: uint32(c.RestartCount), State: Exited, Image: c.Image, ImageRef: c.ImageID,
		CreatedAt: t.StartedAt.Time, StartedAt: t.StartedAt.Time, FinishedAt: t.FinishedAt.Time,
		ExitCode: t.ExitCode, Reason: t.Reason, Message: t.Message}
}

// recall takes an instance that runs for started and ready if it was called so:
// its probes say if it is not any more (behaviour row 1.6-17).
func (i *Instance) recall(m member, c v1.ContainerStatus) {
	if m.StartupProbe != nil && c.Started != nil && *c.Started && i.Startup == ResultNone {
		i.Startup = Success
	}
	if m.ReadinessProbe != nil && c.Ready && i.Readiness == ResultNone {
		i.Readiness = Success
	}
}
