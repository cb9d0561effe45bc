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
	slots  *slots
	joined time.Time
	turn   chan struct{} // closed when it is their turn
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

// join takes a place among those who wait, by rank; it may be the pod's turn at
// once. Who joins must wait.
func (s *slots) join(r rank) *waiter {
	w := &waiter{rank: r, slots: s, joined: time.Now(), turn: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.waiting, w, func(a, b *waiter) int {
		if c := a.compare(b.rank); c != 0 {
			return c
		}
		return -1 // behind those of the same rank
	})
	s.waiting = slices.Insert(s.waiting, i, w)
	s.hand()
	return w
}

// came says that it is the pod's turn already.
func (w *waiter) came() bool {
	select {
	case <-w.turn:
		return true
	default:
		return false
	}
}

// wait returns when it is the pod's turn, which then has a slot to release, or
// with the context's error and without one.
func (w *waiter) wait(ctx context.Context) error {
	select {
	case <-w.turn:
	case <-ctx.Done():
	}
	err := ctx.Err() // asked once: it may end any moment, and a slot must have one fate
	if err != nil {
		w.slots.leave(w)
	}
	return err
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

// waits is how many wait.
func (s *slots) waits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	s.hand()
}
