package local

import (
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// foresee plays the pod's start with every step succeeding: the same functions
// that run pods, without the world.
func foresee(pods Pods, spec *v1.Pod, now time.Time) Plan {
	n := pods.Node()
	verdict := pods.Verdict(spec)
	out := Plan{Verdict: "granted"}
	if verdict.State != pod.Granted {
		out.Verdict = verdict.Reason + ": " + verdict.Message
	}
	p := pod.New(pod.Wanted{At: now, Spec: spec}, pod.View{}, nil)
	for _, live := range pods.Pods() {
		if live.UID() == spec.UID {
			p = pod.Apply(live, pod.Wanted{At: now, Spec: spec})
			out.Verdict = "has its grant already"
		}
	}
	if out.Waits = pod.Waits(p, n, now); n.Runtime != "" {
		return out
	}
	n.Network = ""
	for range 1000 { // more steps than any pod has
		actions, _ := pod.Plan(p, n, now)
		if len(actions) == 0 {
			break
		}
		for _, a := range actions {
			out.Steps = append(out.Steps, say(a))
			p = pod.Apply(p, pod.Begun{At: now, Action: a})
			p = pod.Apply(p, succeed(p, a, verdict, now))
		}
		if verdict.State != pod.Granted && p.Verdict.State != pod.Granted {
			break
		}
	}
	return out
}

// say is an action in words.
func say(a pod.Action) string {
	text := string(a.Kind)
	if a.Container != "" {
		text += " " + a.Container
	}
	if a.Image != "" {
		text += " from " + a.Image
	}
	return fmt.Sprintf("%s (%s)", text, a.Why)
}

// succeed is how the action ends if nothing goes wrong; init containers
// succeed at once, all others go on running.
func succeed(p pod.Pod, a pod.Action, verdict pod.Verdict, now time.Time) pod.Event {
	done := pod.Done{At: now, Action: a}
	switch a.Kind {
	case pod.Admit:
		return pod.Judged{At: now, Verdict: verdict}
	case pod.Observe:
		view := p.View
		done.View = &view
	case pod.Pull:
		done.Image = a.Image
	case pod.RunSandbox:
		done.Sandbox = &pod.Sandbox{ID: "new sandbox", Attempt: a.Attempt, Ready: true, IPs: []string{"0.0.0.0"}, HostNetwork: p.Spec.Spec.HostNetwork, CreatedAt: now}
	case pod.Create:
		done.Container = &pod.Container{ID: "new " + a.Container, Name: a.Container, SandboxID: p.View.Sandboxes[0].ID, Attempt: a.Attempt, CreatedAt: now}
	case pod.Start:
		for _, c := range p.View.Containers {
			if c.ID == a.ID {
				c.State, c.StartedAt = pod.Running, now
				if pod.Completes(p.Spec, c.Name) {
					c.State, c.FinishedAt = pod.Exited, now
				}
				done.Container = &c
			}
		}
	case pod.StopContainer:
		for _, c := range p.View.Containers {
			if c.ID == a.ID {
				c.State, c.FinishedAt = pod.Exited, now
				done.Container = &c
			}
		}
	}
	return done
}
