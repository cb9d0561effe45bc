// Package local is what people on the machine ask the running agent: a small
// HTTP service on a unix socket that only root can open, and its client.
package local

import (
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
)

// Socket is where the agent with this root listens.
func Socket(root string) string { return root + "/nodeagent/agent.sock" }

// Report is all pods and all that is wrong.
type Report struct {
	Node     Node             `json:"node"`
	Pods     []Pod            `json:"pods"`
	Problems []source.Problem `json:"problems,omitempty"`
}

// Node is the agent's view of the node; what is ready is empty.
type Node struct {
	Name    string `json:"name"`
	Runtime string `json:"runtime,omitempty"`
	Network string `json:"network,omitempty"`
}

// Pod is what the agent can say of one pod.
type Pod struct {
	// Pod is what is wanted, with the status as it is.
	*v1.Pod `json:"pod"`
	Origin  string `json:"origin"`
	// Doing is what is in flight, Waits what it waits for in words.
	Doing []Doing  `json:"doing,omitempty"`
	Waits []string `json:"waits,omitempty"`
	// Steps are the newest finished steps, Notes what was told, oldest first.
	Steps []Step `json:"steps,omitempty"`
	Notes []Note `json:"notes,omitempty"`
	// Ending says that the pod is to end.
	Ending bool `json:"ending,omitempty"`
}

// Doing is a step in flight.
type Doing struct {
	Step  string    `json:"step"`
	Since time.Time `json:"since"`
	Why   string    `json:"why,omitempty"`
}

// Step is a finished step.
type Step struct {
	Step  string    `json:"step"`
	Began time.Time `json:"began"`
	Took  Duration  `json:"took"`
	Error string    `json:"error,omitempty"`
}

// Note is something that was told about the pod.
type Note struct {
	At        time.Time `json:"at"`
	Warning   bool      `json:"warning,omitempty"`
	Reason    string    `json:"reason"`
	Message   string    `json:"message"`
	Container string    `json:"container,omitempty"`
	Count     int       `json:"count"`
}

// Plan is what would be done for a pod, were it wanted now.
type Plan struct {
	Verdict string   `json:"verdict"`
	Steps   []string `json:"steps"`
	Waits   []string `json:"waits,omitempty"`
}

// Duration is a time span as people write it.
type Duration time.Duration

// MarshalText writes it as 1.5s.
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).Round(10 * time.Microsecond).String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// describe says what there is to say of a pod.
func describe(p pod.Pod, n pod.Node, now time.Time) Pod {
	spec := p.Spec.DeepCopy()
	spec.Status = pod.Status(p, n, now)
	out := Pod{Pod: spec, Origin: p.Origin, Waits: pod.Waits(p, n, now), Ending: p.Stop != nil && p.Stop.Unwanted}
	for _, d := range p.InFlight() {
		out.Doing = append(out.Doing, Doing{Step: d.Action.Key(), Since: d.Since, Why: d.Action.Why})
	}
	for _, s := range p.Steps {
		out.Steps = append(out.Steps, Step{Step: s.Key, Began: s.Began, Took: Duration(s.Ended.Sub(s.Began)), Error: s.Error})
	}
	for _, n := range p.Notes {
		out.Notes = append(out.Notes, Note{At: n.At, Warning: n.Warning, Reason: n.Reason, Message: n.Message, Container: n.Container, Count: n.Count})
	}
	return out
}
