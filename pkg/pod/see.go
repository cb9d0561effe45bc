package pod

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// see takes in a view of the runtime.
func (p Pod) see(v View, at time.Time) Pod {
	v.Sandboxes, v.Containers = slices.Clone(v.Sandboxes), slices.Clone(v.Containers)
	slices.SortStableFunc(v.Sandboxes, func(a, b Sandbox) int {
		return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), b.CreatedAt.Compare(a.CreatedAt))
	})
	slices.SortStableFunc(v.Containers, func(a, b Container) int {
		return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), b.CreatedAt.Compare(a.CreatedAt))
	})
	for i := range v.Sandboxes {
		v.Sandboxes[i].keep(p.View.Sandboxes)
	}
	if len(v.Sandboxes) > 0 && !p.newest(v.Sandboxes[0].ID) {
		p.newSandbox()
	}
	p.View = v
	for _, c := range slices.Backward(v.Containers) {
		p.instance(c, at)
	}
	for name, m := range p.Containers {
		if m.Known == nil || m.Known.State == Exited || has(v, m.Known.ID) {
			continue
		}
		p.lose(name, *m.Known, at)
	}
	return p
}

// keep carries over what the runtime does not tell of a sandbox that is down:
// that we stopped it, and its addresses (behaviour row 1.3-16).
func (s *Sandbox) keep(before []Sandbox) {
	for _, old := range before {
		if old.ID != s.ID || s.Ready {
			continue
		}
		s.Stopped = old.Stopped
		if len(s.IPs) == 0 {
			s.IPs = old.IPs
		}
	}
}

// newest says whether the sandbox is the newest one known so far.
func (p Pod) newest(id string) bool {
	return len(p.View.Sandboxes) > 0 && p.View.Sandboxes[0].ID == id
}

// newSandbox gives every container its turn anew.
func (p *Pod) newSandbox() {
	for name := range p.Containers {
		p.remember(name, func(m *Memory) { m.Tried = false })
	}
}

// NeverRan says that the program was not begun: the instance is but made, or the
// runtime gave its start up before it had made the process.
func (c Container) NeverRan() bool {
	return c.State == Created || c.givenUp() && strings.HasPrefix(c.Message, "failed to create containerd task")
}

// givenUp says that the runtime gave the start up because the caller went away,
// as ours do when the agent is killed. That is how containerd tells it.
func (c Container) givenUp() bool {
	return c.State == Exited && c.StartedAt.IsZero() && c.Reason == "StartError" &&
		(strings.Contains(c.Message, "context canceled") || strings.Contains(c.Message, "context deadline exceeded"))
}

// aborted says that the instance does not count: its start was given up, and it
// never ran. One that may have run for a moment counts where it may not run twice.
func (p Pod) aborted(c Container) bool {
	m, ok := find(p.Spec, c.Name)
	return c.givenUp() && (c.NeverRan() || ok && restartable(p.Spec, m, c.ExitCode))
}

// is says whether the instance has this ID; none has.
func (c *Container) is(id string) bool { return c != nil && c.ID == id }

// unmake forgets a removed instance that never ran: the next one takes its
// number.
func (m *Memory) unmake() { m.Known, m.Last, m.Unmade = m.Last, nil, true }

func has(v View, id string) bool {
	return slices.ContainsFunc(v.Containers, func(c Container) bool { return c.ID == id })
}

// instance takes in one instance of the runtime's view or of our own calls.
func (p *Pod) instance(c Container, at time.Time) {
	old := p.Containers[c.Name].Known
	switch {
	case old != nil && old.ID != c.ID && !newer(c, *old):
		return
	case old != nil && old.ID == c.ID && old.State == Exited && old.Reason != lostReason:
		return
	case old != nil && old.ID != c.ID && c.State == Created && p.holds(*old) && (p.present(old) || !p.present(&c)):
		return // it is of a call that was given up, and another took its place
	}
	p.remember(c.Name, func(m *Memory) {
		if m.Known != nil && m.Known.ID != c.ID {
			m.Last = m.Known
		}
		m.Known, m.Unmade = &c, false
		m.Restarts = max(m.Restarts, int32(c.Attempt))
		if !c.StartedAt.IsZero() || c.givenUp() && !c.NeverRan() {
			m.Ran = true
		}
		if c.State == Running && (old == nil || old.ID != c.ID || old.State == Created) {
			m.Failure = nil // the start that failed or was not heard of took place
		}
		if c.State == Running && m.Instance.ID != c.ID && !p.starting(c.ID) {
			m.Instance = p.found(c)
			m.Tried = true
		}
	})
	if c.State == Exited && !p.aborted(c) {
		p.exited(c, at)
	}
}

// holds says that the instance may be running still.
func (p *Pod) holds(c Container) bool {
	return (c.State == Running || c.State == Unknown) && has(p.View, c.ID)
}

// starting says that we are starting the instance: what follows from its
// start is drawn when the call has returned, though the runtime shows it first.
func (p *Pod) starting(id string) bool {
	_, ok := p.Doing[Action{Kind: Start, ID: id}.Key()]
	return ok
}

// newer compares by number first: a call that was given up for lost may make
// an instance of an older number long after.
func newer(a, b Container) bool {
	return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), a.CreatedAt.Compare(b.CreatedAt)) > 0
}

// exited notes that an instance ended; people are told when its restart waits.
func (p *Pod) exited(c Container, at time.Time) {
	m, ok := find(p.Spec, c.Name)
	if !ok {
		return
	}
	if p.present(&c) {
		p.remember(c.Name, func(m *Memory) { m.Tried = true })
	}
	p.noteRestartAll(m, c, at)
	due := p.Containers[c.Name].Backoff.Due(c.FinishedAt, 0)
	if p.Stop == nil && restartable(p.Spec, m, c.ExitCode) && due.After(at) {
		p.note(at, true, "BackOff", c.Name, "Back-off restarting failed container %s in pod %s", c.Name, p.title())
	}
}

const (
	lostReason  = "ContainerStatusUnknown"
	lostCode    = 137
	lostMessage = "The container could not be located in the runtime: it was removed by somebody else."
)

// lose notes that an instance which had not ended is gone from the runtime.
// An init container that main containers have followed must have succeeded
// (behaviour rows 1.3-19, 1.3-20).
func (p *Pod) lose(name string, c Container, at time.Time) {
	c.State, c.FinishedAt = Exited, at
	c.ExitCode, c.Reason, c.Message = lostCode, lostReason, lostMessage
	if m, ok := find(p.Spec, name); ok && m.role == initial && p.mainsBegan() {
		c.ExitCode, c.Reason, c.Message = 0, "Completed", "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally"
	}
	p.remember(name, func(m *Memory) { m.Known, m.Tried = &c, true })
}

// presumeLost makes up for instances that an earlier process started and of
// which the runtime shows nothing any more, so that a job is not run twice.
func (p *Pod) presumeLost(at time.Time) {
	for _, m := range inits(p.Spec) {
		if m.role == initial && p.Containers[m.Name].Known == nil && p.mainsBegan() {
			p.lose(m.Name, Container{Name: m.Name, SandboxID: p.View.Sandboxes[0].ID}, at)
		}
	}
	for _, m := range mains(p.Spec) {
		if mem := p.Containers[m.Name]; mem.Ran && mem.Known == nil {
			c := Container{Name: m.Name, Attempt: uint32(mem.Restarts), StartedAt: p.Started, CreatedAt: p.Started}
			p.lose(m.Name, c, at)
		}
	}
}

// logged takes in the highest log numbers. The log of an instance that the runtime
// still has, or that was removed before it ran, says nothing new.
func (p *Pod) logged(highest map[string]int32) {
	for name, n := range highest {
		m := p.Containers[name]
		if k := m.Known; k != nil && int32(k.Attempt) >= n || m.Unmade && m.Restarts >= n {
			continue
		}
		p.remember(name, func(m *Memory) { m.Ran, m.Restarts = true, max(m.Restarts, n) })
	}
}

// update puts what a call of ours returned into the view.
func (p *Pod) update(c Container, at time.Time) {
	i := slices.IndexFunc(p.View.Containers, func(o Container) bool { return o.ID == c.ID })
	containers := slices.Clone(p.View.Containers)
	if i < 0 {
		containers = slices.Insert(containers, 0, c)
	} else if containers[i].State != Exited {
		// A call's answer may come after the news of the instance's end.
		containers[i] = c
	}
	p.View.Containers = containers
	p.instance(c, at)
}

// drop takes what we removed out of the view.
func (p *Pod) drop(id string) {
	p.View.Containers = slices.DeleteFunc(slices.Clone(p.View.Containers), func(c Container) bool { return c.ID == id || c.SandboxID == id })
	for name, m := range p.Containers {
		if k := m.Known; k != nil && (k.State == Created || p.aborted(*k)) && !has(p.View, k.ID) {
			p.remember(name, (*Memory).unmake)
		}
	}
	p.View.Sandboxes = slices.DeleteFunc(slices.Clone(p.View.Sandboxes), func(s Sandbox) bool { return s.ID == id })
}
