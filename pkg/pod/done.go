package pod

import (
	"slices"
	"time"
)

// done takes in how an action ended.
func (p Pod) done(e Done) Pod {
	a := e.Action
	doing, ok := p.Doing[a.Key()]
	if !ok {
		return p
	}
	p.Doing = without(p.Doing, a.Key())
	step := Step{Key: a.Key(), Began: doing.Since, Ended: e.At}
	if e.Failure != nil {
		step.Error = e.Failure.Message
	}
	if a.Kind != Save && a.Kind != Observe || e.Failure != nil {
		p.Steps = p.stepped(step)
	}
	if a.ChangesRuntime() {
		p.Changes++
	}
	if f := e.Failure; f != nil {
		if f.Uncertain {
			p.Stale = true
		}
		if f.Canceled {
			return p
		}
		p.failed(e)
		return p
	}
	p.Setup.Failures = without(p.Setup.Failures, a.failureKey())
	if a.Kind == Observe {
		// What was read while our own calls changed it is read again.
		p.Stale = p.Changes != doing.Changes
		if !p.Stale {
			p = p.see(*e.View, e.At)
		}
		return p
	}
	p.succeeded(e)
	return p
}

func (p Pod) stepped(s Step) []Step { return append(slices.Clone(tail(p.Steps, keptSteps-1)), s) }

// failureKey names what is tried again after a failure; a stop with another
// grace is the same stop.
func (a Action) failureKey() string {
	if a.Kind == StopContainer {
		return string(a.Kind) + "/" + a.ID
	}
	return a.Key()
}

// retryDelay is the pause before the machinery is tried again: from 1 s to 10 s.
func retryDelay(tries int) time.Duration {
	return min(time.Second<<min(tries-1, 4), 10*time.Second)
}

// failed remembers a failure where it belongs: with the container that waits
// for it, or with the step of the pod.
func (p *Pod) failed(e Done) {
	a, f := e.Action, *e.Failure
	switch a.Kind {
	case Pull, Create, Start:
		p.remember(a.Container, func(m *Memory) {
			if m.Failure != nil && m.Failure.Reason == f.Reason {
				f.Tries = m.Failure.Tries
			}
			f.Tries++
			f.Retry = e.At.Add(retryDelay(f.Tries))
			if a.Kind == Pull && f.Reason != "ErrImageNeverPull" {
				m.PullBackoff = m.PullBackoff.Next(e.At, e.At)
				f.Retry = e.At.Add(m.PullBackoff.Delay)
			}
			m.Failure, m.Tried = &f, true
			if a.Kind == Create {
				m.Image = ""
			}
		})
		p.note(e.At, true, "Failed", a.Container, "%s", prefix(f.Reason, f.Message))
		if a.Kind == Start {
			p.Stale = true
		}
	case PostStart:
		p.remember(a.Container, func(m *Memory) {
			f.Reason, f.Tries = "PostStartHookError", 1
			m.Failure, m.Tried = &f, true
			m.Instance.PostStart = HookFailed
		})
		p.note(e.At, true, "FailedPostStartHook", a.Container, "PostStartHook failed")
	case PreStop:
		p.remember(a.Container, func(m *Memory) { m.Instance.PreStop = HookFailed })
		p.note(e.At, true, "FailedPreStopHook", a.Container, "PreStopHook failed")
	default:
		f.Tries = p.Setup.Failures[a.failureKey()].Tries + 1
		f.Retry = e.At.Add(retryDelay(f.Tries))
		p.Setup.Failures = with(p.Setup.Failures, a.failureKey(), f)
		if reason := stepReasons[a.Kind]; reason != "" {
			p.note(e.At, true, reason, a.Container, "%s", f.Message)
		}
	}
}

// stepReasons are what people are told when a step of the pod fails
// (behaviour row 1.23-2).
var stepReasons = map[Kind]string{
	Prepare: "FailedSync", Mount: "FailedMount", RunSandbox: "FailedCreatePodSandBox",
	StopContainer: "FailedKillPod", StopSandbox: "FailedKillPod", Unmount: "FailedUnmount", Clean: "FailedSync",
	Erase: "FailedSync", Observe: "FailedSync", Save: "FailedSync",
}

func prefix(reason, message string) string {
	if reason == "" {
		return message
	}
	return reason + ": " + message
}

// succeeded takes in what an action brought.
func (p *Pod) succeeded(e Done) {
	a := e.Action
	switch a.Kind {
	case Prepare:
		p.Setup.Prepared = true
	case Mount:
		p.Setup.Mounted = true
	case Pull:
		if c := FindContainer(p.Spec, a.Container); c == nil || c.Image != a.Image {
			return // the wish changed meanwhile
		}
		p.remember(a.Container, func(m *Memory) {
			m.Image, m.Failure, m.PullBackoff = e.Image, nil, Backoff{}
		})
		if e.Message != "" {
			p.note(e.At, false, "Pulled", a.Container, "%s", e.Message)
		}
	case RunSandbox:
		p.View.Sandboxes = slices.Insert(slices.Clone(p.View.Sandboxes), 0, *e.Sandbox)
		for name := range p.Containers {
			p.remember(name, func(m *Memory) { m.Tried = false })
		}
	case Create:
		p.remember(a.Container, func(m *Memory) { m.Image, m.Failure = "", nil })
		p.update(*e.Container, e.At)
		p.note(e.At, false, "Created", a.Container, "Container created")
	case Start:
		p.started(e)
	case PostStart:
		p.remember(a.Container, func(m *Memory) { m.Instance.PostStart, m.Tried = HookDone, true })
	case PreStop:
		p.remember(a.Container, func(m *Memory) { m.Instance.PreStop = HookDone })
	case StopContainer:
		if e.Container != nil {
			p.update(*e.Container, e.At)
		} else {
			p.Stale = true
		}
	case StopSandbox:
		p.stoppedSandbox(a.ID)
	case Remove, RemoveSandbox:
		p.drop(a.ID)
	case Unmount:
		p.Setup.Unmounted, p.Setup.Mounted = true, false
	case Clean:
		p.Setup.Cleaned, p.Setup.Prepared = true, false
	case Erase:
		p.Setup.Erased = true
	case Release:
		p.Setup.Released = true
	case Save:
		p.Setup.Recorded = e.Record
	}
}

// started takes in a started instance and what its back-off will be, should
// it end.
func (p *Pod) started(e Done) {
	c := *e.Container
	m, _ := find(p.Spec, c.Name)
	p.remember(c.Name, func(mem *Memory) {
		mem.Instance = Instance{ID: c.ID, PostStart: HookDone}
		mem.Failure, mem.Ran = nil, true
		if m.Container != nil && m.Lifecycle != nil && m.Lifecycle.PostStart != nil {
			mem.Instance.PostStart = HookPending
		}
		mem.Tried = mem.Instance.PostStart == HookDone
	})
	p.update(c, e.At)
	p.note(e.At, false, "Started", c.Name, "Container started")
}

// stoppedSandbox marks a sandbox that we stopped.
func (p *Pod) stoppedSandbox(id string) {
	p.View.Sandboxes = slices.Clone(p.View.Sandboxes)
	for i := range p.View.Sandboxes {
		if p.View.Sandboxes[i].ID == id {
			p.View.Sandboxes[i].Ready = false
		}
	}
}
