package syncloop

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/nodeagent/nodeagent/pkg/metrics"
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
	count := a.counted(q) // reads the pod, which is the actor's own
	a.work.Go(func() {
		defer close(r.ended)
		if before != nil {
			<-before.ended
		}
		probe.Run(ctx, q, a.loop.Probes.Ask(q), count, func(e pod.Probed) { a.mail.put(e) })
		if a.now.Load().Stop != nil {
			a.uncount()
		}
	})
}

// results are the outcomes of attempts, in the words of the metrics.
var results = map[pod.Outcome]string{pod.Passed: "successful", pod.Warned: "successful", pod.Failed: "failed",
	pod.Errored: "unknown", pod.Broken: "unknown"}

// counted counts the attempts of a probe (behaviour row 1.6-19).
func (a *actor) counted(q pod.Probing) probe.Count {
	spec := a.now.Load().Spec
	name := metrics.Probe{Type: q.Kind.String(), Container: q.Container.Name, Pod: spec.Name, Namespace: spec.Namespace, UID: string(spec.UID)}
	return func(o pod.Outcome, took time.Duration) { a.loop.Attempts.Attempt(name, results[o], took) }
}

// uncount takes away the series that name the pod: it is not probed any more, and
// its start is not waited for.
func (a *actor) uncount() {
	spec := a.now.Load().Spec
	a.loop.Attempts.Gone(spec.Namespace, spec.Name, string(spec.UID))
	a.loop.Metrics.Gone(string(spec.UID))
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
