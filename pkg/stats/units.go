package stats

import (
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	info "github.com/google/cadvisor/info/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// wanted are the units that are to be read now.
func (s *Sampler) wanted() []unit {
	units := []unit{{key: "/", read: func(r *reader, u *unit, d Depth) reading { return s.machine(r, u, d) }}}
	for _, tier := range s.places.Tiers() {
		units = append(units, s.single(KindTier, System{Cgroup: tier}))
	}
	for _, system := range s.systems {
		units = append(units, s.single(KindSystem, system))
	}
	for _, p := range s.pods.Pods() {
		if parent := s.places.Parent(p.Spec); parent != "" && (len(running(p)) > 0 || networked(p)) {
			units = append(units, unit{key: parent, read: func(r *reader, u *unit, d Depth) reading {
				return s.pod(r, u, p, parent, d)
			}})
		}
	}
	return units
}

// running are the pod's containers that run, oldest first.
func running(p pod.Pod) []pod.Container {
	var out []pod.Container
	for _, c := range slices.Backward(p.View.Containers) {
		if c.State == pod.Running {
			out = append(out, c)
		}
	}
	return out
}

func ids(containers []pod.Container) (out []string) {
	for _, c := range containers {
		out = append(out, c.ID)
	}
	return out
}

// networked says whether the pod's sandbox is up, whose network counts on while
// containers restart.
func networked(p pod.Pod) bool { return len(p.View.Sandboxes) > 0 && p.View.Sandboxes[0].Ready }

// single is a cgroup that stands for itself.
func (s *Sampler) single(kind Kind, system System) unit {
	return unit{key: system.Name + system.Cgroup, read: func(r *reader, u *unit, d Depth) reading {
		c := Container{Kind: kind, Cgroup: system.Cgroup, Name: system.Name, Started: system.Started}
		if c.Started.IsZero() {
			c.Started = s.began(u, system.Cgroup)
		}
		return s.one(r, u, c, d)
	}}
}

// began is when a cgroup was made, as far as it can be told: a folder of it is as
// old as when somebody first looked.
func (s *Sampler) began(u *unit, cgroup string) time.Time {
	if u.began.IsZero() {
		u.began = time.Now()
		for _, controller := range []string{"", "cpu", "memory"} {
			if info, err := os.Stat(s.files.dir(controller, cgroup)); err == nil && info.ModTime().Before(u.began) {
				u.began = info.ModTime()
			}
		}
	}
	return u.began
}

// past is what was read of a cgroup before.
type past struct {
	limits  limits
	figures figures
}

// limits are what a cgroup is held to, and the descriptors it holds.
type limits struct {
	at    time.Time
	depth Depth
	spec  info.ContainerSpec
	holds info.ProcessStats
}

// figures are those of a cgroup, all read at once.
type figures struct {
	stats *info.ContainerStats
	depth Depth
	since time.Time // when its CPU time and memory were first seen to be these
}

// same says that nothing ran in the cgroup since, by its CPU time and memory now.
func (f figures) same(now *info.ContainerStats) bool {
	return f.stats != nil && now.Cpu.Usage.Total == f.stats.Cpu.Usage.Total && now.Memory.Usage == f.stats.Memory.Usage
}

// hold says that they are still true where nothing ran since, nor for a while
// before they were read: only those who run in a cgroup change them.
func (f figures) hold(now time.Time, d Depth) bool {
	return f.depth >= d && f.stats.Timestamp.Sub(f.since) >= settled && now.Sub(f.stats.Timestamp) <= stillAge
}

// repeat has them said again. The kernel's averages of pressure and what others
// write to disk on its behalf go on changing.
func (f figures) repeat(now *info.ContainerStats) {
	cpu, memory := now.Cpu.PSI, now.Memory.PSI
	now.Cpu, now.Memory, now.Processes, now.OOMEvents = f.stats.Cpu, f.stats.Memory, f.stats.Processes, f.stats.OOMEvents
	now.Cpu.PSI, now.Memory.PSI = cpu, memory
}

// one reads the figures of one cgroup.
func (s *Sampler) one(r *reader, u *unit, c Container, d Depth) reading {
	r.err = nil
	f := files{hierarchies: s.files, cgroup: c.Cgroup}
	defer f.close()
	c.Stats = &info.ContainerStats{}
	if !f.usage(r, c.Stats) && r.err == nil {
		return reading{}
	}
	now := c.Stats.Timestamp
	known := u.past[c.Cgroup]
	if known.limits.depth < d || now.Sub(known.limits.at) > limitsAge {
		known.limits = limits{at: now, depth: d}
		f.limits(r, &known.limits, d)
	}
	spec := known.limits.spec // each sample has its own: more is said of it later
	spec.CreationTime, spec.Image = c.Started, c.Image
	spec.HasProcesses = spec.HasProcesses || c.Kind == KindContainer
	c.Spec = &spec
	same := known.figures.same(c.Stats)
	if !same {
		known.figures.since = now
	}
	if same && known.figures.hold(now, d) {
		known.figures.repeat(c.Stats)
	} else {
		f.figures(r, c, d)
		known.figures.stats, known.figures.depth = c.Stats, d
	}
	if d == Full {
		f.disks(r, &c.Stats.DiskIo)
		p, h := &c.Stats.Processes, &known.limits.holds
		p.FdCount, p.SocketCount, p.Ulimits, p.ThreadsMax = h.FdCount, h.SocketCount, h.Ulimits, h.ThreadsMax
	}
	if r.err != nil {
		return reading{failed: []string{c.Cgroup}}
	}
	u.past[c.Cgroup] = known
	return reading{containers: []Container{c}}
}

// figures reads what is not read yet of a cgroup in which something has run.
func (f *files) figures(r *reader, c Container, d Depth) {
	f.memory(r, &c.Stats.Memory)
	if d == Full || c.Kind == KindContainer {
		c.Stats.Processes.ProcessCount, _ = f.processes(r)
	}
	if d == Full {
		f.rest(r, c.Stats)
	}
}

// pod reads a pod's cgroup, those of its containers, and its network.
func (s *Sampler) pod(r *reader, u *unit, p pod.Pod, parent string, d Depth) reading {
	owner := Container{Kind: KindPod, Cgroup: parent, Namespace: p.Spec.Namespace, Pod: p.Spec.Name, UID: p.Spec.UID, Started: p.Started}
	var sandbox pod.Sandbox
	if len(p.View.Sandboxes) > 0 {
		sandbox = p.View.Sandboxes[0]
		owner.Started = sandbox.CreatedAt
	}
	all := s.one(r, u, owner, d)
	add := func(more reading) {
		all.containers = append(all.containers, more.containers...)
		all.failed = append(all.failed, more.failed...)
	}
	inside := func(kind Kind, id string) (Container, bool) {
		name := u.name(s.files, parent, id)
		c := owner
		c.Kind, c.ID, c.Cgroup = kind, id, path.Join(parent, name)
		return c, name != ""
	}
	net := network{files: s.files}
	if len(all.containers) > 0 && !sandbox.HostNetwork {
		// The sandbox's process is the one that nobody else has a say in; some
		// runtimes do without.
		for _, id := range append([]string{sandbox.ID}, ids(running(p))...) {
			if c, ok := inside(KindSandbox, id); ok && net.tell(r, &all.containers[0], c.Cgroup) {
				break
			}
		}
	}
	if c, ok := inside(KindSandbox, sandbox.ID); ok && d == Full {
		box := s.one(r, u, c, d)
		if len(box.containers) > 0 { // also of one that has the node's network
			net.tell(r, &box.containers[0], c.Cgroup)
		}
		add(box)
	}
	for _, instance := range running(p) {
		c, ok := inside(KindContainer, instance.ID)
		c.Name, c.Image, c.Attempt, c.Started = instance.Name, instance.Image, instance.Attempt, instance.CreatedAt
		if ok {
			add(s.one(r, u, c, d))
		}
	}
	maps.DeleteFunc(u.past, func(cgroup string, _ past) bool {
		return !slices.ContainsFunc(all.containers, func(c Container) bool { return c.Cgroup == cgroup })
	})
	return all
}

// name of the cgroup, below the pod's, that the container of that ID is in; ""
// if there is none. Runtimes and drivers name it by the ID, with or without
// their own name before it and .scope behind it.
func (u *unit) name(h hierarchies, parent, id string) string {
	if id == "" {
		return ""
	}
	if name, ok := u.names[id]; ok {
		return name
	}
	if len(u.names) > 100 { // of containers that are gone by now, mostly
		clear(u.names)
	}
	entries, err := os.ReadDir(h.folder("memory", parent))
	if err != nil {
		return "" // looked for again by the next round
	}
	for _, e := range entries {
		if e.IsDir() && strings.Contains(e.Name(), id) {
			u.names[id] = e.Name()
			return e.Name()
		}
	}
	return ""
}
