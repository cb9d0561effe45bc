package pod

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// A restart rule may ask for all containers of the pod to begin anew in the
// same sandbox (RestartAllContainers, behaviour row 1.4-9). They are killed
// without grace and their records removed, that of the container that asked
// last: as long as it is there, an agent that was killed meanwhile finds the
// reason to go on. Logs stay.

const restartingAll = "RestartingAllContainers"

// asksForAll says that the ended instance's rules ask for all containers to be
// restarted.
func (p Pod) asksForAll(m member, k Container) bool {
	if k.State != Exited || m.role == ephemeral || !p.present(&k) {
		return false
	}
	for _, rule := range m.RestartPolicyRules {
		if rule.ExitCodes != nil && matches(*rule.ExitCodes, k.ExitCode) {
			return rule.Action == v1.ContainerRestartRuleActionRestartAllContainers
		}
	}
	return false
}

// restartAll plans the end of every container, and the removal of its record.
func (l *planner) restartAll() {
	l.wait("all containers are being restarted, as container %s asked for", l.Setup.Restarting)
	if l.busy(Create, Start) {
		return
	}
	var rest, last []Container
	for _, c := range l.View.Containers {
		m, ok := find(l.Spec, c.Name)
		switch {
		case ok && m.role == ephemeral:
		case c.State == Running || c.State == Unknown:
			l.kill(c, "Stopping container "+c.Name, 0)
			rest = append(rest, c)
		case c.Name == l.Setup.Restarting:
			last = append(last, c)
		default:
			l.do(Action{Kind: Remove, Container: c.Name, ID: c.ID, Why: restartingAll})
			rest = append(rest, c)
		}
	}
	if len(rest) > 0 {
		return
	}
	for _, c := range last {
		l.do(Action{Kind: Remove, Container: c.Name, ID: c.ID, Why: restartingAll})
	}
}

// begunAnew forgets the removed instances once none is left, so that all
// containers have their turn again.
func (p *Pod) begunAnew() {
	left := slices.ContainsFunc(p.View.Containers, func(c Container) bool {
		m, ok := find(p.Spec, c.Name)
		return ok && m.role != ephemeral
	})
	if p.Setup.Restarting == "" || left || p.Stale {
		return
	}
	asked := p.Setup.Restarting
	p.Setup.Restarting = ""
	for _, m := range lasting(p.Spec) {
		p.remember(m.Name, func(mem *Memory) {
			if k := mem.Known; k != nil {
				gone := *k
				if m.Name != asked {
					gone.State, gone.ExitCode, gone.Reason = Exited, lostCode, restartingAll
				}
				mem.Last = &gone
			}
			mem.Known, mem.Ran, mem.Tried, mem.Image, mem.Failure, mem.Instance = nil, false, false, "", nil, Instance{}
		})
	}
}

// noteRestartAll begins a restart of all when the instance that ended asks.
func (p *Pod) noteRestartAll(m member, c Container, at time.Time) {
	if p.Stop != nil || p.Setup.Restarting != "" || !p.asksForAll(m, c) {
		return
	}
	p.Setup.Restarting = c.Name
	p.note(at, false, restartingAll, c.Name, "Container %s ended with exit code %d: all containers are restarted", c.Name, c.ExitCode)
}
