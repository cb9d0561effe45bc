package pod

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Launch is one way of a pod to where it is wanted to be, for people: from when a
// source wanted it, or something of it that ran has ended and is to run again,
// until it is ready, or ends. Package timeline makes a picture of it.
type Launch struct {
	// Why it began, "" for the pod's first.
	Why string
	// Found says that the pod ran before this process knew of it: what came
	// before is not known.
	Found bool
	// Seen is when the source first saw the pod, zero if it doesn't say; Began
	// when the agent took it up.
	Seen, Began time.Time
	Reached
	// Sent and Told are when the apiserver was sent that the pod is ready, and
	// when it had taken it; zero without one.
	Sent, Told time.Time
	// Steps are the actions that began before it was over and have ended, Waits
	// what the pod waited for while none that it needs was in flight; the oldest
	// first. Of many, the first and the newest are kept; Left says of others.
	Steps []Step
	Waits []Wait
	Left  Left
}

// Left is what is still known of the steps and waits of a launch that are not
// kept: how many there were, between when.
type Left struct {
	Steps, Waits int
	Began, Ended time.Time
}

// Reached is when a launch got how far, zero before it does.
type Reached struct {
	Admitted, Sandboxed, Running, Ready time.Time
	// Over is when nothing was left to wait for: the pod is ready, its containers
	// have ended for good, or it is to end.
	Over time.Time
}

// Wait is a time in which the pod waited for one thing.
type Wait struct {
	Cause        Cause
	Container    string
	Began, Ended time.Time // Ended is zero of one that goes on
}

// Queue is what an action waited for before its call could be made: a turn among
// those of other pods. It is zero if it had its turn at once.
type Queue struct {
	For          string
	Began, Ended time.Time // Ended is zero while it waits
}

// Queued says that the action in flight with that key waits for a turn of that
// kind, or if For is "", that it has it.
type Queued struct {
	At  time.Time
	Key string
	For string
}

// Held says what the pod waits for from now on: see HeldUp. Without a cause it
// is nothing that is not in flight.
type Held struct {
	At        time.Time
	Cause     Cause
	Container string
}

// Published says that the apiserver has taken that the pod is ready: when it
// was sent, and when the answer came.
type Published struct{ Sent, At time.Time }

func (Queued) isEvent()    {}
func (Held) isEvent()      {}
func (Published) isEvent() {}

// ForPeople says of an event that it changes only how the pod is explained: not
// what is to be done, nor what the world is told.
func ForPeople(e Event) bool {
	switch e.(type) {
	case Queued, Held, Published:
		return true
	}
	return false
}

// KeptOfLaunch is how many of the first steps and of the first waits of a start
// are kept, and as many of the newest.
const KeptOfLaunch = 24

// keep appends; of a list that is long already it leaves out one in the middle.
func keep[E any](list []E, e E) (kept []E, left *E) {
	if len(list) < 2*KeptOfLaunch {
		return append(slices.Clone(list), e), nil
	}
	return append(slices.Concat(list[:KeptOfLaunch], list[KeptOfLaunch+1:]), e), &list[KeptOfLaunch]
}

func (l *Left) add(began, ended time.Time) {
	if l.Began.IsZero() || began.Before(l.Began) {
		l.Began = began
	}
	l.Ended = latestOf(l.Ended, ended)
}

// firstLaunch is the launch of a pod that is new here.
func (p *Pod) firstLaunch(at time.Time) {
	s := Launch{Began: at, Found: len(p.View.Sandboxes)+len(p.View.Containers) > 0}
	if !s.Found {
		s.Seen = seenBySource(p.Spec, at)
	}
	p.Launches = []Launch{s}
}

// seenBySource is when the source first saw the pod, if it says so (behaviour
// row 1.1-6); not later than now.
func seenBySource(spec *v1.Pod, now time.Time) time.Time {
	seen, err := time.Parse(time.RFC3339Nano, spec.Annotations["kubernetes.io/config.seen"])
	if err != nil || seen.After(now) {
		return time.Time{}
	}
	return seen
}

// onLaunch alters the newest launch, on a copy.
func (p *Pod) onLaunch(alter func(*Launch)) {
	if len(p.Launches) == 0 {
		return
	}
	p.Launches = slices.Clone(p.Launches)
	alter(&p.Launches[len(p.Launches)-1])
}

// begins says that the newest launch is not over.
func (p Pod) begins() bool {
	return len(p.Launches) > 0 && p.Launches[len(p.Launches)-1].Over.IsZero()
}

// includes says that what began then began before the launch was over.
func (s Launch) includes(began time.Time) bool { return s.Over.IsZero() || began.Before(s.Over) }

// took enters a finished action, also in a launch that went on without it: a call
// that hangs may end when another launch is under way.
func (p *Pod) took(s Step) {
	p.Steps = append(slices.Clone(tail(p.Steps, keptSteps-1)), s)
	p.Launches = slices.Clone(p.Launches)
	for i := range p.Launches {
		if l := &p.Launches[i]; l.includes(s.Began) {
			var left *Step
			if l.Steps, left = keep(l.Steps, s); left != nil {
				l.Left.Steps++
				l.Left.add(left.Began, left.Ended)
			}
		}
	}
}

// queued enters that an action waits for its turn, or has it.
func (p *Pod) queued(e Queued) {
	d, ok := p.Doing[e.Key]
	switch {
	case !ok:
		return
	case e.For != "":
		d.Queue = Queue{For: e.For, Began: e.At}
	default:
		d.Queue.Ended = e.At
	}
	p.Doing = with(p.Doing, e.Key, d)
}

// held enters what the pod waits for from now on.
func (p *Pod) held(e Held) {
	p.onLaunch(func(s *Launch) {
		s.endWait(e.At)
		if e.Cause != "" && s.Over.IsZero() {
			var left *Wait
			if s.Waits, left = keep(s.Waits, Wait{Cause: e.Cause, Container: e.Container, Began: e.At}); left != nil {
				s.Left.Waits++
				s.Left.add(left.Began, left.Ended)
			}
		}
	})
}

// waiting is the wait that goes on, nil for none.
func (s Launch) waiting() *Wait {
	if n := len(s.Waits); n > 0 && s.Waits[n-1].Ended.IsZero() {
		return &s.Waits[n-1]
	}
	return nil
}

func (s *Launch) endWait(at time.Time) {
	if s.waiting() != nil {
		s.Waits = slices.Clone(s.Waits)
		s.Waits[len(s.Waits)-1].Ended = at
	}
}

// published enters that the apiserver knows of the newest launch.
func (p *Pod) published(e Published) {
	p.onLaunch(func(s *Launch) {
		if !s.Ready.IsZero() && s.Told.IsZero() && !e.Sent.Before(s.Ready) {
			s.Sent, s.Told = e.Sent, e.At
		}
	})
}

// arrive notes how far the newest launch has got, or that another begins.
func (p *Pod) arrive(at time.Time) {
	if !p.begins() {
		p.fall(at)
		return
	}
	ready, up := p.up()
	r := p.Launches[len(p.Launches)-1].Reached
	for _, m := range []struct {
		when *time.Time
		is   bool
	}{
		{&r.Admitted, p.Verdict.State == Granted}, {&r.Sandboxed, p.sandboxUsable()}, {&r.Running, p.Phase == v1.PodRunning},
		{&r.Ready, ready}, {&r.Over, up || p.Stop != nil},
	} {
		if m.is && m.when.IsZero() {
			*m.when = at
		}
	}
	if r != p.Launches[len(p.Launches)-1].Reached {
		p.onLaunch(func(s *Launch) {
			if s.Reached = r; !r.Over.IsZero() {
				s.endWait(at)
			}
		})
	}
}

// up says whether the pod is ready, and whether nothing is left to wait for:
// each of its containers is ready, or has ended for good.
func (p Pod) up() (ready, up bool) {
	if p.Stop != nil || p.Verdict.State != Granted && !p.everStarted() {
		return false, false
	}
	ready, up = true, true
	for _, m := range lasting(p.Spec) {
		if m.role == initial || p.isReady(m) {
			continue
		}
		ready = false
		if k := p.Containers[m.Name].Known; k == nil || k.State != Exited || p.again(m, *k) || p.aborted(*k) {
			up = false
		}
	}
	if len(p.gates()) > 0 {
		return false, false
	}
	return ready, up
}

// fall begins another launch if something of the pod that ran does so no more,
// and is to run again.
func (p *Pod) fall(at time.Time) {
	if p.Stop != nil || len(p.Launches) == 0 {
		return
	}
	over := p.Launches[len(p.Launches)-1].Over
	for _, m := range lasting(p.Spec) {
		k := p.Containers[m.Name].Known
		if m.role == initial || k != nil && p.present(k) && (k.State == Running || k.State == Exited && !p.again(m, *k)) {
			continue
		}
		s := Launch{Why: "container " + m.Name + " no longer runs", Began: at}
		if k != nil && k.FinishedAt.After(over) && k.FinishedAt.Before(at) {
			s.Began = k.FinishedAt
			s.Waits = []Wait{{Cause: Notice, Container: m.Name, Began: k.FinishedAt, Ended: at}}
		}
		p.Launches = append(slices.Clone(p.Launches[:1]), s)
		return
	}
}
