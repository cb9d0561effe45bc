package pod

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Cause is the kind of thing that a pod waits for.
type Cause string

// The causes, about in the order in which a pod meets them.
const (
	Admission   Cause = "admission"   // the ledger's grant
	Preparation Cause = "prepare"     // folder and cgroup
	NotBuilt    Cause = "unbuilt"     // what this agent can't do
	NoRuntime   Cause = "runtime"     // the runtime doesn't answer
	Looking     Cause = "look"        // what the runtime shows is being read
	Slot        Cause = "slot"        // a turn among other pods
	OldSandbox  Cause = "old-sandbox" // one is in the way of the next
	Network     Cause = "network"     // the node's is not ready
	SandboxCall Cause = "sandbox"     // the sandbox is made
	Volumes     Cause = "volumes"     // they are made ready
	Image       Cause = "image"       // it is made present
	Creation    Cause = "create"      // an instance is made
	Starting    Cause = "start"       // an instance is started
	Hook        Cause = "hook"        // postStart or preStop
	Init        Cause = "init"        // an init container runs
	StartupWait Cause = "startup"     // the startup probe has not passed
	ReadyWait   Cause = "readiness"   // the readiness probe has not passed
	BackingOff  Cause = "back-off"    // a container failed and starts later
	Replacing   Cause = "replace"     // an instance that is to go is being ended
	Resizing    Cause = "resize"      // the pod's resources are being changed
	Gate        Cause = "gate"        // a condition that others set
	Notice      Cause = "notice"      // an end was not noticed yet
	Turn        Cause = "agent"       // the agent has yet to go on
	Apiserver   Cause = "apiserver"   // it has yet to be told
	Grace       Cause = "grace"       // a container was told to end
	Removal     Cause = "removal"     // what is left of the pod is removed
	Finalizers  Cause = "finalizers"  // others hold the pod at the apiserver
)

// Blocker is the one thing that keeps a pod from being as it is wanted.
type Blocker struct {
	Cause     Cause  `json:"cause"`
	Container string `json:"container,omitempty"`
	// What it is, in words, and what there is to do about it.
	What   string `json:"what"`
	Remedy string `json:"remedy,omitempty"`
	// Since is when the wait for it began, Next when it is tried again or ends by
	// itself, zero if nobody knows.
	Since time.Time `json:"since"`
	Next  time.Time `json:"next,omitzero"`
	// Trouble says that it has failed, or that somebody else has to act.
	Trouble bool `json:"trouble"`
	// Step is the key of the action in flight that it is, "" if it is none.
	Step string `json:"step,omitempty"`
}

// Patience is how long a pod may wait for what is no trouble before it counts as
// stuck.
const Patience = 10 * time.Second

// Stuck says that the pod does not get on: there is trouble, or it takes long.
func (b Blocker) Stuck(now time.Time) bool { return b.Trouble || now.Sub(b.Since) >= Patience }

// Blocked says what the pod waits for: of several things that which has failed,
// else the first in order. It says false of a pod that is as it is wanted.
func Blocked(p Pod, n Node, now time.Time) (Blocker, bool) {
	s := seeker{Pod: p, node: n, now: now}
	var b Blocker
	if p.Stop != nil {
		b = s.ending()
	} else {
		b = s.coming()
	}
	if b.Cause == "" {
		return b, false
	}
	b.Since = s.since(b)
	return b, true
}

// HeldUp is the event that says what the pod waits for, if that is news: what is
// in flight says so itself.
func HeldUp(p Pod, n Node, now time.Time) (e Held, news bool) {
	if !p.begins() {
		return e, false
	}
	e.At = now
	b, _ := Blocked(p, n, now)
	if b.Step == "" || b.Cause == Looking {
		e.Cause, e.Container = b.Cause, b.Container
	}
	var before Held
	if w := p.Launches[len(p.Launches)-1].waiting(); w != nil {
		before.Cause, before.Container = w.Cause, w.Container
	}
	return e, e.Cause != before.Cause || e.Container != before.Container
}

// seeker looks for what a pod waits for.
type seeker struct {
	Pod
	node Node
	now  time.Time
}

// since is when the wait for it began, as well as is known.
func (s seeker) since(b Blocker) time.Time {
	if !b.Since.IsZero() {
		return b.Since
	}
	if len(s.Launches) == 0 {
		return s.Started
	}
	start := s.Launches[len(s.Launches)-1]
	if w := start.waiting(); w != nil && w.Cause == b.Cause && w.Container == b.Container {
		return w.Began
	}
	if s.Stop != nil {
		return s.Stop.At
	}
	return latestOf(start.Began, start.Over)
}

func latestOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// worst is the first that is trouble, else the first.
func worst(all ...Blocker) (first Blocker) {
	for _, b := range all {
		if b.Trouble {
			return b
		}
		if first.Cause == "" {
			first = b
		}
	}
	return first
}

// call is b, if an action of the kind, about b's container and the ID if one is
// named, is in flight or waits to be tried again.
func (s seeker) call(b Blocker, kind Kind, id string) Blocker {
	f, failed := s.Setup.Failures[Action{Kind: kind, ID: id, Container: b.Container}.failureKey()]
	if failed {
		b.fail(f, s.now)
	}
	for _, key := range sortedKeys(s.Doing) {
		d := s.Doing[key]
		if d.Action.Kind != kind || id != "" && d.Action.ID != id || b.Container != "" && d.Action.Container != b.Container {
			continue
		}
		b.Step, b.Next = key, time.Time{}
		if b.Since.IsZero() {
			b.Since = d.Since
		}
		if q := d.Queue; q.For != "" && q.Ended.IsZero() {
			b.Cause, b.Since = Slot, q.Began
			b.What, b.Remedy = q.For+", for "+b.What, "nothing: calls of other pods end first"
		}
		return b
	}
	if failed && f.Retry.After(s.now) {
		return b
	}
	return Blocker{}
}

// fail says of the blocker that it has failed, and when it is tried again.
func (b *Blocker) fail(f Failure, now time.Time) {
	b.What += ": " + f.Message
	b.Since, b.Trouble = f.Since, !f.waits()
	if f.Retry.After(now) {
		b.Next = f.Retry
	}
	if f.Awaited {
		b.Remedy = "the apiserver has not said yet whether it is there: see that it can be reached"
	}
}

// coming is what a pod waits for that is to run.
func (s seeker) coming() Blocker {
	if b := s.admission(); b.Cause != "" {
		return b
	}
	if !s.Setup.Prepared {
		b := s.call(Blocker{Cause: Preparation, What: "its folders and cgroup", Remedy: "see the message, and nodeagent check"}, Prepare, "")
		if b.Trouble || b.Step != "" {
			return b
		}
	}
	if missing := Unbuilt(s.Spec); len(missing) > 0 {
		return Blocker{Cause: NotBuilt, What: "what is not built: " + missing[0].Message, Trouble: true,
			Remedy: "take it out of the pod's spec, or run the pod under an agent that has it"}
	}
	if b := s.sight(); b.Cause != "" {
		return b
	}
	if sandbox := s.sandbox(); sandbox.Cause != "" {
		return worst(append([]Blocker{sandbox, s.volumes()}, s.images()...)...)
	}
	if !s.Setup.Mounted {
		return worst(append([]Blocker{cmp.Or(s.volumes(), Blocker{Cause: Turn, What: "the agent to mount its volumes"})}, s.images()...)...)
	}
	if s.Setup.Restarting != "" {
		return Blocker{Cause: Replacing, What: "all containers to end, as the rule of container " + s.Setup.Restarting + " asks for"}
	}
	if b := s.initial(); b.Cause != "" {
		return b
	}
	var all []Blocker
	for _, m := range lasting(s.Spec) {
		if m.role != initial {
			all = append(all, s.container(m))
		}
	}
	if b := worst(all...); b.Cause != "" {
		return b
	}
	return s.outside()
}

// admission is the ledger's grant.
func (s seeker) admission() Blocker {
	switch s.Verdict.State {
	case Waiting:
		return Blocker{Cause: Admission, What: "its place on this node: " + s.Verdict.Message, Trouble: true,
			Remedy: "end what is named, or nothing: it goes on by itself"}
	case Unasked:
		return cmp.Or(s.call(Blocker{Cause: Admission, What: "the grant of its resources, ports and name"}, Admit, ""),
			Blocker{Cause: Turn, What: "the agent to take it up"})
	}
	return Blocker{}
}

// sight is the runtime, and what it shows of the pod.
func (s seeker) sight() Blocker {
	if s.node.Runtime != "" {
		return Blocker{Cause: NoRuntime, What: "the container runtime: " + s.node.Runtime, Trouble: true,
			Remedy: "start it, or see its log; nodeagent check says more"}
	}
	if !s.Stale {
		return Blocker{}
	}
	return cmp.Or(s.call(Blocker{Cause: Looking, What: "the runtime to say what runs of it"}, Observe, ""),
		Blocker{Cause: Turn, What: "the agent to look at it"})
}

// sandbox is the one usable sandbox.
func (s seeker) sandbox() Blocker {
	making := Blocker{Cause: SandboxCall, What: "its sandbox", Remedy: "see the message: mostly it is the network's plugin"}
	if b := s.call(making, RunSandbox, ""); b.Step != "" {
		return b
	}
	if s.sandboxUsable() {
		return Blocker{}
	}
	for _, o := range s.View.Sandboxes {
		if o.Stopped {
			continue
		}
		b := Blocker{Cause: OldSandbox, What: "its old sandbox to be stopped", Remedy: "see the message: mostly it is the network's plugin"}
		return cmp.Or(s.call(b, StopSandbox, o.ID), b)
	}
	if s.node.Network != "" && !s.Spec.Spec.HostNetwork {
		return Blocker{Cause: Network, What: "the node's network: " + s.node.Network, Trouble: true,
			Remedy: "install a network plugin, or see why the one there is not ready"}
	}
	return cmp.Or(s.call(making, RunSandbox, ""), Blocker{Cause: Turn, What: "the agent to make its sandbox"})
}

// volumes are the pod's volumes.
func (s seeker) volumes() Blocker {
	if s.Setup.Mounted {
		return Blocker{}
	}
	return s.call(Blocker{Cause: Volumes, What: "its volumes", Remedy: "make what is missing: it is noticed"}, Mount, "")
}

// images are those of the containers next in turn.
func (s seeker) images() (all []Blocker) {
	next := mains(s.Spec)
	if list := inits(s.Spec); len(list) > 0 {
		next = list[:1]
	}
	for _, m := range next {
		all = append(all, s.image(m))
	}
	return all
}

// image is the container's image, if it is being pulled or could not be.
func (s seeker) image(m member) Blocker {
	b := Blocker{Cause: Image, Container: m.Name, What: fmt.Sprintf("image %q of container %s", m.Image, m.Name)}
	f := s.Containers[m.Name].Failure
	failed := f != nil && (fetching(f.Reason) || f.Reason == neverPull || f.Reason == "InvalidImageName" || f.Reason == "ImageInspectError")
	if failed {
		b.fail(*f, s.now)
		b.Remedy = "check its name, the registry and the credentials"
		if f.Reason == neverPull {
			b.Remedy = "load it into the runtime, or set another imagePullPolicy"
		}
	}
	if inFlight := s.call(b, Pull, ""); inFlight.Step != "" {
		return inFlight
	}
	if failed {
		return b
	}
	return Blocker{}
}

// initial is the init container or sidecar whose turn it is.
func (s seeker) initial() Blocker {
	l := planner{Pod: s.Pod, node: s.node, now: s.now}
	list := inits(s.Spec)
	front := l.front(list)
	if front == len(list) {
		return Blocker{}
	}
	m := list[front]
	if b := s.container(m); b.Cause != "" {
		return b
	}
	return Blocker{Cause: Turn, Container: m.Name, What: "the agent to go on behind init container " + m.Name}
}

// outside is what others than the node have to do for a pod that runs.
func (s seeker) outside() Blocker {
	if missing := s.gates(); len(missing) > 0 {
		return Blocker{Cause: Gate, What: "a readiness gate: " + missing[0], Trouble: true, Remedy: "whoever the gate belongs to sets the condition"}
	}
	if len(s.Launches) == 0 || IsStatic(s.Spec) {
		return Blocker{}
	}
	if o := s.Launches[len(s.Launches)-1]; o.Told.IsZero() && !o.Ready.IsZero() && !o.Found {
		return Blocker{Cause: Apiserver, What: "the apiserver to take that it is ready", Since: o.Ready,
			Trouble: s.now.Sub(o.Ready) > 3*time.Second, Remedy: "see that the apiserver can be reached, and the agent's log"}
	}
	return Blocker{}
}

// container is what keeps a container from being where it is wanted.
func (s seeker) container(m member) Blocker {
	mem := s.Containers[m.Name]
	what := "container " + m.Name
	if b := s.call(Blocker{Cause: Creation, Container: m.Name, What: what + " to be created"}, Create, ""); b.Step != "" {
		return b
	}
	if b := s.image(m); b.Step != "" {
		return b
	}
	if k := mem.Known; k != nil && s.present(k) {
		switch k.State {
		case Running, Unknown:
			return s.running(m, *k)
		case Created:
			if b := s.call(Blocker{Cause: Starting, Container: m.Name, What: what + " to be started"}, Start, k.ID); b.Step != "" {
				return b
			}
		case Exited:
			if m.role == initial && k.ExitCode == 0 || m.role != initial && !s.again(m, *k) && !s.aborted(*k) {
				return Blocker{}
			}
		}
	}
	if f := mem.Failure; f != nil && f.Retry.After(s.now) {
		return s.stumbled(m, *f)
	}
	if k := mem.Known; k != nil && k.State == Exited && s.again(m, *k) {
		if due := mem.Backoff.Due(k.FinishedAt, s.node.MaxBackoff); due.After(s.now) {
			return Blocker{Cause: BackingOff, Container: m.Name, Since: k.FinishedAt, Next: due, Trouble: true,
				What: fmt.Sprintf("container %s to be started again: it ended with exit code %d (%s), after %d restarts",
					m.Name, k.ExitCode, cmp.Or(k.Reason, "no reason given"), mem.Restarts),
				Remedy: fmt.Sprintf("nodeagent logs -p %s -c %s", s.Spec.Name, m.Name)}
		}
	}
	if s.Resize.Actuated != nil {
		return Blocker{Cause: Resizing, Container: m.Name, What: what + ", which waits for the pod's resize"}
	}
	return Blocker{Cause: Turn, Container: m.Name, What: "the turn of " + what}
}

// stumbled is a container that could not be made or started.
func (s seeker) stumbled(m member, f Failure) Blocker {
	if b := s.image(m); b.Cause != "" {
		return b
	}
	b := Blocker{Cause: Creation, Container: m.Name, What: "container " + m.Name, Remedy: "see the message"}
	switch f.Reason {
	case configFailed:
		b.What, b.Remedy = "what container "+m.Name+" is made from", "make what is missing: it is noticed"
	case startFailed:
		b.Cause, b.Remedy = Starting, "see the message: mostly it is the command, or a limit"
	}
	b.fail(f, s.now)
	return b
}

// running is what a container that runs has yet to do.
func (s seeker) running(m member, k Container) Blocker {
	inst := s.Containers[m.Name].Instance
	logs := fmt.Sprintf("nodeagent logs %s -c %s", s.Spec.Name, m.Name)
	switch {
	case inst.ID == k.ID && !inst.KillAt.IsZero():
		b := s.killed(k)
		b.Cause = cmp.Or(b.Cause, Replacing)
		return b
	case inst.ID == k.ID && inst.PostStart == HookPending:
		b := Blocker{Cause: Hook, Container: m.Name, What: "the postStart hook of container " + m.Name, Remedy: "see why it does not end"}
		return cmp.Or(s.call(b, PostStart, k.ID), b)
	case m.role == initial:
		return Blocker{Cause: Init, Container: m.Name, What: "init container " + m.Name + " to end: it runs", Since: k.StartedAt, Remedy: logs}
	case !s.isStarted(m) && m.StartupProbe != nil:
		return s.probe(StartupWait, Startup, m, k, logs)
	case !s.isReady(m) && m.ReadinessProbe != nil && (m.role != sidecar || s.mainsBegan()):
		return s.probe(ReadyWait, Readiness, m, k, logs)
	case s.hooking(s.Containers[m.Name]):
		return Blocker{Cause: Hook, Container: m.Name, What: "container " + m.Name + ", whose postStart hook has failed, to be ended", Trouble: true}
	}
	return Blocker{}
}

// probe is a probe that has not passed, with its newest answer.
func (s seeker) probe(c Cause, kind Probe, m member, k Container, logs string) Blocker {
	b := Blocker{Cause: c, Container: m.Name, Since: k.StartedAt, Remedy: logs,
		What: fmt.Sprintf("the %s probe of container %s", strings.ToLower(kind.String()), m.Name)}
	for _, n := range slices.Backward(s.Notes) {
		if n.Container == m.Name && n.Reason == "Unhealthy" && strings.HasPrefix(n.Message, kind.String()+" probe") && !n.At.Before(k.StartedAt) {
			b.What += ": " + n.Message
			if b.Trouble = true; n.Count > 1 {
				b.What += fmt.Sprintf(" (%d times)", n.Count)
			}
			return b
		}
	}
	b.What += ", which has not answered yet"
	return b
}
