package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fill makes it so many pods that run.
func (b *bed) fill(ctx context.Context, n int) error {
	running := map[string]*expectation{}
	for range n - len(b.pods) {
		name := b.name()
		running[name] = b.watch.running(inRuntime(name))
		if err := b.agent.WritePod(name+".yaml", manifest(name)); err != nil {
			return err
		}
	}
	for name, x := range running {
		e, err := x.wait(ctx)
		if err != nil {
			return err
		}
		b.pods[name] = e
	}
	return nil
}

// calm is how long pods have run before what they cost at rest is measured.
const calm = 15 * time.Second

// memoryTargets are how much more than an empty main the agent may hold, by
// pods, in MiB.
var memoryTargets = map[int]float64{30: 15, 100: 30}

// stillness is how the subject is watched: with so many pods, from where, and
// what it may use of a core, in percent, and of memory over an empty main, in
// MiB, 0 for any.
type stillness struct {
	pods        int
	from        string
	cpu, memory float64
}

// idle watches the subject while its pods only stand there.
func (b *bed) idle(ctx context.Context) error {
	if err := b.restartAgent(ctx); err != nil {
		return err
	}
	var empty memory
	if b.floor != nil {
		var err error
		if empty, err = emptyMemory(filepath.Join(b.dir, "empty")); err != nil {
			return fmt.Errorf("measure the empty program: %w", err)
		}
		b.table.set("RssAnon of an empty main with the same libraries (VmRSS)", b.subject.name, empty.text())
	}
	for _, n := range b.o.pods {
		if err := b.fill(ctx, n); err != nil {
			return err
		}
		if err := pause(ctx, calm); err != nil {
			return err
		}
		if err := b.idleWith(ctx, stillness{pods: n, cpu: 0.2, memory: memoryTargets[n]}, empty); err != nil {
			return err
		}
	}
	return nil
}

func (m memory) text() string { return fmt.Sprintf("%.1f MiB (%.0f)", m.anonymous, m.resident) }

func (b *bed) idleWith(ctx context.Context, s stillness, empty memory) error {
	pods := fmt.Sprintf("%d pods%s", s.pods, s.from)
	pid, who := b.agent.Pid(), b.subject.name
	before, err := cpuTime(pid)
	if err != nil {
		return err
	}
	woken, began := wakeups(pid), time.Now()
	if err := pause(ctx, b.o.idle); err != nil {
		return err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	woken = (wakeups(pid) - woken) / took
	m, err := memoryOf(pid)
	if err != nil {
		return err
	}
	// The kernel tells whole ticks, so the interval is one to either side.
	percent := func(d time.Duration) float64 { return 100 * d.Seconds() / took }
	used := figure{percent(after - before), percent(max(0, after-before-clockTick)), percent(after - before + clockTick)}
	cpu := b.table.set("idle with "+pods+", of one core", who, used.text("%"))
	b.table.set("idle with "+pods+", threads woken per second", who, fmt.Sprintf("%.1f", woken))
	ram := b.table.set("RssAnon with "+pods+" (VmRSS)", who, m.text())
	if b.floor == nil {
		return nil
	}
	cpu.targeted(fmt.Sprintf("≤ %.1f %%", s.cpu), used.atMost(s.cpu))
	if s.memory > 0 {
		held := figure{m.anonymous, m.anonymous, m.anonymous}
		ram.targeted(fmt.Sprintf("≤ empty + %.0f MiB", s.memory), held.atMost(empty.anonymous+s.memory))
	}
	return nil
}

// die kills containers of many pods, each for the first time, and looks how
// long the agent takes to have the runtime make the next instance.
func (b *bed) die(ctx context.Context) error {
	if err := b.fill(ctx, slices.Max(b.o.pods)); err != nil {
		return err
	}
	var s deaths
	for _, name := range slices.Sorted(maps.Keys(b.pods)) {
		if len(s.made) == b.o.samples {
			break
		}
		if err := b.kill(ctx, name, &s); err != nil {
			return err
		}
	}
	who := b.subject.name
	b.table.set("a container dies → the next instance is created, p50", who, estimate(median, s.made).text("ms"))
	b.table.set("a container dies → the next instance is created, p99", who, estimate(p99, s.made).text("ms"))
	b.table.set("a container dies → the next instance runs, p50", who, estimate(median, s.ran).text("ms"))
	if b.floor != nil {
		f := estimate(p99, s.asked)
		b.table.set("a container dies → the next instance is asked for, p99", who, f.text("ms")).targeted("≤ 50 ms", f.atMost(50))
	}
	return nil
}

// deaths has, in milliseconds after the runtime told of a container's end, when
// the agent says that it asked for the next instance, and when the runtime told
// that it was created and started.
type deaths struct{ asked, made, ran []float64 }

// kill ends the container's first process, and enters what followed.
func (b *bed) kill(ctx context.Context, name string, d *deaths) error {
	old := b.pods[name]
	pid, err := b.containerPid(ctx, old.id)
	if err != nil {
		return err
	}
	next := func(what string, match func(event) bool) *expectation {
		return b.watch.expect(name+" "+what+" again", func(e event) bool {
			return e.pod == inRuntime(name) && e.container == containerName && e.id != old.id && match(e)
		})
	}
	s := b.watch.stops(old.id)
	c := next("is created", func(e event) bool { return e.kind == created })
	r := next("runs", func(e event) bool { return e.kind == started })
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill container %s: %w", old.id, err)
	}
	var seen [3]event
	for i, x := range []*expectation{s, c, r} {
		if seen[i], err = x.wait(ctx); err != nil {
			return err
		}
	}
	b.pods[name] = seen[2]
	after := func(t time.Time) float64 { return milliseconds(t.Sub(seen[0].at)) }
	d.made, d.ran = append(d.made, after(seen[1].at)), append(d.ran, after(seen[2].at))
	if err := pause(ctx, settled); err != nil || b.floor == nil {
		return err
	}
	steps, err := b.taken(ctx, name)
	if err != nil {
		return err
	}
	for _, step := range slices.Backward(steps) {
		if step.Step == "create/"+containerName {
			d.asked = append(d.asked, after(step.Began))
			return nil
		}
	}
	return fmt.Errorf("the agent does not tell when it created the container of %s again", name)
}

// containerPid is the container's first process.
func (b *bed) containerPid(ctx context.Context, id string) (int, error) {
	s, err := b.CRI.Runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return 0, fmt.Errorf("read container %s: %w", id, err)
	}
	var info struct {
		Pid int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(s.Info["info"]), &info); err != nil || info.Pid <= 1 {
		return 0, fmt.Errorf("read process of container %s: %d, %w", id, info.Pid, err)
	}
	return info.Pid, nil
}

// recover restarts the agent under its pods.
func (b *bed) recover(ctx context.Context) error {
	n := slices.Max(b.o.pods)
	if err := b.fill(ctx, n); err != nil {
		return err
	}
	var took []float64
	for range b.o.rounds {
		if err := b.agent.Stop(); err != nil {
			return err
		}
		began := time.Now()
		if err := b.agent.Start(); err != nil {
			return err
		}
		if err := b.await(ctx, n, n); err != nil {
			return err
		}
		took = append(took, milliseconds(time.Since(began)))
	}
	b.table.set(fmt.Sprintf("started again under %d pods → all reported as running", n), b.subject.name, estimate(median, took).text("ms"))
	return nil
}
