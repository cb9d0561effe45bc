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
// end or for ctx.
func (s *pulls) do(ctx context.Context, key string, pull func(context.Context) (pullResult, error)) (pullResult, error) {
	f := s.join(key, pull)
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

func (s *pulls) join(key string, pull func(context.Context) (pullResult, error)) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flying[key]; f != nil {
		f.users++
		return f
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &flight{users: 1, cancel: cancel, ended: make(chan struct{})}
	s.flying[key] = f
	go func() {
		defer close(f.ended)
		f.got, f.err = s.inTurn(ctx, pull)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drop(key, f)
	}()
	return f
}

// inTurn runs pull when the limits allow.
func (s *pulls) inTurn(ctx context.Context, pull func(context.Context) (pullResult, error)) (pullResult, error) {
	if s.slots != nil {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-ctx.Done():
			return pullResult{}, ctx.Err()
		}
	}
	if s.turns != nil {
		if err := s.turns.Wait(ctx); err != nil {
			return pullResult{}, fmt.Errorf("wait for a turn to pull: %w", err)
		}
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
