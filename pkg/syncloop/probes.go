package syncloop

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/probe"
)

// probeKey names a probe of a pod: no two of one key run at once.
type probeKey struct {
	container string
	kind      pod.Probe
}

// probing is a probe that runs, or has run.
type probing struct {
	pod.Probing
	cancel context.CancelFunc
	ended  chan struct{} // closed when it has
	over   bool          // it was told to end
}

// keepProbes makes the probes that run those that the pod's value asks for.
func (a *actor) keepProbes(ctx context.Context) {
	wanted := pod.Probes(a.pod, a.loop.Node())
	keep := make(map[probeKey]bool, len(wanted))
	for _, q := range wanted {
		key := probeKey{q.Container.Name, q.Kind}
		keep[key] = true
		if r := a.probes[key]; r == nil || r.over || !same(r.Probing, q) {
			a.startProbe(ctx, key, q)
		}
	}
	for key, r := range a.probes {
		if !keep[key] && !r.over {
			r.stop()
		}
	}
}

func (r *probing) stop() {
	r.cancel()
	r.over = true
}

// startProbe starts a probe, in the place of the one of its key, once that has
// ended.
func (a *actor) startProbe(ctx context.Context, key probeKey, q pod.Probing) {
	before := a.probes[key]
	if before != nil {
		before.stop()
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &probing{Probing: q, cancel: cancel, ended: make(chan struct{})}
	a.probes[key] = r
	a.work.Go(func() {
		defer close(r.ended)
		if before != nil {
			<-before.ended
		}
		probe.Run(ctx, q, a.loop.Probes.Ask(q), func(e pod.Probed) { a.mail.put(e) })
	})
}

// same says whether nothing that a running probe rests on has changed. A pod that
// was wished again as it was has another spec of the same content.
func same(a, b pod.Probing) bool {
	if a.ContainerID != b.ContainerID || a.Host != b.Host {
		return false
	}
	return a.Probe == b.Probe || equality.Semantic.DeepEqual(a.Probe, b.Probe) &&
		equality.Semantic.DeepEqual(a.Container.Ports, b.Container.Ports) && equality.Semantic.DeepEqual(a.Container.Env, b.Container.Env)
}
