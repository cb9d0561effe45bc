package pod

import "time"

// containers plans the containers of a pod whose sandbox and volumes stand:
// debug containers at any time, init containers one after another, then the
// main ones in order.
func (l *planner) containers() {
	l.strays()
	for _, m := range ephemerals(l.Spec) {
		l.advance(m)
	}
	if !l.initialized() {
		return
	}
	list := mains(l.Spec)
	for i, m := range list {
		if l.advance(m) && !l.Containers[m.Name].Tried {
			l.wait("container %s comes next", m.Name)
			for _, behind := range list[i+1:] {
				l.prepare(behind)
			}
			return
		}
	}
}

// strays ends what runs and should not: instances of containers that the spec
// no longer has, and all but the newest instance of one that it has.
func (l *planner) strays() {
	for _, c := range l.View.Containers {
		known := l.Containers[c.Name].Known
		if c.State == Running && (!l.wanted(c.Name) || known != nil && known.ID != c.ID) && !l.starting(c.ID) {
			l.kill(c, "Stopping container "+c.Name+", which is not wanted", specGrace(l.Spec))
		}
	}
}

// prepare looks after a main container whose turn comes later: its image is
// pulled beside those of the others; and one that runs already, from before the
// agent was started, is looked after as any.
func (l *planner) prepare(m member) {
	if k := l.Containers[m.Name].Known; k != nil && l.present(k) && (k.State == Running || k.State == Unknown) {
		l.keep(m, *k)
		return
	}
	l.pull(m)
}

// initialized plans the init containers and says whether the main ones may
// run: each regular one has succeeded in this sandbox, each sidecar has
// started (behaviour rows 1.4-2, 1.4-5).
func (l *planner) initialized() bool {
	list := inits(l.Spec)
	front := l.front(list)
	for i, m := range list {
		switch {
		case i > front:
			return false
		case m.role == sidecar:
			l.advance(m)
			if i == front && !l.begun(m) {
				l.wait("sidecar %s has not started", m.Name)
				return false
			}
		case i == front:
			if k := l.Containers[m.Name].Known; k != nil && l.present(k) && k.State == Exited && k.ExitCode == 0 {
				continue
			}
			l.advance(m)
			l.wait("init container %s has not succeeded", m.Name)
			return false
		}
	}
	return true
}

// front is the index of the init container whose turn it is; its length when
// all have had theirs. The newest one with an instance in this sandbox proves
// those before it, whose records may be gone.
func (l *planner) front(list []member) int {
	if l.mainsBegan() {
		return len(list)
	}
	front := 0
	for i, m := range list {
		if k := l.Containers[m.Name].Known; k != nil && l.present(k) {
			front = i
			if m.role == initial && k.State == Exited && k.ExitCode == 0 || m.role == sidecar && l.begun(m) {
				front = i + 1
			}
		}
	}
	return front
}

// begun says that the container runs and its startup probe and hook let those
// behind it go on.
func (l *planner) begun(m member) bool {
	mem := l.Containers[m.Name]
	return mem.Known != nil && l.present(mem.Known) && mem.Tried && l.isStarted(m)
}

// advance takes the next step of one container: its end when it is not what
// is wanted, or its image, its creation, its start, its hook. It says whether
// there is one: none when the container has ended or backs off.
func (l *planner) advance(m member) bool {
	mem := l.Containers[m.Name]
	if l.creating(m.Name) {
		return true
	}
	if k := mem.Known; k != nil && l.present(k) {
		switch k.State {
		case Running, Unknown:
			l.keep(m, *k)
			return true
		case Created:
			l.start(m, *k)
			return true
		}
		if l.aborted(*k) && has(l.View, k.ID) {
			l.do(Action{Kind: Remove, Container: m.Name, ID: k.ID, Why: "its start was given up before it ran"})
			return true
		}
	}
	if !l.startNow(m) {
		return false
	}
	if l.resizing() {
		l.wait("container %s waits for the pod's resize", m.Name)
		return true
	}
	if mem.Image == "" {
		l.do(Action{Kind: Pull, Container: m.Name, Image: m.Image, Why: string(m.ImagePullPolicy)})
		return true
	}
	l.do(Action{Kind: Create, Container: m.Name, ID: l.View.Sandboxes[0].ID, Image: mem.Image, Attempt: l.attempt(mem), Why: "the container is to run"})
	return true
}

// creating says that an instance is being made. The runtime may show it before
// the call has returned; it is not touched until then.
func (l *planner) creating(name string) bool {
	_, ok := l.Doing[Action{Kind: Create, Container: name}.Key()]
	return ok
}

// attempt is the number of the next instance, which is also its log's: one
// more than any before it.
func (l *planner) attempt(mem Memory) uint32 {
	if mem.Unmade {
		return uint32(mem.Restarts)
	}
	if mem.Ran || mem.Known != nil || mem.Last != nil {
		return uint32(mem.Restarts) + 1
	}
	return 0
}

// start starts a created instance. One whose definition changed meanwhile, or
// perhaps its resources, or whose start has failed, gives way to the next; but not if the runtime may
// still be starting it: it is asked again until it says.
func (l *planner) start(m member, c Container) {
	mem := l.Containers[m.Name]
	if l.inFlight(Start, c.ID) || l.inFlight(Remove, c.ID) {
		return // what comes next depends on how it ends
	}
	f := mem.Failure
	failed := f != nil && f.Reason == startFailed
	if failed && f.Uncertain && f.Retry.After(l.now) {
		l.waitUntil(f.Retry, "container %s: %s", m.Name, prefix(f.Reason, f.Message))
		return
	}
	unsure := l.Unsure(m.Name, c.ID)
	if unsure && l.resizing() {
		l.wait("container %s waits for the pod's resize", m.Name)
		return
	}
	outgrown := unsure && l.Resize.Actuated != nil
	if !(failed && f.Uncertain) && (failed || l.changed(c) || outgrown) {
		l.do(Action{Kind: Remove, Container: m.Name, ID: c.ID, Why: "it was created but will not be started"})
		return
	}
	l.do(Action{Kind: Start, Container: m.Name, ID: c.ID, Why: "created"})
}

// Waiting reasons that decide what is done next (behaviour row 1.3-18).
const (
	// startFailed is of a container whose start the runtime refused.
	startFailed = "RunContainerError"
	// configFailed is of one whose spec cannot be met now: perhaps an object
	// that it refers to is missing.
	configFailed = "CreateContainerConfigError"
)

// keep looks after a running instance: its postStart hook, and its end when
// the definition changed or a probe or hook failed.
func (l *planner) keep(m member, c Container) {
	inst := l.Containers[m.Name].Instance
	if why, grace := l.doomed(m, c); why != "" {
		l.kill(c, why, grace)
		return
	}
	if inst.ID == c.ID && inst.PostStart == HookPending {
		l.do(Action{Kind: PostStart, Container: m.Name, ID: c.ID, Why: "postStart"})
		l.wait("postStart of container %s", m.Name)
	}
}

// doomed says why a running instance is to be ended although the pod goes on,
// and with what grace (behaviour rows 1.5-1, 1.5-8, 1.6-20).
func (l *planner) doomed(m member, c Container) (why string, grace time.Duration) {
	inst := l.Containers[m.Name].Instance
	grace = specGrace(l.Spec)
	switch {
	case c.State == Unknown:
		return "Container is in unknown state, try killing it before restart", grace
	case l.changed(c):
		return "Container " + m.Name + " definition changed, will be restarted", grace
	case l.needsRestart(m, c):
		return "Container " + m.Name + " resize requires restart", grace
	case inst.ID != c.ID:
		return "", 0
	case inst.PostStart == HookFailed:
		return "FailedPostStartHook", grace
	case inst.Liveness == Fail:
		return "Container " + m.Name + " failed liveness probe, will be restarted", l.graceOf(m.LivenessProbe)
	case inst.Startup == Fail:
		return "Container " + m.Name + " failed startup probe, will be restarted", l.graceOf(m.StartupProbe)
	}
	return "", 0
}
