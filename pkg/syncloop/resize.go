package syncloop

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cgroups"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// allocate asks the ledger for the resources of the pod's wish and writes the
// grant before anybody acts on it. Room that the pod gives up is others' only
// once that is on disk.
func (a *actor) allocate(ctx context.Context, p pod.Pod) (pod.Event, error) {
	desired := p.Wish()
	e := pod.Resized{At: time.Now(), Desired: desired,
		Verdict: a.loop.grants.resize(ledger.ResizingOf(p.Spec, desired, p.Resize.Since))}
	if e.Verdict.State != pod.Granted {
		return e, nil
	}
	record := pod.Apply(p, e).Record()
	err := a.loop.publishNow(ctx, stateOf(record.Spec, record.Actuated))
	if err == nil {
		err = a.loop.Records.Write(string(p.UID()), record)
	}
	if err != nil {
		a.loop.states.put(stateOf(p.Spec, p.Resize.Actuated))
		a.loop.grants.resized(ledger.ClaimOf(p.Spec))
		return nil, fmt.Errorf("write the grant of the pod's resize: %w", err)
	}
	e.Record = &record
	a.loop.grants.resized(ledger.ClaimOf(desired))
	a.loop.resizeDeferred()
	return e, nil
}

// resizeDeferred has the pods ask again whose resizes there is room for now.
func (l *Loop) resizeDeferred() {
	for _, uid := range l.grants.due() {
		if a := l.actor(uid); a != nil {
			a.mail.put(pod.Resized{At: time.Now()})
		}
	}
}

// allocated is the pod with the resources that an earlier process granted it.
func (l *Loop) allocated(p *v1.Pod) *v1.Pod {
	if r, ok := l.Allocated[p.UID]; ok {
		return r.On(p)
	}
	if r, ok := l.Known[p.UID]; ok && r.Granted && r.Spec != nil {
		return pod.ResourcesOf(r.Spec).On(p)
	}
	return p
}

// actuate sets what was granted: first the pod's cgroup to the greater of what
// it had and what it gets, so that its containers fit in at any time, then the
// containers, then the pod's cgroup to what it gets. Done twice it does no harm.
func (a *actor) actuate(ctx context.Context, p pod.Pod) error {
	l, from := a.loop, p.Actuated()
	if err := l.Cgroups.Grow(ctx, from, p.Spec); err != nil {
		return err
	}
	updates := p.Updates()
	if err := a.fits(ctx, from, p.Spec, updates); err != nil {
		return err
	}
	for _, u := range updates {
		if err := l.Runtime.Update(ctx, p.Spec, u.Container, u.ID); err != nil {
			return err
		}
	}
	return l.Cgroups.Create(ctx, p.Spec)
}

// size gives a created instance the pod's resources, if it may have others.
// Should that fail it is asked again: a dead agent may have had it started.
func (a *actor) size(ctx context.Context, p pod.Pod, start pod.Action) error {
	if !p.Unsure(start.Container, start.ID) {
		return nil
	}
	err := a.loop.Runtime.Update(ctx, p.Spec, start.Container, start.ID)
	if ctx.Err() != nil {
		return ctx.Err() // it is no longer wanted
	}
	if err != nil {
		return &cri.Error{Doing: "start container " + start.Container, Reason: cri.ReasonRun, Message: err.Error(), Uncertain: true, Err: err}
	}
	return nil
}

// fits says which memory limit would fall below what is in use: the kernel
// would end processes to make room (behaviour row 1.3-34).
func (a *actor) fits(ctx context.Context, from, to *v1.Pod, updates []pod.Update) error {
	var errs []error
	less := func(was, want int64) bool { return want > 0 && (was == 0 || want < was) }
	podLimit := func(p *v1.Pod) int64 { return cgroups.ResourceConfig(p, true, time.Second).Memory }
	if want := podLimit(to); less(podLimit(from), want) {
		used, err := a.loop.Cgroups.MemoryUsage(ctx, to)
		switch {
		case err != nil:
			return fmt.Errorf("read the pod's memory usage: %w", err)
		case used >= want:
			errs = append(errs, fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", want, used))
		}
	}
	limit := func(p *v1.Pod, name string) int64 {
		return pod.FindContainer(p, name).Resources.Limits.Memory().Value()
	}
	for _, u := range updates {
		want := limit(to, u.Container)
		if !less(limit(from, u.Container), want) {
			continue
		}
		used, err := a.loop.Runtime.MemoryUsage(ctx, u.ID)
		switch {
		case err != nil:
			return fmt.Errorf("read memory usage of container %s: %w", u.Container, err)
		case used >= want:
			errs = append(errs, fmt.Errorf("attempting to set container %q memory limit (%d) below current usage (%d)", u.Container, want, used))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot decrease memory limits: %w", err)
	}
	return nil
}
