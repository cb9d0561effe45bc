package pod

import (
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
)

// done takes in how an action ended.
func (p Pod) done(e Done) Pod {
	a := e.Action
	doing, ok := p.Doing[a.Key()]
	if !ok {
		return p
	}
	p.Doing = without(p.Doing, a.Key())
	if a.Kind != Save && a.Kind != Observe || e.Failure != nil {
		p.took(doing.step(e))
	}
	for _, n := range e.Told {
		p.note(e.At, n.Warning, n.Reason, a.Container, "%s", n.Message)
	}
	if a.ChangesRuntime() {
		p.Changes++
	}
	if f := e.Failure; f != nil {
		// A call that failed may have done its work, or failed because the
		// view it rests on is not true any more.
		if f.Uncertain || a.ChangesRuntime() && !f.Canceled {
			p.Stale = true
		}
		if f.Canceled {
			return p
		}
		if a.Kind == Mount && e.Usable {
			p.Setup.Mounted, p.Setup.Outdated, p.Setup.Renew = true, true, e.Renew
		}
		p.failed(e, doing.Since)
		if a.Kind == Mount && doing.Outdated {
			p.Setup.Failures = without(p.Setup.Failures, a.failureKey())
		}
		if doing.Outdated && (a.Kind == Pull || a.Kind == Create) {
			p.heed(a.Container, e.At)
		}
		return p
	}
	p.Setup.Failures = without(p.Setup.Failures, a.failureKey())
	if a.Kind == Observe {
		// What was read while our own calls changed it may be older than what
		// they told us, and is of no use. After a hint it is, but not the last.
		ours := p.Changes != doing.Changes
		p.Stale = ours || doing.Outdated
		if !ours {
			p = p.see(*e.View, e.At)
			p.Setup.Seen = doing.Since
		}
		return p
	}
	p.succeeded(e)
	if a.Kind == Mount {
		p.Setup.Outdated, p.Setup.Renew = doing.Outdated, e.Renew
	}
	return p
}

// step is what the action in flight becomes with its end.
func (d Doing) step(e Done) Step {
	s := Step{Key: e.Action.Key(), Kind: e.Action.Kind, Container: e.Action.Container, Began: d.Since, Ended: e.At, Queue: d.Queue}
	if e.Failure != nil {
		s.Error = e.Failure.Message
	}
	if d.Since.IsZero() {
		s.Began = e.At // nobody saw it begin
	}
	if s.Queue.For != "" && s.Queue.Ended.IsZero() {
		s.Queue.Ended = e.At // it never had its turn
	}
	return s
}

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

// renewDelay is the pause before volumes that can be used as they are, are
// brought up to date again: from 1 s to a minute.
func renewDelay(tries int) time.Duration {
	return min(time.Second<<min(tries-1, 6), time.Minute)
}

// failed remembers a failure where it belongs: with the container that waits
// for it, or with the step of the pod.
func (p *Pod) failed(e Done, began time.Time) {
	a, f := e.Action, *e.Failure
	f.Since = began
	switch a.Kind {
	case Pull, Create, Start:
		if a.Kind == Pull && !p.wants(a) {
			return
		}
		p.remember(a.Container, func(m *Memory) {
			if m.Failure != nil && m.Failure.Reason == f.Reason {
				f.Tries, f.Since = m.Failure.Tries, m.Failure.Since
				// A start that nobody knows of may yet happen.
				f.Uncertain = f.Uncertain || a.Kind == Start && m.Failure.Uncertain
			}
			f.Tries++
			f.Retry = e.At.Add(retryDelay(f.Tries))
			if a.Kind == Pull && f.Reason != neverPull {
				m.PullBackoff = m.PullBackoff.Next(e.At, e.At)
				f.Retry = e.At.Add(m.PullBackoff.Delay)
			}
			m.Failure, m.Tried = &f, true
			switch {
			case a.Kind == Create:
				m.Image = ""
			case a.Kind == Start && f.Uncertain:
				// Should it run after all, its hook is still ours to run.
				m.Instance = begun(p.Spec, a.Container, a.ID)
			}
		})
		p.noteFailure(e.At, a, f)
	case PostStart:
		p.remember(a.Container, func(m *Memory) {
			if m.Instance.ID != a.ID {
				return // it has ended meanwhile
			}
			f.Reason, f.Tries = "PostStartHookError", 1
			m.Failure, m.Tried = &f, true
			m.Instance.PostStart = HookFailed
		})
		p.note(e.At, true, "FailedPostStartHook", a.Container, "PostStartHook failed")
	case PreStop:
		p.remember(a.Container, func(m *Memory) { m.Instance.hookEnded(a, HookFailed) })
		p.note(e.At, true, "FailedPreStopHook", a.Container, "PreStopHook failed")
	default:
		switch a.Kind {
		case Allocate:
			p.Resize.Ask = true
		case Actuate:
			p.notActuated(e.At, f.Message)
		}
		if before := p.Setup.Failures[a.failureKey()]; before.Tries > 0 {
			f.Tries, f.Since = before.Tries, before.Since
		}
		f.Tries++
		f.Retry = e.At.Add(retryDelay(f.Tries))
		if a.Kind == Mount && p.Setup.Mounted {
			f.Retry = e.At.Add(renewDelay(f.Tries))
		}
		p.Setup.Failures = with(p.Setup.Failures, a.failureKey(), f)
		if reason := stepReasons[a.Kind]; reason != "" && !f.waits() {
			p.note(e.At, true, reason, a.Container, "%s", f.Message)
		}
	}
}

// noteFailure tells people of a failed pull, create or start (behaviour rows
// 1.10-2, 1.10-3). Messages name the container, not its ID, so that the same
// failure of the next instance counts as the same (row 1.5-11).
func (p *Pod) noteFailure(at time.Time, a Action, f Failure) {
	switch {
	case f.waits():
		return
	case a.Kind != Pull:
		message := f.Message
		if a.Kind == Start {
			message = strings.ReplaceAll(message, a.ID, a.Container)
		}
		p.note(at, true, "Failed", a.Container, "Error: %s", message)
		return
	case f.Reason == neverPull:
		p.note(at, true, neverPull, a.Container, "%s", f.Message)
	case fetching(f.Reason):
		p.note(at, true, "Failed", a.Container, "Failed to pull image %q: %s", a.Image, f.Message)
		p.note(at, false, "BackOff", a.Container, "Back-off pulling image %q", a.Image)
	default:
		p.note(at, true, "InspectFailed", a.Container, "%s", f.Message)
	}
	p.note(at, true, "Failed", a.Container, "Error: %s", f.Reason)
}

// fetching says that the reason is one of a registry that was asked.
func fetching(reason string) bool {
	return reason == "ErrImagePull" || reason == "RegistryUnavailable" || reason == "SignatureValidationFailed"
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
	case Actuate:
		p.actuated(e.At)
	case Mount:
		p.Setup.Mounted = true
	case Pull:
		if !p.wants(a) {
			return
		}
		p.remember(a.Container, func(m *Memory) {
			// A failure to create counts on until a create succeeds.
			if f := m.Failure; f != nil && (m.PullBackoff.Delay > 0 || f.Reason == neverPull) {
				m.Failure = nil
			}
			m.Image, m.PullBackoff = e.Image, Backoff{}
		})
	case RunSandbox:
		p.View.Sandboxes = slices.DeleteFunc(slices.Clone(p.View.Sandboxes), func(s Sandbox) bool {
			// The runtime may have shown it before. If it showed it down, it
			// was not up yet or is lost already.
			p.Stale = p.Stale || s.ID == e.Sandbox.ID && !s.Ready
			return s.ID == e.Sandbox.ID
		})
		p.View.Sandboxes = slices.Insert(p.View.Sandboxes, 0, *e.Sandbox)
		p.newSandbox()
	case Create:
		p.remember(a.Container, func(m *Memory) { m.Image, m.Failure, m.Made = "", nil, e.Container.ID })
		p.update(*e.Container, e.At)
		p.note(e.At, false, "Created", a.Container, "Container created")
	case Start:
		p.started(e)
	case PostStart:
		p.remember(a.Container, func(m *Memory) {
			m.Instance.hookEnded(a, HookDone)
			m.Tried = m.Tried || m.Instance.ID == a.ID
		})
	case PreStop:
		p.remember(a.Container, func(m *Memory) { m.Instance.hookEnded(a, HookDone) })
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

// neverPull is the failure of an image that is absent and may not be pulled.
const neverPull = "ErrImageNeverPull"

// wants says whether the image that a pull was for is still the one wanted.
func (p *Pod) wants(pull Action) bool {
	c := FindContainer(p.Spec, pull.Container)
	return c != nil && c.Image == pull.Image
}

// hookEnded notes how the instance's hook ended, unless another instance has
// taken its place meanwhile.
func (i *Instance) hookEnded(a Action, state HookState) {
	switch {
	case i.ID != a.ID:
	case a.Kind == PostStart:
		i.PostStart = state
	case a.Kind == PreStop:
		i.PreStop = state
	}
}

// started takes in a started instance.
func (p *Pod) started(e Done) {
	c := *e.Container
	p.remember(c.Name, func(mem *Memory) {
		mem.Instance = begun(p.Spec, c.Name, c.ID)
		mem.Failure, mem.Ran = nil, true
		// One that restarts alone has had its turn and bars nobody.
		mem.Tried = mem.Tried || mem.Instance.PostStart == HookDone
	})
	p.update(c, e.At)
	p.note(e.At, false, "Started", c.Name, "Container started")
}

// begun is an instance that we started.
func begun(spec *v1.Pod, name, id string) Instance {
	i := Instance{ID: id, PostStart: HookDone}
	if c := FindContainer(spec, name); c != nil && c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		i.PostStart = HookPending
	}
	return i
}

// stoppedSandbox marks a sandbox that we stopped.
func (p *Pod) stoppedSandbox(id string) {
	p.View.Sandboxes = slices.Clone(p.View.Sandboxes)
	for i := range p.View.Sandboxes {
		if p.View.Sandboxes[i].ID == id {
			p.View.Sandboxes[i].Ready, p.View.Sandboxes[i].Stopped = false, true
		}
	}
}
