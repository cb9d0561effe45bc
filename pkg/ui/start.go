package ui

import (
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Start is one way of a pod to where it is wanted to be, as a waterfall.
type Start struct {
	Began time.Time `json:"began"`
	// Ready is when the pod was ready, zero if it is not, or was before.
	Ready time.Time `json:"ready,omitzero"`
	Spans []Span    `json:"spans"`
}

// Span is one step of a start.
type Span struct {
	Name      string    `json:"name"`
	Container string    `json:"container,omitempty"`
	Began     time.Time `json:"began"`
	// Ended is zero of one that goes on.
	Ended time.Time `json:"ended,omitzero"`
	Error string    `json:"error,omitempty"`
}

// starts are the pod's newest steps.
func starts(p pod.Pod, s v1.PodStatus) []Start {
	out := Start{Spans: []Span{}}
	names := map[string]string{} // containers by ID
	for _, m := range p.Containers {
		for _, c := range []*pod.Container{m.Known, m.Last} {
			if c != nil {
				names[c.ID] = c.Name
			}
		}
	}
	add := func(key string, sp Span) {
		kind, of, _ := strings.Cut(key, "/")
		sp.Name, sp.Container = kind, of
		if strings.HasPrefix(kind, "st") || strings.HasPrefix(kind, "remove") || strings.HasPrefix(kind, "p") && kind != "pull" {
			id, _, _ := strings.Cut(of, "/")
			sp.Container = names[id]
		}
		out.Spans = append(out.Spans, sp)
	}
	for _, d := range p.Steps {
		add(d.Key, Span{Began: d.Began, Ended: d.Ended, Error: d.Error})
	}
	for _, d := range p.InFlight() {
		add(d.Action.Key(), Span{Began: d.Since})
	}
	if len(out.Spans) == 0 {
		return []Start{}
	}
	slices.SortStableFunc(out.Spans, func(a, b Span) int { return a.Began.Compare(b.Began) })
	out.Began = out.Spans[0].Began
	for _, c := range s.Conditions {
		if c.Type == v1.PodReady && c.Status == v1.ConditionTrue {
			out.Ready = c.LastTransitionTime.Time
		}
	}
	return []Start{out}
}
