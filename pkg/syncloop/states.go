package syncloop

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// statePause is how long changes are gathered before the files are written: a
// burst of pods costs a few writes.
const statePause = 250 * time.Millisecond

// stateRetry is when files that could not be written are tried again.
const stateRetry = 10 * time.Second

// state is what another agent is to know of a pod's resources.
type state struct {
	uid                 types.UID
	allocated, actuated *pod.Resources // nil when the pod has ended
	// written is told once it is on disk; nil if nobody waits.
	written chan<- error
}

// stateOf is what to tell of the pod, whose spec has what is allocated.
func stateOf(spec *v1.Pod, was *pod.Actuated) state {
	allocated := pod.ResourcesOf(spec)
	actuated := allocated
	if was != nil {
		actuated = was.Resources
	}
	return state{uid: spec.UID, allocated: &allocated, actuated: &actuated}
}

// publish tells what is new of the pod's resources.
func (a *actor) publish() {
	p := a.pod
	if p.Setup.Released || pod.IsTerminal(p.Phase) {
		if a.published != nil {
			a.published = nil
			a.loop.states.put(state{uid: p.UID()})
		}
		return
	}
	if p.Verdict.State != pod.Granted || a.published == p.Spec && a.actuated == p.Resize.Actuated {
		return
	}
	a.published, a.actuated = p.Spec, p.Resize.Actuated
	a.loop.states.put(stateOf(p.Spec, p.Resize.Actuated))
}

// publishNow has it on disk before anything follows from it: the grant of a
// resize, or that nothing is left of a pod, whose UID may come again.
func (l *Loop) publishNow(ctx context.Context, s state) error {
	written := make(chan error, 1)
	s.written = written
	l.states.put(s)
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stateFiles are what the files say, or are to say.
type stateFiles struct {
	allocated, actuated map[types.UID]pod.Resources
	// dirty says that the files say something else.
	dirty bool
	told  string // the newest failure to write them, told once
}

// note takes in what is new, and returns who waits for it to be written.
func (s *stateFiles) note(news []state) (wait []chan<- error) {
	for _, n := range news {
		if n.allocated == nil {
			delete(s.allocated, n.uid)
			delete(s.actuated, n.uid)
		} else {
			s.allocated[n.uid], s.actuated[n.uid] = *n.allocated, *n.actuated
		}
		if n.written != nil {
			wait = append(wait, n.written)
		}
		s.dirty = true
	}
	return wait
}

func (l *Loop) writeStates(s *stateFiles) error {
	err := l.States.Write(s.allocated, s.actuated)
	s.dirty = err != nil
	switch {
	case err == nil:
		s.told = ""
	case err.Error() != s.told:
		s.told = err.Error()
		l.Log.Warn("what pods were granted is not on disk for another agent; tried again every 10 s", "error", err)
	}
	return err
}

// keepStates keeps the files at what the pods have, and leaves them so.
func (l *Loop) keepStates(ctx context.Context) {
	s := &stateFiles{allocated: map[types.UID]pod.Resources{}, actuated: map[types.UID]pod.Resources{}}
	pause := time.NewTimer(time.Hour)
	pause.Stop()
	defer pause.Stop()
	for {
		waiting := s.dirty // the timer runs
		select {
		case <-ctx.Done():
			wait := s.note(l.states.take())
			if s.dirty {
				answer(wait, l.writeStates(s))
			}
			return
		case <-pause.C:
			if l.writeStates(s) != nil {
				pause.Reset(stateRetry)
			}
		case <-l.states.ready:
			wait := s.note(l.states.take())
			switch {
			case len(wait) > 0:
				err := l.writeStates(s)
				answer(wait, err)
				if err != nil && !waiting {
					pause.Reset(stateRetry)
				}
			case s.dirty && !waiting:
				pause.Reset(statePause)
			}
		}
	}
}

func answer(wait []chan<- error, err error) {
	for _, w := range wait {
		w <- err
	}
}

// takeOver fills in what another agent granted and gave to a pod that runs.
func (l *Loop) takeOver(w *pod.Wanted) {
	if r, ok := l.Allocated[w.Spec.UID]; ok {
		w.Allocated = &r
		if had, ok := l.Actuated[w.Spec.UID]; ok {
			w.Actuated = &had
		}
	}
}
