package syncloop

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// machine is the runtime's state: what containerd would know. All its methods
// are called with world.mu held.
type machine struct {
	world      *world
	sandboxes  map[string]*sandbox
	containers map[string]*container
	names      map[string]string // reserved names, to the ID they are reserved for
	images     map[string]bool
	logs       map[types.UID]map[string]int32
	made       int
	down       chan struct{} // closed while the runtime is down
	streams    map[*stream]bool
	noEvents   bool
	// needs is the pod whose first container must run for other sandboxes to
	// come up, as with the driver of a network; "" for none.
	needs types.UID
}

type sandbox struct {
	pod.Sandbox
	pod  *v1.Pod
	late bool // made after its caller had given up
}

type container struct {
	pod.Container
	pod   *v1.Pod
	milli int64 // its CPU request
	// The runtime updates an instance under a lock, in the order it was asked
	// to: the number of the newest call for it, and of the newest that was done.
	updates, updated int
	life             life
	timer            *time.Timer // its own end
	// starting counts the start calls that the runtime is at.
	starting int
	ended    chan struct{} // closed when it has ended
}

func newMachine(w *world) *machine {
	return &machine{
		world: w, sandboxes: map[string]*sandbox{}, containers: map[string]*container{}, names: map[string]string{},
		images: map[string]bool{}, logs: map[types.UID]map[string]int32{}, down: make(chan struct{}), streams: map[*stream]bool{},
	}
}

// life is what a container does, as its image says: "run=5s,exit=1,term=2s".
// Without run it runs for ever, and its probes find it well from up and until ill;
// without term it ends at TERM at once, and with
// term=never only by force.
type life struct {
	run, term time.Duration
	up, ill   time.Duration // its server answers from and until then
	exit      int32
	ignores   bool
}

func lifeOf(image string) life {
	var l life
	for _, part := range strings.Split(image, ",") {
		key, value, _ := strings.Cut(part, "=")
		d, _ := time.ParseDuration(value)
		switch {
		case key == "run":
			l.run = d
		case key == "up":
			l.up = d
		case key == "ill":
			l.ill = d
		case key == "exit":
			fmt.Sscan(value, &l.exit)
		case key == "term" && value == "never":
			l.ignores = true
		case key == "term":
			l.term = d
		}
	}
	return l
}

func sandboxName(p *v1.Pod, attempt uint32) string { return fmt.Sprintf("%s_%d", p.UID, attempt) }

func containerName(p *v1.Pod, name string, attempt uint32) string {
	return fmt.Sprintf("%s_%s_%d", p.UID, name, attempt)
}

// reserve takes a name for something that is to be made.
func (m *machine) reserve(name string) (id string, err error) {
	if other, ok := m.names[name]; ok {
		return "", fmt.Errorf("failed to reserve name: name %q is reserved for %q", name, other)
	}
	m.made++
	id = fmt.Sprintf("%s#%d", name, m.made)
	m.names[name] = id
	return id, nil
}

func (m *machine) addSandbox(id string, p *v1.Pod, attempt uint32) *sandbox {
	s := &sandbox{pod: p, Sandbox: pod.Sandbox{ID: id, Attempt: attempt, Ready: true, HostNetwork: p.Spec.HostNetwork,
		IPs: []string{fmt.Sprintf("10.0.0.%d", m.made)}, CreatedAt: time.Now()}}
	m.sandboxes[id] = s
	m.world.say("runtime: sandbox %s is up", id)
	return s
}

func (m *machine) addContainer(id string, p *v1.Pod, r cri.CreateRequest) (*container, error) {
	s := m.sandboxes[r.SandboxID]
	if s == nil || !s.Ready {
		return nil, fmt.Errorf("sandbox %s does not run", r.SandboxID)
	}
	spec := pod.FindContainer(p, r.Container)
	c := &container{pod: p, milli: milliOf(p, r.Container), life: lifeOf(spec.Image), ended: make(chan struct{}), Container: pod.Container{
		ID: id, Name: r.Container, SandboxID: r.SandboxID, Attempt: r.Attempt, State: pod.Created,
		Image: spec.Image, ImageRef: r.ImageRef, Hash: cri.Hash(spec), CreatedAt: time.Now(),
	}}
	m.containers[id] = c
	m.world.say("runtime: container %s is created", id)
	return c, nil
}

func (m *machine) startContainer(id string) (*container, error) {
	c := m.containers[id]
	switch {
	case c == nil:
		return nil, fmt.Errorf("container %s is gone", id)
	case c.State != pod.Created:
		return nil, fmt.Errorf("container %s was started before", id)
	case m.sandboxes[c.SandboxID] == nil || !m.sandboxes[c.SandboxID].Ready:
		return nil, fmt.Errorf("sandbox %s does not run", c.SandboxID)
	}
	c.State, c.StartedAt = pod.Running, time.Now()
	if m.logs[c.pod.UID] == nil {
		m.logs[c.pod.UID] = map[string]int32{}
	}
	m.logs[c.pod.UID][c.Name] = max(m.logs[c.pod.UID][c.Name], int32(c.Attempt))
	m.world.say("runtime: container %s runs", id)
	if c.life.run > 0 {
		c.timer = m.world.after(c.life.run, func() { m.exit(c, c.life.exit) })
	}
	return c, nil
}

// exit ends a running container.
func (m *machine) exit(c *container, code int32) {
	if c.State != pod.Running {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.State, c.FinishedAt, c.ExitCode, c.Reason = pod.Exited, time.Now(), code, "Error"
	if code == 0 {
		c.Reason = "Completed"
	}
	close(c.ended)
	m.world.say("runtime: container %s ended with %d", c.ID, code)
	m.tell(c.pod.UID)
}

// term asks a container to end, and kills it after grace.
func (m *machine) term(c *container, grace time.Duration) {
	if c.State == pod.Running && !c.life.ignores {
		m.world.after(c.life.term, func() { m.exit(c, 143) })
	}
	m.world.after(grace, func() { m.exit(c, 137) })
}

// stopSandbox ends a sandbox and all in it by force.
func (m *machine) stopSandbox(s *sandbox) {
	for _, c := range m.inside(s.ID) {
		m.exit(c, 137)
	}
	if s.Ready {
		s.Ready = false
		m.world.say("runtime: sandbox %s is down", s.ID)
		m.tell(s.pod.UID)
	}
}

func (m *machine) removeSandbox(s *sandbox) {
	m.stopSandbox(s)
	for _, c := range m.inside(s.ID) {
		m.removeContainer(c)
	}
	delete(m.sandboxes, s.ID)
	delete(m.names, sandboxName(s.pod, s.Attempt))
	m.world.say("runtime: sandbox %s is removed", s.ID)
	m.tell(s.pod.UID)
}

func (m *machine) removeContainer(c *container) {
	if c.State == pod.Running {
		m.exit(c, 137)
	}
	delete(m.containers, c.ID)
	delete(m.names, containerName(c.pod, c.Name, c.Attempt))
	m.world.say("runtime: container %s is removed", c.ID)
	m.tell(c.pod.UID)
}

// inside are the containers of a sandbox, in a stable order.
func (m *machine) inside(sandboxID string) []*container {
	var out []*container
	for _, id := range slices.Sorted(maps.Keys(m.containers)) {
		if c := m.containers[id]; c.SandboxID == sandboxID {
			out = append(out, c)
		}
	}
	return out
}

// found is all that the runtime shows.
func (m *machine) found() map[types.UID]cri.Found {
	out := map[types.UID]cri.Found{}
	entry := func(p *v1.Pod) cri.Found {
		if f, ok := out[p.UID]; ok {
			return f
		}
		grace := time.Duration(*p.Spec.TerminationGracePeriodSeconds) * time.Second
		return cri.Found{Name: p.Name, Namespace: p.Namespace, UID: p.UID, Annotations: p.Annotations, Grace: grace}
	}
	for _, id := range slices.Sorted(maps.Keys(m.sandboxes)) {
		s := m.sandboxes[id]
		f := entry(s.pod)
		f.View.Sandboxes = append(f.View.Sandboxes, s.Sandbox)
		out[s.pod.UID] = f
	}
	for _, id := range slices.Sorted(maps.Keys(m.containers)) {
		c := m.containers[id]
		f := entry(c.pod)
		f.View.Containers = append(f.View.Containers, c.Container)
		out[c.pod.UID] = f
	}
	for uid, f := range out {
		slices.SortFunc(f.View.Sandboxes, func(a, b pod.Sandbox) int { return b.CreatedAt.Compare(a.CreatedAt) })
		slices.SortFunc(f.View.Containers, func(a, b pod.Container) int { return b.CreatedAt.Compare(a.CreatedAt) })
		out[uid] = f
	}
	return out
}

// alive are the IDs of what runs, by pod; none for a pod that is but left.
func (m *machine) alive() map[types.UID][]string {
	out := map[types.UID][]string{}
	for uid, f := range m.found() {
		out[uid] = living(f.View)
	}
	return out
}

// serves says whether the pod that others need runs.
func (m *machine) serves() bool {
	for _, c := range m.containers {
		if c.pod.UID == m.needs && c.State == pod.Running && c.Name == c.pod.Spec.Containers[0].Name {
			return true
		}
	}
	return m.needs == ""
}

// stream is a client that listens to events.
type stream struct {
	changed func(types.UID)
	agent   int
}

// tell sends an event about a pod to all listeners: soon, late, twice or not
// at all.
func (m *machine) tell(uid types.UID) {
	for s := range m.streams {
		d := m.world.dice("event %s to %d", uid, s.agent)
		delay := between(d, 0, 20*time.Millisecond)
		times := 1
		if !m.world.quiet {
			switch {
			case chance(d, 10):
				times = 0
			case chance(d, 10):
				delay = between(d, time.Second, 30*time.Second)
			case chance(d, 10):
				times = 2
			}
		}
		for range times {
			m.world.after(delay, func() {
				if m.streams[s] {
					s.changed(uid)
				}
			})
			delay += between(d, 0, 5*time.Second)
		}
	}
}
