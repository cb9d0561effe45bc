// Package timeline makes of a pod's value the picture of its start that people
// look at: what was done when and side by side, what was waited for in between,
// which of it the start really waited for, and how much of the time is accounted
// for. Like the value it reads no clock and calls nothing.
package timeline

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Pod is what there is to say of a pod.
type Pod struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
	// Blocker is the one thing that it waits for, nil if it is as it is wanted;
	// Stuck says that it does not get on.
	Blocker *pod.Blocker `json:"blocker,omitempty"`
	Stuck   bool         `json:"stuck,omitempty"`
	// Starts are its first start and, if it had another, its newest.
	Starts []Start `json:"starts"`
}

// Start is one start of a pod.
type Start struct {
	// Why it began, empty for the first.
	Why string `json:"why,omitempty"`
	// Found says that the pod ran before the agent knew of it.
	Found bool `json:"found,omitempty"`
	// Began is when its source saw the pod, or what ran of it ended; Ended when it
	// was ready and the apiserver had taken that, the present while Open.
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	Open  bool      `json:"open,omitempty"`
	// Milestones are in the order of time.
	Milestones []Milestone `json:"milestones,omitempty"`
	// Spans are by lane, in it in the order of time; of one lane no two overlap.
	Spans []Span `json:"spans"`
	// Accounted is the share of the time from Began to Ended in which some span
	// was under way, from 0 to 1.
	Accounted float64 `json:"accounted"`
}

// Milestone is when a start had got how far: wanted, admitted, sandbox, running,
// ready, told.
type Milestone struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

// Kind says whether in a span something was done or waited for.
type Kind string

// The kinds of spans. Agent is the time between that something ended and that the
// agent began what follows.
const (
	Work  Kind = "work"
	Wait  Kind = "wait"
	Agent Kind = "agent"
)

// Span is a time in which one thing was done or waited for.
type Span struct {
	// Lane is what it is about, as in pod, volumes, container web.
	Lane string `json:"lane"`
	// Name is the action, or the cause of the wait (pod.Cause).
	Name      string    `json:"name"`
	Container string    `json:"container,omitempty"`
	Kind      Kind      `json:"kind"`
	Began     time.Time `json:"began"`
	Ended     time.Time `json:"ended"`
	// Of is the action that waits, of a wait for a turn.
	Of string `json:"of,omitempty"`
	// Open says that it goes on.
	Open bool `json:"open,omitempty"`
	// Critical says that the start waited for it: had it been shorter, the pod
	// would have been ready earlier.
	Critical bool   `json:"critical,omitempty"`
	Error    string `json:"error,omitempty"`
}

// Took is how long it took.
func (s Span) Took() time.Duration { return s.Ended.Sub(s.Began) }

// Of is what there is to say of the pod.
func Of(p pod.Pod, n pod.Node, now time.Time) Pod {
	out := Pod{Namespace: p.Spec.Namespace, Name: p.Spec.Name, UID: p.UID(), Starts: []Start{}}
	if b, blocked := pod.Blocked(p, n, now); blocked {
		out.Blocker, out.Stuck = &b, b.Stuck(now)
	}
	for i, l := range p.Launches {
		newest := i == len(p.Launches)-1
		out.Starts = append(out.Starts, start(p, l, newest, now))
	}
	return out
}

// start draws one start. A call that nobody waits for any more may outlast it.
func start(p pod.Pod, l pod.Launch, newest bool, now time.Time) Start {
	s := Start{Why: l.Why, Found: l.Found, Began: l.Began, Spans: []Span{}}
	if !l.Seen.IsZero() {
		s.Began = l.Seen
	}
	s.Ended, s.Open = ended(p, l, newest, now)
	s.Milestones = milestones(l)
	s.Spans = lanes(spans(p, l, newest, now), s.Ended)
	s.critical()
	s.gaps()
	s.Spans = lanes(s.Spans, s.Ended)
	s.Accounted = covered(s.Spans, s.Began, s.Ended)
	return s
}

// ended is when the start was over, or now if it goes on.
func ended(p pod.Pod, l pod.Launch, newest bool, now time.Time) (at time.Time, open bool) {
	switch {
	case !l.Told.IsZero():
		return l.Told, false
	case l.Over.IsZero(), newest && tells(p, l):
		return now, true
	}
	return l.Over, false
}

// tells says that the apiserver has yet to take that the pod is ready.
func tells(p pod.Pod, l pod.Launch) bool {
	return !l.Found && !l.Ready.IsZero() && l.Told.IsZero() && p.Stop == nil && !pod.IsStatic(p.Spec)
}

func milestones(l pod.Launch) (out []Milestone) {
	for _, m := range []Milestone{{"seen", l.Seen}, {"wanted", l.Began}, {"admitted", l.Admitted}, {"sandbox", l.Sandboxed},
		{"running", l.Running}, {"ready", l.Ready}, {"told", l.Told}} {
		if !m.At.IsZero() && (l.Why == "" || m.At.After(l.Began)) { // of a later one some are as they were
			out = append(out, m)
		}
	}
	slices.SortStableFunc(out, func(a, b Milestone) int { return a.At.Compare(b.At) })
	return out
}

// spans are all that is known of the start, in no order.
func spans(p pod.Pod, l pod.Launch, newest bool, now time.Time) (out []Span) {
	if !l.Seen.IsZero() {
		out = append(out, Span{Lane: "pod", Name: "source", Kind: Wait, Began: l.Seen, Ended: l.Began})
	}
	for _, s := range l.Steps {
		out = append(out, step(s, false)...)
	}
	for _, w := range l.Waits {
		s := Span{Lane: lane(w.Container), Name: string(w.Cause), Container: w.Container, Kind: Wait, Began: w.Began, Ended: w.Ended}
		if s.Open = w.Ended.IsZero(); s.Open {
			s.Ended = now
		}
		out = append(out, s)
	}
	for _, d := range p.InFlight() {
		if (l.Over.IsZero() || d.Since.Before(l.Over)) && d.Action.Kind != pod.Observe && d.Action.Kind != pod.Save {
			out = append(out, step(pod.Step{Key: d.Action.Key(), Kind: d.Action.Kind, Container: d.Action.Container,
				Began: d.Since, Ended: now, Queue: d.Queue}, true)...)
		}
	}
	if !l.Left.Began.IsZero() {
		name := fmt.Sprintf("%d steps and %d waits more", l.Left.Steps, l.Left.Waits)
		out = append(out, Span{Lane: leftOut, Name: name, Kind: Work, Began: l.Left.Began, Ended: l.Left.Ended})
	}
	switch {
	case !l.Told.IsZero():
		out = append(out, Span{Lane: "pod", Name: "status", Kind: Wait, Began: l.Ready, Ended: l.Sent},
			Span{Lane: "pod", Name: "patch", Kind: Work, Began: l.Sent, Ended: l.Told})
	case newest && tells(p, l):
		out = append(out, Span{Lane: "pod", Name: string(pod.Apiserver), Kind: Wait, Began: l.Ready, Ended: now, Open: true})
	}
	return out
}

// step is an action, and before its call the wait for its turn.
func step(s pod.Step, open bool) []Span {
	work := Span{Lane: laneOf(s), Name: string(s.Kind), Container: s.Container, Kind: Work, Began: s.Began, Ended: s.Ended, Error: s.Error, Open: open}
	if s.Queue.For == "" {
		return []Span{work}
	}
	before, wait := work, Span{Lane: work.Lane, Name: s.Queue.For, Container: s.Container, Kind: Wait, Of: work.Name, Began: s.Queue.Began, Ended: s.Queue.Ended}
	before.Ended, before.Error, before.Open = s.Queue.Began, "", false
	if wait.Open = s.Queue.Ended.IsZero(); wait.Open {
		wait.Ended = s.Ended
		return []Span{before, wait}
	}
	work.Began = s.Queue.Ended
	return []Span{before, wait, work}
}

// leftOut is the lane of what is not known in detail any more.
const leftOut = "left out"

// laneOf is where a step is drawn.
func laneOf(s pod.Step) string {
	switch s.Kind {
	case pod.Mount, pod.Unmount:
		return "volumes"
	case pod.Allocate, pod.Actuate:
		return "resize"
	case pod.StopContainer, pod.PreStop, pod.Remove, pod.StopSandbox, pod.RemoveSandbox:
		return "removal"
	}
	return lane(s.Container)
}

func lane(container string) string {
	if container == "" {
		return "pod"
	}
	return "container " + container
}

// lanes sorts the spans by lane and time and leaves out those after end and those
// of no length. What would overlap in its lane gets another of the same name with
// a number.
func lanes(all []Span, end time.Time) []Span {
	all = slices.DeleteFunc(all, func(s Span) bool { return !s.Ended.After(s.Began) && s.Error == "" || s.Began.After(end) })
	slices.SortStableFunc(all, func(a, b Span) int { return cmp.Or(a.Began.Compare(b.Began), a.Ended.Compare(b.Ended)) })
	var names []string // in the order of their first spans
	busy := map[string]time.Time{}
	for i := range all {
		s := &all[i]
		if s.Ended.After(end) {
			s.Ended = end
		}
		base := s.Lane
		for n := 2; busy[s.Lane].After(s.Began); n++ {
			s.Lane = fmt.Sprintf("%s %d", base, n)
		}
		if !slices.Contains(names, s.Lane) {
			names = append(names, s.Lane)
		}
		busy[s.Lane] = s.Ended
	}
	slices.SortStableFunc(all, func(a, b Span) int { return slices.Index(names, a.Lane) - slices.Index(names, b.Lane) })
	return all
}

// beside are actions that no other waits for.
var beside = []string{string(pod.Remove), string(pod.RemoveSandbox)}

// critical marks, from the end backwards, what each step waited for: what ended
// last before it began.
func (s *Start) critical() {
	at := s.Ended
	for range s.Spans {
		last := -1
		for i, o := range s.Spans {
			if o.Critical || o.Ended.After(at) || slices.Contains(beside, o.Name) || o.Lane == leftOut {
				continue
			}
			if last < 0 || o.Ended.After(s.Spans[last].Ended) || o.Ended.Equal(s.Spans[last].Ended) && o.Began.Before(s.Spans[last].Began) {
				last = i
			}
		}
		if last < 0 {
			return
		}
		s.Spans[last].Critical = true
		at = s.Spans[last].Began
	}
}

// ownTime is how long the agent may take to go on with a pod after something has
// ended. What is longer has another reason, which is not known.
const ownTime = 20 * time.Millisecond

// gaps fills the short times between the steps of the critical path: the agent
// itself took them, to learn of an end and to begin what follows.
func (s *Start) gaps() {
	path := slices.DeleteFunc(slices.Clone(s.Spans), func(o Span) bool { return !o.Critical })
	slices.SortFunc(path, func(a, b Span) int { return a.Began.Compare(b.Began) })
	at := s.Began
	fill := func(to time.Time) {
		known := func(o Span) bool { return !o.Began.After(at) && !o.Ended.Before(to) }
		if gap := to.Sub(at); gap > 0 && gap <= ownTime && !slices.ContainsFunc(s.Spans, known) {
			s.Spans = append(s.Spans, Span{Lane: "agent", Name: string(pod.Turn), Kind: Agent, Began: at, Ended: to, Critical: true})
		}
	}
	for _, o := range path {
		fill(o.Began)
		if o.Ended.After(at) {
			at = o.Ended
		}
	}
	fill(s.Ended)
}

// covered is the share of the time in which a span was under way.
func covered(spans []Span, from, to time.Time) float64 {
	whole := to.Sub(from)
	if whole <= 0 {
		return 1
	}
	byTime := slices.Clone(spans)
	slices.SortFunc(byTime, func(a, b Span) int { return a.Began.Compare(b.Began) })
	var sum time.Duration
	at := from
	for _, s := range byTime {
		if s.Began.After(at) {
			at = s.Began
		}
		if s.Ended.After(at) {
			sum += s.Ended.Sub(at)
			at = s.Ended
		}
	}
	return float64(sum) / float64(whole)
}
