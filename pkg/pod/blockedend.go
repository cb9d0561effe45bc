package pod

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// ending is what a pod waits for that is to end.
func (s seeker) ending() Blocker {
	if s.Setup.Released && !s.Stop.Unwanted {
		return s.deleted()
	}
	for _, key := range sortedKeys(s.Doing) {
		switch d := s.Doing[key]; d.Action.Kind {
		case RunSandbox, Create, Start, Mount, Prepare, Allocate, Actuate, Admit, Pull, PostStart:
			return Blocker{Cause: Removal, Container: d.Action.Container, What: "the call " + string(d.Action.Kind) + ", sent before, to end", Since: d.Since, Step: key}
		}
	}
	if b := s.sight(); b.Cause != "" {
		return b
	}
	if b := s.killing(); b.Cause != "" {
		return b
	}
	for _, o := range s.View.Sandboxes {
		if b := s.call(Blocker{Cause: Removal, What: "its sandbox to be stopped", Remedy: "see the message: mostly it is the network's plugin"}, StopSandbox, o.ID); b.Cause != "" {
			return b
		}
	}
	b := worst(s.call(Blocker{Cause: Removal, What: "its volumes to be unmounted", Remedy: "see who uses the mount that is named"}, Unmount, ""),
		s.call(Blocker{Cause: Removal, What: "its cgroup to be removed", Remedy: "see which processes are left in it"}, Clean, ""))
	if b.Cause != "" {
		return b
	}
	left := []Blocker{}
	for _, key := range sortedKeys(s.Setup.Failures) {
		f := s.Setup.Failures[key]
		b := Blocker{Cause: Removal, What: key, Remedy: "see the message"}
		b.fail(f, s.now)
		left = append(left, b)
	}
	for _, key := range sortedKeys(s.Doing) {
		if d := s.Doing[key]; d.Action.Kind != Save {
			left = append(left, Blocker{Cause: Removal, What: key, Since: d.Since, Step: key})
		}
	}
	return worst(append(left, Blocker{Cause: Turn, What: "the agent to go on with its end"})...)
}

// deleted is what a pod waits for of which nothing is left here but its name.
func (s seeker) deleted() Blocker {
	switch {
	case s.Spec.DeletionTimestamp == nil:
		return Blocker{} // it has ended, and that is all
	case len(s.Spec.Finalizers) > 0:
		return Blocker{Cause: Finalizers, What: "its finalizers, " + strings.Join(s.Spec.Finalizers, ", "), Trouble: true,
			Remedy: "nothing is left of it on this node; whoever set a finalizer removes it"}
	}
	return Blocker{Cause: Apiserver, What: "the apiserver to delete it", Remedy: "see that the apiserver can be reached, and the agent's log"}
}

// killing is the end of containers that run: of those that could not be ended
// one, else the first, sidecars last.
func (s seeker) killing() Blocker {
	var all []Blocker
	names := []string{}
	for _, m := range slices.Concat(mains(s.Spec), ephemerals(s.Spec), inits(s.Spec)) {
		names = append(names, m.Name)
	}
	for _, name := range names {
		for _, c := range s.View.Containers {
			if c.Name == name && (c.State == Running || c.State == Unknown) {
				all = append(all, s.killed(c))
			}
		}
	}
	return worst(all...)
}

// killed is the end of one container.
func (s seeker) killed(c Container) Blocker {
	hook := Blocker{Cause: Hook, Container: c.Name, What: "the preStop hook of container " + c.Name}
	stop := Blocker{Cause: Grace, Container: c.Name, What: "container " + c.Name + " to end: it was told to", Remedy: "see why it does not end at its stop signal"}
	var deadline time.Time
	if inst := s.Containers[c.Name].Instance; inst.ID == c.ID && !inst.KillAt.IsZero() {
		stop.Since, deadline = inst.KillAt, inst.KillAt.Add(specGrace(s.Spec))
	}
	if s.Stop != nil && !s.Stop.Began.IsZero() {
		deadline = s.Stop.Began.Add(s.Stop.Grace)
	}
	b := s.call(hook, PreStop, c.ID)
	if b.Step == "" {
		b = cmp.Or(s.call(stop, StopContainer, c.ID), Blocker{Cause: Turn, Container: c.Name, What: "the agent to end container " + c.Name})
	}
	if b.Cause != Turn && !b.Trouble {
		b.Next = deadline
		b.Remedy = "nothing: its grace ends by itself"
	}
	return b
}
