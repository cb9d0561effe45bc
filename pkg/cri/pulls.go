package cri

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/time/rate"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pulls are the pulls in flight on this node. A flight has users; it is
// cancelled when the last of them leaves, and no goroutine outlives them.
type pulls struct {
	slots chan struct{} // nil: no limit
	turns *rate.Limiter // nil: no limit

	mu     sync.Mutex
	flying map[string]*flight
}

type flight struct {
	users  int // under pulls.mu
	cancel context.CancelFunc
	turn   chan struct{} // closed once it has its turn, if it gets it
	ended  chan struct{} // closed once got and err are set
	got    pullResult
	err    error
}

func newPulls(o ImageOptions) *pulls {
	s := &pulls{flying: map[string]*flight{}}
	if o.MaxParallel >= 0 {
		s.slots = make(chan struct{}, max(o.MaxParallel, 1))
	}
	if o.QPS > 0 {
		s.turns = rate.NewLimiter(rate.Limit(o.QPS), max(o.Burst, 1))
	}
	return s
}

// pullKey tells pulls apart that may not be shared: one pod's credentials
// must not fetch for another.
func pullKey(name string, creds []*runtimeapi.AuthConfig) string {
	key := name
	for _, a := range creds {
		key += fmt.Sprintf("|%q:%q", a.Username, a.Password)
	}
	return key
}

// do joins the flight called key, or begins it with pull, and waits for its
// end or for ctx. It says to queued what else it waits for first.
func (s *pulls) do(ctx context.Context, key string, queued func(string), pull func(context.Context) (pullResult, error)) (pullResult, error) {
	f := s.join(ctx, key, pull)
	f.awaitTurn(ctx, queued)
	select {
	case <-f.ended:
		s.leave(key, f)
		return f.got, f.err
	case <-ctx.Done():
		if s.leave(key, f) {
			<-f.ended // the last one out sees the light go off
		}
		return pullResult{}, ctx.Err()
	}
}

// awaitTurn returns when the flight has its turn, or has ended without.
func (f *flight) awaitTurn(ctx context.Context, queued func(string)) {
	select {
	case <-f.turn:
		return
	default:
	}
	if queued != nil {
		queued("a turn to pull")
		defer queued("")
	}
	select {
	case <-f.turn:
	case <-f.ended:
	case <-ctx.Done():
	}
}

// join takes part in the flight called key, or begins it. It lives as long as any
// of its users; in traces it is the first one's.
func (s *pulls) join(ctx context.Context, key string, pull func(context.Context) (pullResult, error)) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flying[key]; f != nil {
		f.users++
		return f
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{users: 1, cancel: cancel, turn: make(chan struct{}), ended: make(chan struct{})}
	s.flying[key] = f
	slot := s.slots == nil || s.slotNow()
	if slot && (s.turns == nil || s.turns.Allow()) {
		close(f.turn)
	}
	go func() {
		defer close(f.ended)
		f.got, f.err = s.inTurn(ctx, f.turn, slot, pull)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drop(key, f)
	}()
	return f
}

// slotNow takes a slot if one is free.
func (s *pulls) slotNow() bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// inTurn runs pull when the limits allow, and closes turn then if it isn't yet.
func (s *pulls) inTurn(ctx context.Context, turn chan struct{}, slot bool, pull func(context.Context) (pullResult, error)) (pullResult, error) {
	if !slot {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return pullResult{}, ctx.Err()
		}
	}
	if s.slots != nil {
		defer func() { <-s.slots }()
	}
	select {
	case <-turn:
	default:
		if s.turns != nil {
			if err := s.turns.Wait(ctx); err != nil {
				return pullResult{}, fmt.Errorf("wait for a turn to pull: %w", err)
			}
		}
		close(turn)
	}
	return pull(ctx)
}

// leave says whether this was the last user; then the flight is called off, and
// nobody can join it any more.
func (s *pulls) leave(key string, f *flight) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.users--
	if f.users > 0 {
		return false
	}
	s.drop(key, f)
	f.cancel()
	return true
}

// drop lets the next one who wants the image begin anew. The caller holds mu.
func (s *pulls) drop(key string, f *flight) {
	if s.flying[key] == f {
		delete(s.flying, key)
	}
}
