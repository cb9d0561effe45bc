package stats

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cgroups"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Pods are all pods that the agent runs, as they are now.
type Pods interface{ Pods() []pod.Pod }

// Places are the cgroups that pods are put in.
type Places interface {
	// Parent is the pod's cgroup, "" if the runtime puts it where it likes.
	Parent(*v1.Pod) string
	// Tiers are kubepods and the tiers below it, in that order.
	Tiers() []string
}

// Depth is how much is read of each cgroup.
type Depth int

const (
	// Usage is CPU, memory, swap, processes, network and, on v2, pressure.
	Usage Depth = iota
	// Full has, beyond that, what /metrics/cadvisor tells: throttling, all
	// limits, disk traffic, threads, descriptors, out-of-memory kills; and the
	// cgroups of sandboxes.
	Full
)

const (
	// shared is how old a sample may be for somebody else to be given it too.
	shared = time.Second
	// patience is how long one round of reading is waited for. What doesn't
	// answer within it is told from its last sample.
	patience = 2 * time.Second
	// window is the least time that a rate is taken over, once there is as much:
	// several scrapers must not make each other's rates jump.
	window = 5 * time.Second
	// limitsAge is how old what a cgroup is held to, and the descriptors it holds,
	// may be: half of the work is about that, and it hardly changes.
	limitsAge = 15 * time.Second
	// stillAge is how old figures may be of a cgroup in which nothing has run since.
	stillAge = time.Minute
	// settled is how long after something ran the kernel has given back what it held
	// for it, and summed its figures.
	settled = 3 * time.Second
	// remembered is how long a sample counts as the one before.
	remembered = 10 * time.Minute
)

// Sampler reads cgroups when somebody asks, and at no other time.
type Sampler struct {
	pods    Pods
	places  Places
	systems []System
	files   hierarchies
	boot    time.Time

	flight singleflight.Group
	mu     sync.Mutex
	newest [Full + 1]round
	units  map[string]*unit // by key
}

// NewSampler looks at where the machine's cgroups are, and reads none.
func NewSampler(pods Pods, places Places, systems []System) (*Sampler, error) {
	facts, err := cgroups.Check()
	if err != nil {
		return nil, err
	}
	return &Sampler{
		pods: pods, places: places, systems: systems, boot: bootTime(), units: map[string]*unit{},
		files: hierarchies{v2: facts.Version == "v2", dir: facts.Dir},
	}, nil
}

// System is a cgroup of the machine's own programs.
type System struct {
	Name   string // in /stats/summary: kubelet, runtime, misc
	Cgroup string
	// Started is when it began, zero for when its cgroup was made.
	Started time.Time
}

// round is all that was read at one time.
type round struct {
	at         time.Time
	containers []Container
}

// unit is what is read in one go: a pod with its containers, or one other
// cgroup. One that doesn't answer holds up only itself.
type unit struct {
	key  string
	read func(*reader, *unit, Depth) reading
	// busy says that somebody is reading it; only the reader touches names,
	// past and began meanwhile.
	busy bool
	last map[string]rate       // by cgroup
	good [Full + 1][]Container // as last read with that depth
	// names of the cgroups of containers by their IDs.
	names map[string]string
	past  map[string]past // by cgroup
	began time.Time
}

// rate of CPU use since base, or, as long as there is none, since last, the
// newest point that is to be the next base.
type rate struct {
	base, last point
	nanoCores  *uint64
}

type point struct {
	at    time.Time
	usage uint64 // ns of CPU time
}

// Sample reads all cgroups that matter: the machine, the tiers, the system's,
// and of each pod with a running container its own and those of its containers.
// Whoever asks within a second of another is given the same. Nothing in it may be
// altered. The order is: machine, tiers, systems, then pod by pod.
func (s *Sampler) Sample(ctx context.Context, depth Depth) ([]Container, error) {
	type answer struct {
		depth Depth
		all   []Container
	}
	for {
		if all, ok := s.recent(depth); ok {
			return all, nil
		}
		// One round at a time: two would take each other's units.
		done := s.flight.DoChan("round", func() (any, error) {
			if all, ok := s.recent(depth); ok {
				return answer{depth, all}, nil
			}
			return answer{depth, s.round(depth)}, nil
		})
		select {
		case r := <-done:
			if got := r.Val.(answer); got.depth >= depth { // else it was for somebody who needs less
				return got.all, nil
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("read cgroups: %w", ctx.Err())
		}
	}
}

func (s *Sampler) recent(depth Depth) ([]Container, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d := depth; d <= Full; d++ {
		if r := s.newest[d]; time.Since(r.at) < shared {
			return r.containers, true
		}
	}
	return nil, false
}

// reading is what came of reading one unit. What has gone is in neither.
type reading struct {
	containers []Container
	failed     []string // cgroups that are there and couldn't be read
}

// round reads everything once, side by side on the machine's cores.
func (s *Sampler) round(depth Depth) []Container {
	began := time.Now()
	units, todo := s.begin()
	queue := make(chan *unit, len(todo))
	for _, u := range todo {
		queue <- u
	}
	close(queue)
	done := make(chan struct{}, len(todo)) // so that one that comes too late ends
	for range min(runtime.GOMAXPROCS(0), len(todo)) {
		go func() {
			var r reader
			for u := range queue {
				s.end(u, depth, u.read(&r, u, depth))
				done <- struct{}{}
			}
		}()
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	for range todo {
		select {
		case <-done:
			continue
		case <-late.C:
			s.leave(queue)
		}
		break
	}
	return s.finish(units, began, depth)
}

// leave gives up on the units that nobody has begun to read, as all readers hang:
// the next round has readers of its own.
func (s *Sampler) leave(queue <-chan *unit) {
	for u := range queue {
		s.mu.Lock()
		u.busy = false
		s.mu.Unlock()
	}
}

// begin lists what is to be read, and marks it; a unit that an earlier round is
// still reading is not read again.
func (s *Sampler) begin() (units, todo []*unit) {
	wanted := s.wanted()
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[string]*unit{}
	for _, w := range wanted {
		u := s.units[w.key]
		if u == nil {
			u = &unit{key: w.key, last: map[string]rate{}, names: map[string]string{}, past: map[string]past{}}
		}
		known[u.key] = u
		units = append(units, u)
		if !u.busy {
			u.busy, u.read = true, w.read
			todo = append(todo, u)
		}
	}
	s.units = known
	return units, todo
}

// end keeps what was read, with its rates, and the last good sample of what
// couldn't be.
func (s *Sampler) end(u *unit, depth Depth, got reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.busy = false
	rates := make(map[string]rate, len(got.containers))
	for i := range got.containers {
		c := &got.containers[i]
		r := u.last[c.Cgroup].next(point{c.Stats.Timestamp, c.Stats.Cpu.Usage.Total})
		c.NanoCores = r.nanoCores
		rates[c.Cgroup] = r
	}
	for _, c := range u.good[depth] {
		if slices.Contains(got.failed, c.Cgroup) {
			got.containers = append(got.containers, c)
			rates[c.Cgroup] = u.last[c.Cgroup]
		}
	}
	u.last = rates
	for d := range depth + 1 { // who asks for less is content with more
		u.good[d] = got.containers
	}
}

func (s *Sampler) finish(units []*unit, began time.Time, depth Depth) []Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Container
	for _, u := range units {
		all = append(all, u.good[depth]...)
	}
	s.newest[depth] = round{began, all}
	return all
}

// next takes a new point. One that comes within the window of the last is
// compared with the base, and takes nobody's place.
func (r rate) next(p point) rate {
	switch gap := p.at.Sub(r.last.at); {
	case r.last.at.IsZero(), p.usage < r.last.usage, gap > remembered: // nothing to compare with
		return rate{last: p}
	case gap >= window:
		r.base, r.last = r.last, p
	}
	from := r.base
	if from.at.IsZero() {
		from = r.last
	}
	r.nanoCores = nil
	if d := p.at.Sub(from.at); d > 0 {
		n := uint64(float64(p.usage-from.usage) / d.Seconds())
		r.nanoCores = &n
	}
	return r
}
