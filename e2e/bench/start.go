package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/pkg/local"
)

// serial starts and ends pods one after another, bare and agent in turns.
func (b *bed) serial(ctx context.Context) error {
	s := serialSamples{bareCalls: map[string][]float64{}, calls: map[string][]float64{}}
	for range b.o.samples {
		if b.floor != nil {
			if err := b.bareOnce(ctx, &s); err != nil {
				return err
			}
		}
		if err := b.agentOnce(ctx, &s); err != nil {
			return err
		}
	}
	b.tellSerial(&s)
	return nil
}

// calls are what a pod of one container needs, and the agent's names for them.
var calls = []string{"sandbox", "create", "start"}

// serialSamples are in milliseconds.
type serialSamples struct {
	bareStart, start, cpu        []float64
	noticed, prepared            []float64
	bareCalls, calls             map[string][]float64 // by call
	bareStop, bareDown, bareGone []float64
	stop, down, gone             []float64
}

func (b *bed) bareOnce(ctx context.Context, s *serialSamples) error {
	name := b.name()
	x := b.watch.running(name)
	began := time.Now()
	p, err := b.floor.run(ctx, name)
	if err != nil {
		return err
	}
	e, err := x.wait(ctx)
	if err != nil {
		return err
	}
	s.bareStart = append(s.bareStart, milliseconds(e.at.Sub(began)))
	for i, call := range calls {
		s.bareCalls[call] = append(s.bareCalls[call], milliseconds(p.took[i]))
	}
	if err := pause(ctx, settled); err != nil {
		return err
	}
	end := b.ending(p.container, p.sandbox)
	if err := b.floor.end(ctx, p); err != nil {
		return err
	}
	d, err := end.wait(ctx)
	if err != nil {
		return err
	}
	s.bareStop, s.bareDown, s.bareGone = append(s.bareStop, d.stop), append(s.bareDown, d.down), append(s.bareGone, d.gone)
	return pause(ctx, settled)
}

func (b *bed) agentOnce(ctx context.Context, s *serialSamples) error {
	name, pid := b.name(), b.agent.Pid()
	before, err := cpuTime(pid)
	if err != nil {
		return err
	}
	began := time.Now()
	_, took, err := b.run(ctx, name)
	if err != nil {
		return err
	}
	if err := pause(ctx, settled); err != nil {
		return err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return err
	}
	if err := b.steps(ctx, name, began, s); err != nil {
		return err
	}
	d, err := b.end(ctx, name)
	if err != nil {
		return err
	}
	s.start, s.cpu = append(s.start, milliseconds(took)), append(s.cpu, milliseconds(after-before))
	s.stop, s.down, s.gone = append(s.stop, d.stop), append(s.down, d.down), append(s.gone, d.gone)
	return pause(ctx, 2*settled)
}

// steps enters how long the agent says that it took: to notice the file, to
// be ready for the sandbox, and for the calls that a bare pod needs too.
func (b *bed) steps(ctx context.Context, name string, dropped time.Time, s *serialSamples) error {
	if b.floor == nil {
		return nil
	}
	taken, err := b.taken(ctx, name)
	if err != nil {
		return err
	}
	var first, sandbox time.Time
	for _, step := range taken {
		if first.IsZero() || step.Began.Before(first) {
			first = step.Began
		}
		kind, _, _ := strings.Cut(step.Step, "/")
		if kind == "sandbox" {
			sandbox = step.Began
		}
		if slices.Contains(calls, kind) {
			s.calls[kind] = append(s.calls[kind], milliseconds(time.Duration(step.Took)))
		}
	}
	s.noticed = append(s.noticed, milliseconds(first.Sub(dropped)))
	s.prepared = append(s.prepared, milliseconds(sandbox.Sub(first)))
	return nil
}

// taken are the newest steps that the agent took for a pod, oldest first.
func (b *bed) taken(ctx context.Context, name string) ([]local.Step, error) {
	r, err := local.NewClient(b.agent.Root).Report(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(r.Pods, func(p local.Pod) bool { return p.Name == inRuntime(name) })
	if i < 0 {
		return nil, fmt.Errorf("the agent does not report pod %s", name)
	}
	return r.Pods[i].Steps, nil
}

func (b *bed) tellSerial(s *serialSamples) {
	const (
		start = "one after another: file dropped → container running"
		over  = "— over the bare calls"
		stop  = "deletion of a pod that exits at TERM: → container ended"
		down  = "deletion of a pod that exits at TERM: → sandbox stopped"
		gone  = "deletion of a pod that exits at TERM: → sandbox removed"
		later = "— later than the bare calls"
	)
	who := b.subject.name
	b.table.set(start, who, estimate(median, s.start).text("ms"))
	if b.floor != nil {
		b.table.set(start, "bare", estimate(median, s.bareStart).text("ms"))
		f := estimate(ratio, s.start, s.bareStart)
		b.table.set(over, who, f.text("×")).targeted("≤ 1.15 ×", f.atMost(1.15))
	}
	if b.floor != nil {
		f := estimate(median, s.noticed)
		b.table.set("— file dropped → the pod's first step", who, f.text("ms")).targeted("≤ 2 ms", f.atMost(2))
		f = estimate(median, s.prepared)
		b.table.set("— verdict, folders, cgroup", who, f.text("ms")).targeted("≤ 3 ms", f.atMost(3))
		for _, call := range calls {
			what := "— " + call + ", which is one call when bare"
			b.table.set(what, "bare", estimate(median, s.bareCalls[call]).text("ms"))
			b.table.set(what, who, estimate(median, s.calls[call]).text("ms"))
		}
	}
	b.table.set(stop, who, estimate(median, s.stop).text("ms"))
	b.table.set(down, who, estimate(median, s.down).text("ms"))
	if b.floor != nil {
		b.table.set(gone, who, estimate(median, s.gone).text("ms"))
		b.table.set(stop, "bare", estimate(median, s.bareStop).text("ms"))
		b.table.set(down, "bare", estimate(median, s.bareDown).text("ms"))
		b.table.set(gone, "bare", estimate(median, s.bareGone).text("ms"))
		f := estimate(difference, s.gone, s.bareGone)
		b.table.set(later, who, f.text("ms")).targeted("≤ 25 ms", f.atMost(25))
	}
	b.table.set("processor time per start, one after another", who, estimate(mean, s.cpu).text("ms"))
}

// burstSamples have one value per round.
type burstSamples struct{ rate, wait, cpu []float64 }

// bursts wants many pods at once: by bare calls all at once and four at a
// time, and by the agent.
func (b *bed) bursts(ctx context.Context) error {
	var all, four, agent burstSamples
	for range b.o.rounds {
		if b.floor != nil {
			if err := b.bareBurst(ctx, burst, &all); err != nil {
				return err
			}
			if err := b.bareBurst(ctx, 4, &four); err != nil {
				return err
			}
		}
		if err := b.agentBurst(ctx, &agent); err != nil {
			return err
		}
	}
	b.tellBursts(all, four, agent)
	return nil
}

// bareBurst makes the pods by so many callers at a time.
func (b *bed) bareBurst(ctx context.Context, callers int, s *burstSamples) error {
	names, running := make(chan string, burst), map[string]*expectation{}
	for range burst {
		name := b.name()
		names <- name
		running[name] = b.watch.running(name)
	}
	close(names)
	var mu sync.Mutex
	var pods []barePod
	var failed error
	var calls sync.WaitGroup
	began := time.Now()
	for range callers {
		calls.Go(func() {
			for name := range names {
				p, err := b.floor.run(ctx, name)
				mu.Lock()
				if pods = append(pods, p); err != nil {
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	calls.Wait()
	if failed != nil {
		return failed
	}
	if _, err := s.add(ctx, began, running); err != nil {
		return err
	}
	for _, p := range pods {
		if err := b.floor.end(ctx, p); err != nil {
			return err
		}
	}
	return pause(ctx, 2*settled)
}

func (b *bed) agentBurst(ctx context.Context, s *burstSamples) error {
	running, pid := map[string]*expectation{}, b.agent.Pid()
	for range burst {
		name := b.name()
		running[name] = b.watch.running(inRuntime(name))
	}
	before, err := cpuTime(pid)
	if err != nil {
		return err
	}
	began := time.Now()
	for name := range running {
		if err := b.agent.WritePod(name+".yaml", manifest(name)); err != nil {
			return err
		}
	}
	if b.pods, err = s.add(ctx, began, running); err != nil {
		return err
	}
	if err := pause(ctx, settled); err != nil {
		return err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return err
	}
	s.cpu = append(s.cpu, milliseconds(after-before)/burst)
	return b.clear(ctx)
}

// add waits for all pods of a round and enters its rate and median wait.
func (s *burstSamples) add(ctx context.Context, began time.Time, running map[string]*expectation) (map[string]event, error) {
	var waits []float64
	pods := map[string]event{}
	for name, x := range running {
		e, err := x.wait(ctx)
		if err != nil {
			return nil, err
		}
		pods[name] = e
		waits = append(waits, milliseconds(e.at.Sub(began)))
	}
	s.enter(waits)
	return pods, nil
}

// enter a round's waits in milliseconds.
func (s *burstSamples) enter(waits []float64) {
	s.rate = append(s.rate, float64(len(waits))/quantile(waits, 1)*1000)
	s.wait = append(s.wait, median(waits)/1000)
}

func (b *bed) tellBursts(all, four, agent burstSamples) {
	who := b.subject.name
	rate, wait := fmt.Sprintf("burst of %d, rate", burst), fmt.Sprintf("burst of %d, median wait", burst)
	b.table.set(rate, who, estimate(median, agent.rate).text("pods/s"))
	if b.floor != nil {
		b.table.set(rate, "bare", estimate(median, all.rate).text("pods/s"))
		b.table.set(rate+", bare four at a time", "bare", estimate(median, four.rate).text("pods/s"))
		f := estimate(ratioToBest, agent.rate, all.rate, four.rate)
		b.table.set("— of the better bare rate", who, f.text("×")).targeted("≥ 0.90 ×", f.atLeast(0.90))
	}
	b.table.set(wait, who, estimate(median, agent.wait).text("s"))
	if b.floor != nil {
		b.table.set(wait, "bare", estimate(median, all.wait).text("s"))
		b.table.set(wait+", bare four at a time", "bare", estimate(median, four.wait).text("s"))
		f := estimate(ratio, agent.wait, all.wait)
		b.table.set("— of that of bare calls all at once", who, f.text("×")).targeted("≤ 0.65 ×", f.atMost(0.65))
	}
	b.table.set("processor time per start, in a burst", who, estimate(mean, agent.cpu).text("ms"))
}
