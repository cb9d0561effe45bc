package syncloop

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// call is one call to the runtime.
type call struct {
	doing   string
	reason  string
	changes bool
	limit   time.Duration
	// starts is the pod for which the call starts something, if it does.
	starts *v1.Pod
	// turn is the container, as UID/name, whose turn the call belongs to.
	turn string
	// name is taken in the runtime while the call is under way, "" for none.
	name string
	// refused says, with world.mu held, that the runtime is already at it.
	refused func() error
	// work does what is asked for, with world.mu held. What it returns, if
	// anything, is waited for before the call ends.
	work func(id string) (<-chan struct{}, error)
	// over is called, with world.mu held, when the runtime is done with the
	// call, which may be long after its caller; nil for nothing.
	over func()
	// ready says whether the work can be done by now; nil for always.
	ready func() bool
}

// fate is how a call goes. The zero value means at once, and well.
type fate struct {
	before, after time.Duration
	err           error         // refused instead of done
	lost          bool          // done, but the answer is lost
	hangs         bool          // not done while the caller waits
	late          time.Duration // if hung or given up: done so much later; never if 0
}

// fate draws how a call goes.
func (w *world) fate(c call) fate {
	d := w.dice("call %s", c.doing)
	f := fate{before: between(d, time.Millisecond, 80*time.Millisecond), after: between(d, 0, 5*time.Millisecond)}
	if w.quiet {
		return f
	}
	if chance(d, 50) {
		f.late = between(d, time.Millisecond, time.Minute)
	}
	switch n := d.IntN(100); {
	case n < 4:
		f.err = status.Error(codes.Unknown, "injected failure")
	case n < 6:
		f.err = status.Error(codes.Unavailable, "injected: not done")
	case n < 9:
		f.lost = true
	case n < 11:
		f.hangs = true
	case n < 16:
		f.before = between(d, time.Second, 15*time.Second)
	case n < 18:
		f.after = between(d, 100*time.Millisecond, 10*time.Second)
	}
	return f
}

// do makes the call and says how it ended, as cri.Client would.
func (a *agent) do(ctx context.Context, c call) error {
	w := a.world
	if c.over == nil {
		c.over = func() {}
	}
	if ctx.Err() != nil {
		w.locked(c.over)
		return &cri.Error{Doing: c.doing, Reason: c.reason, Message: ctx.Err().Error(), Err: ctx.Err()}
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	var f fate
	var id string
	var err error
	w.locked(func() {
		f = w.fate(c)
		w.checks.sent(a, c)
		if c.name != "" {
			id, err = w.runtime.reserve(c.name)
		}
	})
	if err == nil && c.refused != nil {
		w.locked(func() { err = c.refused() })
	}
	if err != nil {
		w.locked(c.over)
		return a.failed(c, status.Error(codes.Unknown, err.Error()), true)
	}
	if f.hangs {
		f.before = 24 * time.Hour
	}
	if err := a.wait(ctx, f.before, c.ready); err != nil {
		w.locked(func() { a.abandon(c, f, id) })
		return a.failed(c, err, true)
	}
	ended, err := a.land(c, f, id)
	if err != nil {
		return a.failed(c, err, false)
	}
	if err := await(a, ctx, ended); err != nil {
		return a.failed(c, err, true)
	}
	if err := a.wait(ctx, f.after, nil); err != nil {
		return a.failed(c, err, true)
	}
	if f.lost {
		return a.failed(c, status.Error(codes.Unavailable, "injected: answer lost"), true)
	}
	return nil
}

// land does the call's work, or refuses it.
func (a *agent) land(c call, f fate, id string) (ended <-chan struct{}, err error) {
	a.world.locked(func() {
		err = f.err
		if err == nil {
			ended, err = c.work(id)
		}
		c.over()
		if err != nil && c.name != "" {
			delete(a.world.runtime.names, c.name)
		}
		a.world.checks.all()
	})
	return ended, err
}

// abandon is what the runtime does with a call whose caller is gone: it may go
// on with it, all the same.
func (a *agent) abandon(c call, f fate, id string) {
	if !c.changes {
		c.over()
		return
	}
	w := a.world
	goesOn := f.late > 0 && f.err == nil
	if !goesOn {
		w.after(f.late, func() {
			delete(w.runtime.names, c.name)
			c.over()
		})
		return
	}
	w.say("call goes on without its caller: %s", c.doing)
	w.after(f.late, func() {
		w.say("late: %s", c.doing)
		c.over()
		w.tardy = true
		defer func() { w.tardy = false }()
		if _, err := c.work(id); err != nil {
			delete(w.runtime.names, c.name)
		} else if s := w.runtime.sandboxes[id]; s != nil {
			s.late = true
		}
		w.checks.all()
	})
}

// wait lets time pass for a call, until ready says so too.
func (a *agent) wait(ctx context.Context, d time.Duration, ready func() bool) error {
	for {
		if err := await(a, ctx, time.After(d)); err != nil {
			return err
		}
		done := true
		a.world.locked(func() { done = ready == nil || ready() })
		if done {
			return nil
		}
		d = time.Second
	}
}

// await waits for c, unless the call breaks first.
func await[T any](a *agent, ctx context.Context, c <-chan T) error {
	var down chan struct{}
	a.world.locked(func() { down = a.world.runtime.down })
	select {
	case <-down:
		return status.Error(codes.Unavailable, "the runtime is down")
	case <-a.dead:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	default:
	}
	if c == nil {
		return nil
	}
	select {
	case <-c:
		return nil
	case <-down:
		return status.Error(codes.Unavailable, "the runtime went down")
	case <-a.dead:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failed is the error as the agent gets it. A call that was answered with a
// refusal did nothing; of one that was not answered nobody knows.
func (a *agent) failed(c call, err error, unanswered bool) error {
	e := &cri.Error{Doing: c.doing, Reason: c.reason, Message: err.Error(), Err: err}
	e.Uncertain = c.changes && (unanswered || status.Code(err) == codes.Unavailable)
	a.world.locked(func() {
		a.world.say("agent %d: failed: %s: %v", a.number, c.doing, err)
		if c.turn != "" {
			a.world.checks.stumbled[c.turn] = true
		}
	})
	return e
}
