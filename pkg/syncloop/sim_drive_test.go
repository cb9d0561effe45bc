package syncloop

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/objects"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
)

const slotCount = 2

// startAgent starts a process of the agent from what the machine holds.
func (w *world) startAgent() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.agents++
	a := &agent{world: w, number: w.agents, dead: make(chan struct{}), ended: make(chan struct{}), busy: map[string]int{}, series: metrics.New(metrics.Build{})}
	known := w.disk.known()
	a.known, a.began = maps.Clone(known), time.Now()
	w.checks.begin(known)
	names := slices.Sorted(maps.Keys(w.sources))
	a.loop = New(Config{
		Runtime: a, Volumes: a, Cgroups: groups{a}, Records: records{a}, Probes: probes{a}, Hooks: hooks{a}, Objects: &objects.Store{}, Log: slog.New(slog.DiscardHandler),
		States: states{a}, Allocated: maps.Clone(w.disk.states), Actuated: maps.Clone(w.disk.actuated),
		Sources: names, Known: known, Offline: Offline{Boot: w.bootID(), Start: w.cluster.start}, Ledger: ledger.Ledger{
			Allocatable: capacity, Users: ledger.Users{First: 65536, Length: 65536, Count: 40, Held: maps.Clone(w.disk.users)},
		}, Slots: slotCount, Timeout: callLimit,
		Node:      pod.Node{Name: "n1", HostIPs: []string{"192.168.0.1"}},
		Connected: func(context.Context) error { return nil },
		Metrics:   a.series.Pods, Attempts: a.series.Probes,
	})
	w.agent = a
	w.say("agent %d starts with %d records", a.number, len(known))
	var ctx context.Context
	ctx, a.cancel = context.WithCancel(context.Background())
	updates := make(chan source.Update)
	for _, name := range names {
		d := w.dice("late %s", name)
		late := time.Duration(0)
		if chance(d, 50) {
			late = between(d, 0, 20*time.Second)
		}
		go w.sources[name].deliver(ctx, w, late, updates)
	}
	go func() {
		defer close(a.ended)
		_ = a.loop.Run(ctx, updates) // it only ends with ctx
	}()
}

// stopAgent ends the agent: as kill -9 does, or by asking.
func (w *world) stopAgent(kill bool) {
	w.locked(func() {
		w.say("agent %d is stopped, kill=%v", w.agent.number, kill)
		if kill {
			close(w.agent.dead)
		}
		w.agent.cancel()
	})
	began := time.Now()
	<-w.agent.ended
	w.locked(func() {
		// A write that is under way may take 10 s, and so may the last one of the
		// files for other agents, which comes after it.
		if took := time.Since(began); took > 25*time.Second {
			w.violated("the agent took %s to stop", took)
		}
	})
}

// step is something that happens from outside at a time.
type step struct {
	at time.Duration
	do func()
}

// prepare draws the machine, the first pods and what will happen.
func (w *world) prepare() (steps []step, calm time.Duration) {
	r := rand.New(rand.NewPCG(w.seed, 1))
	calm = between(r, time.Minute, 6*time.Minute)
	w.runtime.noEvents = chance(r, 15)
	w.sources["file"], w.sources["http"] = newOrigins("file"), newOrigins("http")
	var drafts []*draft
	owner := map[*draft]*origins{}
	for i := range 3 + r.IntN(6) {
		d := newDraft(r, i)
		drafts = append(drafts, d)
		owner[d] = w.sources[[]string{"file", "http"}[r.IntN(2)]]
	}
	if chance(r, 20) {
		w.makeNeeded(drafts[0])
	}
	add := func(at time.Duration, do func()) { steps = append(steps, step{at, func() { w.locked(do) }}) }
	for _, d := range drafts {
		at := time.Duration(0)
		if chance(r, 50) {
			at = between(r, 0, calm)
		}
		add(at, func() { w.put(owner[d], d) })
		for range r.IntN(4) {
			if d == drafts[0] && w.runtime.needs != "" {
				break
			}
			w.meddle(r, add, between(r, at, calm), owner[d], d)
		}
	}
	w.faults(r, add, calm)
	for range r.IntN(4) {
		at, kill, pause, lose := between(r, 0, calm), chance(r, 80), between(r, 0, 30*time.Second), chance(r, 15)
		steps = append(steps, step{at, func() {
			w.stopAgent(kill)
			if lose && kill {
				w.locked(w.disk.lose)
			}
			time.Sleep(pause)
			w.startAgent()
		}})
	}
	for _, at := range w.join(add, calm) {
		steps = append(steps, step{at, func() {
			w.stopAgent(true)
			w.locked(w.reboot)
			w.startAgent()
		}})
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	return steps, calm
}

// makeNeeded makes the pod one that all others wait for.
func (w *world) makeNeeded(d *draft) {
	d.static = false
	d.pod.Name = "needed"
	d.pod.Spec.InitContainers = nil
	d.pod.Spec.Containers = d.pod.Spec.Containers[:1]
	c := &d.pod.Spec.Containers[0]
	c.Image, c.Ports, c.Lifecycle = "term=1s", nil, nil
	c.StartupProbe, c.LivenessProbe, c.ReadinessProbe = nil, nil, nil
	d.pod.Spec.RestartPolicy, d.pod.Spec.ActiveDeadlineSeconds = "Always", nil
	c.Resources.Requests, d.pod.Spec.HostUsers = nil, nil
	w.runtime.needs = d.pod.UID
}

func (w *world) put(o *origins, d *draft) {
	w.say("%s: %s is put, version %d", d.origin, d.pod.UID, d.version)
	uid := o.put(d)
	for _, c := range d.pod.Spec.Containers {
		delete(w.checks.backoff, string(uid)+"/"+c.Name) // a changed one begins anew
	}
}

// meddle draws one change of a source.
func (w *world) meddle(r *rand.Rand, add func(time.Duration, func()), at time.Duration, o *origins, d *draft) {
	pause := between(r, 100*time.Millisecond, time.Minute)
	switch r.IntN(6) {
	case 0:
		resize := chance(r, 60)
		add(at, func() {
			if d.change(w.dice("change %s", d.origin)); resize {
				d.resize(w.dice("resize %s", d.origin))
			}
			w.put(o, d)
		})
	case 4, 5:
		add(at, func() { d.resize(w.dice("resize %s", d.origin)); w.put(o, d) })
	case 1:
		add(at, func() { w.say("%s is removed", d.origin); o.remove(d.origin) })
	case 2:
		add(at, func() { w.say("%s is removed, and comes back", d.origin); o.remove(d.origin) })
		add(at+pause, func() { w.put(o, d) })
	case 3:
		add(at, func() { w.say("%s cannot be read", d.origin); o.held[d.origin] = true; o.touch() })
		add(at+pause, func() { w.say("%s can be read", d.origin); delete(o.held, d.origin); o.touch() })
	}
}

// faults draws what befalls the runtime.
func (w *world) faults(r *rand.Rand, add func(time.Duration, func()), calm time.Duration) {
	m := w.runtime
	last := time.Duration(0)
	for n := r.IntN(3); n > 0 && last < calm; n-- {
		at := between(r, last, calm)
		last = at + between(r, 100*time.Millisecond, 40*time.Second)
		dies := chance(r, 30)
		add(at, func() {
			w.say("runtime: goes down, all dies: %v", dies)
			close(m.down)
			clear(m.streams)
			if dies {
				for _, id := range slices.Sorted(maps.Keys(m.sandboxes)) {
					m.stopSandbox(m.sandboxes[id])
				}
			}
		})
		add(last, func() { w.say("runtime: is back"); m.down = make(chan struct{}) })
		last++
	}
	for range r.IntN(8) {
		at, kind := between(r, 0, calm), r.IntN(3)
		add(at, func() { m.befall(w.dice("befall"), kind) })
	}
}

// befall has a container die or vanish, or a sandbox die.
func (m *machine) befall(d *rand.Rand, kind int) {
	containers, sandboxes := slices.Sorted(maps.Keys(m.containers)), slices.Sorted(maps.Keys(m.sandboxes))
	if len(containers) == 0 {
		return
	}
	c := m.containers[containers[d.IntN(len(containers))]]
	s := m.sandboxes[sandboxes[d.IntN(len(sandboxes))]]
	switch kind {
	case 0:
		m.world.say("fault: %s dies", c.ID)
		m.exit(c, 1)
	case 1:
		m.world.say("fault: %s vanishes", c.ID)
		m.removeContainer(c)
	case 2:
		m.world.say("fault: %s dies", s.ID)
		m.stopSandbox(s)
	}
}

// run lives through one seed.
func (w *world) run() {
	steps, calm := w.prepare()
	w.startAgent()
	for _, s := range steps {
		time.Sleep(s.at - time.Since(w.begin))
		s.do()
	}
	time.Sleep(calm - time.Since(w.begin))
	w.locked(func() {
		w.say("no more faults")
		w.quiet = true
	})
	if len(w.wrong) == 0 {
		w.settle()
		w.locked(w.checkSeries)
	}
	w.stopAgent(false)
}
