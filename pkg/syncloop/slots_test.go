package syncloop

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Waiters get their slot in the order of their rank, however they came.
func TestSlotsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(s int) time.Time { return time.Unix(int64(s), 0) }
		s := newSlots(1)
		if err := s.join(rank{since: at(1)}).wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.join(rank{critical: true}).wait(t.Context()); err != nil {
			t.Fatal("a critical pod does not get the slot that is kept for it")
		}
		var order []string
		for name, r := range map[string]rank{
			"3 young":    {since: at(9)},
			"2 old":      {since: at(2)},
			"1 priority": {priority: 5, since: at(9)},
			"0 critical": {critical: true, priority: pod.SystemCritical, since: at(9)},
			"4 failed":   {failed: true, priority: 9, since: at(1)},
		} {
			go func() {
				if err := s.join(r).wait(t.Context()); err != nil {
					t.Error(err)
				}
				order = append(order, name)
			}()
		}
		synctest.Wait()
		for range 6 {
			s.release()
			synctest.Wait()
		}
		if want := []string{"0 critical", "1 priority", "2 old", "3 young", "4 failed"}; !slices.Equal(order, want) {
			t.Errorf("slots were given in the order %q, want %q", order, want)
		}
	})
}

// One who gives up leaves no slot taken, even if it was his turn by then.
func TestSlotsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1)
		if err := s.join(rank{}).wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- s.join(rank{}).wait(ctx) }()
			synctest.Wait()
			if i%2 == 0 {
				cancel()
				s.release()
			} else {
				s.release()
				cancel()
			}
			if <-done == nil {
				s.release()
			}
			if err := s.join(rank{}).wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s.release()
		if s.free != 2 || len(s.waiting) != 0 {
			t.Errorf("%d slots are free and %d wait, want 2 and none", s.free, len(s.waiting))
		}
	})
}

// Who has given up by the time he asks gets none.
func TestSlotsCanceledBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := newSlots(1)
	if err := s.join(rank{}).wait(ctx); err == nil {
		t.Error("a slot was given to one who had given up")
	}
	if s.free != 2 {
		t.Errorf("%d slots are free, want 2", s.free)
	}
}
