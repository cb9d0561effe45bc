package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/local"
)

const (
	containerName = "main"
	grace         = 5 * time.Second
	// settled is how long after its pod runs the agent may still be at work on
	// it: that belongs to what the pod costs.
	settled = 200 * time.Millisecond
)

// subject is a program that is measured.
type subject struct {
	name string // its column
	bare bool   // whether the bare calls are measured beside it
	dir  string // with the program empty
	// prepare sets up the lab's agent.
	prepare func(*bed) (*lab.Agent, error)
	// report counts its pods, and those of them that run.
	report func(context.Context, *bed) (all, running int, err error)
}

func agentSubject(dir string) subject {
	return subject{
		name: "agent", bare: true, dir: dir,
		prepare: func(b *bed) (*lab.Agent, error) { return b.Agent(filepath.Join(dir, "nodeagent")) },
		report: func(ctx context.Context, b *bed) (all, running int, err error) {
			r, err := local.NewClient(b.agent.Root).Report(ctx)
			for _, p := range r.Pods {
				if p.Status.Phase == "Running" {
					running++
				}
			}
			return len(r.Pods), running, err
		},
	}
}

// bed is a node with the subject on it.
type bed struct {
	*lab.Lab
	subject
	o     options
	tb    *testbed
	table *table
	agent *lab.Agent
	watch *watcher
	floor *floor           // nil if bare calls are not measured
	pods  map[string]event // the pods that stand, by name, as they started
	next  int              // numbers the pods
}

func newBed(ctx context.Context, tb *testbed, o options, t *table, s subject) (*bed, error) {
	b := &bed{Lab: lab.New(tb, lab.Options{}), subject: s, o: o, tb: tb, table: t, pods: map[string]event{}}
	var err error
	if b.agent, err = s.prepare(b); err != nil {
		return nil, err
	}
	if b.watch, err = watch(ctx, b.CRI); err != nil {
		return nil, err
	}
	if err := b.startAgent(ctx); err != nil {
		return nil, err
	}
	// The first pod warms everything up, and shows what the agent asks for.
	e, _, err := b.run(ctx, b.name())
	if err != nil {
		return nil, err
	}
	if s.bare {
		if b.floor, err = learn(ctx, b.Lab, e); err != nil {
			return nil, err
		}
	}
	return b, b.clear(ctx)
}

// startAgent starts the subject and returns when it answers.
func (b *bed) startAgent(ctx context.Context) error {
	if err := b.agent.Start(); err != nil {
		return err
	}
	return b.await(ctx, 0, 0)
}

// restartAgent gives the next section a fresh process.
func (b *bed) restartAgent(ctx context.Context) error {
	if err := b.agent.Stop(); err != nil {
		return err
	}
	return b.startAgent(ctx)
}

// await returns when the subject reports so many pods, or more, that so many
// run, or more.
func (b *bed) await(ctx context.Context, all, running int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		a, r, err := b.report(ctx, b)
		if err == nil && a >= all && r >= running {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s reports %d pods, %d running: it reports %d, %d (%v)", b.subject.name, all, running, a, r, err)
		case <-tick.C:
		}
	}
}

// name of the next pod, as its manifest has it.
func (b *bed) name() string {
	b.next++
	return fmt.Sprintf("bench%04d", b.next)
}

// inRuntime is the static pod's name, with the node's.
func inRuntime(name string) string { return name + "-lab" }

func manifest(name string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: %d
  containers:
  - name: %s
    image: %s
    command: [sh, -c, "trap 'exit 0' TERM; sleep 100000 & wait"]
`, name, grace/time.Second, containerName, lab.BusyboxImage)
}

// run drops the pod's file and returns when its container runs.
func (b *bed) run(ctx context.Context, name string) (event, time.Duration, error) {
	x := b.watch.running(inRuntime(name))
	began := time.Now()
	if err := b.agent.WritePod(name+".yaml", manifest(name)); err != nil {
		return event{}, 0, err
	}
	e, err := x.wait(ctx)
	if err != nil {
		return event{}, 0, err
	}
	b.pods[name] = e
	return e, e.at.Sub(began), nil
}

// end removes the pod's file and returns how long it took until the container
// had stopped and the sandbox was gone.
func (b *bed) end(ctx context.Context, name string) (stop, gone time.Duration, err error) {
	e := b.pods[name]
	s, g := b.watch.stops(e.id), b.watch.gone(e.sandbox)
	began := time.Now()
	if err := b.agent.RemovePod(name + ".yaml"); err != nil {
		return 0, 0, err
	}
	return b.ended(ctx, name, began, s, g)
}

func (b *bed) ended(ctx context.Context, name string, began time.Time, s, g *expectation) (stop, gone time.Duration, err error) {
	se, err := s.wait(ctx)
	if err != nil {
		return 0, 0, err
	}
	ge, err := g.wait(ctx)
	if err != nil {
		return 0, 0, err
	}
	delete(b.pods, name)
	return se.at.Sub(began), ge.at.Sub(began), nil
}

// clear ends all pods, and returns when nothing of them is in the runtime.
func (b *bed) clear(ctx context.Context) error {
	type ending struct{ stop, gone *expectation }
	all := map[string]ending{}
	for name, e := range b.pods {
		all[name] = ending{b.watch.stops(e.id), b.watch.gone(e.sandbox)}
		if err := b.agent.RemovePod(name + ".yaml"); err != nil {
			return err
		}
	}
	for name, x := range all {
		if _, _, err := b.ended(ctx, name, time.Now(), x.stop, x.gone); err != nil {
			return err
		}
	}
	return pause(ctx, 2*settled) // folders and cgroups go last
}

// pause lets time pass that nobody announces the end of.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
