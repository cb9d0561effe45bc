package syncloop

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/probe"
)

// newProbes draws the probes of a container.
func newProbes(r *rand.Rand, c *v1.Container) {
	draw := func(percent int) *v1.Probe {
		if !chance(r, percent) {
			return nil
		}
		return &v1.Probe{TimeoutSeconds: 2, PeriodSeconds: 1 + r.Int32N(5), InitialDelaySeconds: r.Int32N(3),
			SuccessThreshold: 1, FailureThreshold: 1 + r.Int32N(3)}
	}
	c.StartupProbe, c.LivenessProbe, c.ReadinessProbe = draw(20), draw(20), draw(40)
	if c.StartupProbe != nil {
		c.StartupProbe.FailureThreshold = 30 // as long as any takes
	}
	if c.ReadinessProbe != nil {
		c.ReadinessProbe.SuccessThreshold = 1 + r.Int32N(2)
	}
	switch n := r.IntN(100); {
	case n < 30:
		c.Image += fmt.Sprintf(",up=%ds", 1+r.IntN(10))
	case n < 45:
		c.Image += fmt.Sprintf(",ill=%ds", 20+r.IntN(60))
	}
}

// well says whether the container's server is up, and not ill yet, or ill only
// for a while.
func (c *container) well() bool {
	age := time.Since(c.StartedAt)
	return age >= c.life.up && (c.life.ill == 0 || age < c.life.ill)
}

// probes are the handlers of probes, as the loop calls them. What they find is
// the container's state, unless they fail, hang or err by chance.
type probes struct{ *agent }

func (h probes) Ask(q pod.Probing) probe.Ask {
	return func(ctx context.Context) (pod.Outcome, string) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		var wait, linger time.Duration
		outcome := pod.Failed
		var end func()
		h.world.locked(func() {
			c := h.world.runtime.containers[q.ContainerID]
			if c == nil {
				return // it is gone, and does not answer
			}
			end = h.world.checks.asking(h.agent, c, q)
			if c.State == pod.Running && c.well() {
				outcome = pod.Passed
			}
			d := h.world.dice("probe %s %s", q.ContainerID, q.Kind)
			wait, linger = between(d, time.Millisecond, 20*time.Millisecond), between(d, 0, time.Second)
			if h.world.quiet {
				return
			}
			switch n := d.IntN(100); {
			case n < 5:
				wait = time.Hour
			case n < 8:
				outcome = pod.Errored
			case n < 12:
				outcome = pod.Failed
			}
		})
		if end != nil {
			defer h.world.locked(end)
		}
		if sleep(ctx, wait) != nil {
			time.Sleep(linger) // as a command that is slow to end
			return pod.Failed, "timeout"
		}
		return outcome, fmt.Sprint(outcome)
	}
}

// asking: no probe of one container and kind is asked twice at a time, none
// before its turn, and none that ends the container once its pod is to end.
func (k *checks) asking(a *agent, c *container, q pod.Probing) (end func()) {
	key := fmt.Sprintf("%d %s/%s %s", a.number, c.pod.UID, c.Name, q.Kind)
	if k.asked[key]++; k.asked[key] > 1 {
		k.world.violated("asked twice at a time: %s", key)
	}
	if actor := a.loop.actor(c.pod.UID); actor != nil && !a.isDead() {
		p := actor.now.Load()
		if q.Kind != pod.Readiness && p.Stop != nil && p.Stop.At.Before(time.Now().Add(-time.Second)) {
			k.world.violated("%s is asked while the pod ends", key)
		}
	}
	return func() { k.asked[key]-- }
}

// remembers: a container that was ready when an agent ended is ready with the next
// one, as far as that is on record, unless its probes have said otherwise.
func (k *checks) remembers(records map[types.UID]pod.Record) {
	clear(k.recorded)
	for _, r := range records {
		for name, c := range r.Containers {
			if c.Ready {
				k.recorded[c.Instance] = name
			}
		}
	}
}

// keepsReady checks that against what an actor shows.
func (k *checks) keepsReady(p *pod.Pod) {
	for name, m := range p.Containers {
		if m.Known == nil || k.recorded[m.Known.ID] != name || m.Known.State != pod.Running {
			continue
		}
		switch m.Instance.Readiness {
		case pod.Success:
		case pod.ResultNone:
			k.world.violated("%s was ready, and is not since the agent restarted", m.Known.ID)
		default:
			delete(k.recorded, m.Known.ID) // its probe said so
		}
	}
}

// sick says what is not as its probes should have it in the end.
func (w *world) sick(p pod.Pod, spec v1.Container, newest *container) string {
	age := time.Since(newest.StartedAt)
	const slack = 10 * time.Second
	longest := func(probe *v1.Probe) time.Duration {
		return time.Duration(probe.PeriodSeconds*(probe.FailureThreshold+probe.SuccessThreshold))*time.Second + slack
	}
	status := pod.Status(p, w.agent.loop.Node(), time.Now())
	ready := slices.ContainsFunc(slices.Concat(status.ContainerStatuses, status.InitContainerStatuses), func(s v1.ContainerStatus) bool {
		return s.Name == spec.Name && s.Ready
	})
	settled := newest.life.up + 2*time.Minute // startup, then readiness
	ill := newest.life.ill
	switch {
	case failsHook(spec):
		return ""
	case !ready && age > settled && newest.well() && (ill == 0 || settled < ill):
		return "container " + spec.Name + " is well, and not ready"
	case ready && ill > 0 && spec.ReadinessProbe != nil && age > ill+longest(spec.ReadinessProbe):
		return "container " + spec.Name + " is ill, and ready"
	case ill > 0 && spec.LivenessProbe != nil && age > ill+longest(spec.LivenessProbe)+time.Minute: // its grace and hooks
		return "container " + spec.Name + " is ill, and not restarted"
	}
	return ""
}
