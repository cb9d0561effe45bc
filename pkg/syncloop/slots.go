package syncloop

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// slots bounds how many create and start calls run at once. More of them than
// about two per core do not raise the rate and make every pod wait for all;
// given to the foremost pod first, they let pods finish one after another.
type slots struct {
	mu      sync.Mutex
	free    int
	waiting []*waiter // foremost first
}

// rank orders those who wait: critical pods, then those that have not failed
// yet, then higher priority, then age. What failed comes last because it may
// hang again, and perhaps until somebody behind it runs.
type rank struct {
	critical bool
	failed   bool
	priority int32
	since    time.Time
}

type waiter struct {
	rank
	turn chan struct{} // closed when it is their turn
}

// newSlots has n slots, and one more that only critical pods can take.
func newSlots(n int) *slots { return &slots{free: n + 1} }

func (r rank) compare(o rank) int {
	first := func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	}
	return cmp.Or(first(r.critical, o.critical), first(!r.failed, !o.failed), cmp.Compare(o.priority, r.priority), r.since.Compare(o.since))
}

// acquire waits for a slot. The error is the context's.
func (s *slots) acquire(ctx context.Context, r rank) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.admits(r) && len(s.waiting) == 0 {
		s.free--
		s.mu.Unlock()
		return nil
	}
	w := &waiter{rank: r, turn: make(chan struct{})}
	i, _ := slices.BinarySearchFunc(s.waiting, w, func(a, b *waiter) int {
		if c := a.compare(b.rank); c != 0 {
			return c
		}
		return -1 // behind those of the same rank
	})
	s.waiting = slices.Insert(s.waiting, i, w)
	s.hand()
	s.mu.Unlock()
	select {
	case <-w.turn:
		if ctx.Err() == nil {
			return nil
		}
		s.release()
		return ctx.Err()
	case <-ctx.Done():
		s.leave(w)
		return ctx.Err()
	}
}

// admits says whether a pod of that rank may take a slot: the last one is for
// critical pods.
func (s *slots) admits(r rank) bool { return s.free > 1 || s.free == 1 && r.critical }

// hand gives free slots to the foremost.
func (s *slots) hand() {
	for len(s.waiting) > 0 && s.admits(s.waiting[0].rank) {
		s.free--
		close(s.waiting[0].turn)
		s.waiting = s.waiting[1:]
	}
}

// leave takes a waiter out, or gives its slot on if it came at the same time.
func (s *slots) leave(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, w); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return
	}
	s.free++
	s.hand()
}

func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	s.hand()
}
