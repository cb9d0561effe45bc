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
	nodeName      = "lab"
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
		prepare: func(b *bed) (*lab.Agent, error) {
			a, err := b.Agent(filepath.Join(dir, "nodeagent"))
			if err == nil {
				a.Config = map[string]any{"enableServer": true, "address": "127.0.0.1"}
			}
			return a, err
		},
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
	tb    lab.TB
	table *table
	agent *lab.Agent
	watch *watcher
	floor *floor           // nil if bare calls are not measured
	pods  map[string]event // the pods that stand, by name, as they started
	next  int              // numbers the pods
	// cluster that the node is one of; nil for a node on its own.
	cluster *cluster
}

func newBed(ctx context.Context, tb lab.TB, o options, t *table, s subject, joined bool) (*bed, error) {
	b := &bed{subject: s, o: o, tb: tb, table: t, pods: map[string]event{}}
	var plane *lab.ControlPlane
	var err error
	if joined {
		if plane, err = lab.StartControlPlane(tb, lab.ControlPlaneOptions{}); err != nil {
			return nil, err
		}
		if b.cluster, err = openCluster(ctx, plane); err != nil {
			return nil, err
		}
	}
	b.Lab = lab.New(tb, lab.Options{Plane: plane})
	if b.agent, err = s.prepare(b); err != nil {
		return nil, err
	}
	if joined {
		if b.agent.Kubeconfig, err = plane.NodeKubeconfig(nodeName); err != nil {
			return nil, err
		}
		b.agent.Args = append(b.agent.Args, "--node-ip="+b.Network.Address) // nobody is asked for it
		b.agent.ClientCA = plane.CAFile()
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
	return b.runAs(ctx, name, manifest(name))
}

func (b *bed) runAs(ctx context.Context, name string, manifest []byte) (event, time.Duration, error) {
	x := b.watch.running(inRuntime(name))
	began := time.Now()
	if err := b.agent.WritePod(name+".yaml", manifest); err != nil {
		return event{}, 0, err
	}
	e, err := x.wait(ctx)
	if err != nil {
		return event{}, 0, err
	}
	b.pods[name] = e
	return e, e.at.Sub(began), nil
}

// ending is a pod that is to end.
type ending struct {
	began            time.Time
	stop, down, gone *expectation
}

// ended says when, in milliseconds, its container had stopped, its sandbox had
// stopped and was removed.
type ended struct{ stop, down, gone float64 }

// ending begins to look for the pod's end. The kubelet removes sandboxes only
// once a minute, which is not waited for.
func (b *bed) ending(container, sandbox string) ending {
	e := ending{stop: b.watch.stops(container), down: b.watch.stops(sandbox), began: time.Now()}
	if b.bare {
		e.gone = b.watch.gone(sandbox)
	}
	return e
}

func (e ending) wait(ctx context.Context) (d ended, err error) {
	for _, x := range []struct {
		*expectation
		took *float64
	}{{e.stop, &d.stop}, {e.down, &d.down}, {e.gone, &d.gone}} {
		if x.expectation == nil {
			continue
		}
		came, err := x.wait(ctx)
		if err != nil {
			return d, err
		}
		*x.took = milliseconds(came.at.Sub(e.began))
	}
	return d, nil
}

// end removes the pod's file and returns when it has ended.
func (b *bed) end(ctx context.Context, name string) (ended, error) {
	e := b.ending(b.pods[name].id, b.pods[name].sandbox)
	if err := b.agent.RemovePod(name + ".yaml"); err != nil {
		return ended{}, err
	}
	delete(b.pods, name)
	return e.wait(ctx)
}

// clear ends all pods.
func (b *bed) clear(ctx context.Context) error {
	var all []ending
	for name, e := range b.pods {
		all = append(all, b.ending(e.id, e.sandbox))
		if err := b.agent.RemovePod(name + ".yaml"); err != nil {
			return err
		}
		delete(b.pods, name)
	}
	for _, e := range all {
		if _, err := e.wait(ctx); err != nil {
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
