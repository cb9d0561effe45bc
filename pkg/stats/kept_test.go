package stats

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestKept: nothing is found out unasked, and who asks waits only for what is
// unknown or very old.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		var failing atomic.Bool
		k := newKept(10*time.Second, time.Minute, func(context.Context, int64) (int64, error) {
			time.Sleep(100 * time.Millisecond)
			n := reads.Add(1)
			if failing.Load() {
				return 0, errors.New("not now")
			}
			return n, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.run(ctx) }()
		time.Sleep(time.Hour)
		if n := reads.Load(); n != 0 {
			t.Errorf("found out %d times before anybody asked", n)
		}
		for i, step := range []struct {
			after      time.Duration // after the step before
			fail       bool
			want, read int64         // read: afterwards
			waits      time.Duration // at most a second
		}{
			{want: 1, read: 1, waits: 100 * time.Millisecond},
			{after: 8 * time.Second, want: 1, read: 1},
			{after: 2 * time.Second, want: 1, read: 2}, // told what is known
			{after: 5 * time.Second, want: 2, read: 2},
			{after: 2 * time.Minute, want: 3, read: 3, waits: 100 * time.Millisecond},
			{after: 2 * time.Minute, fail: true, want: 3, read: 4, waits: 100 * time.Millisecond}, // the last good one
		} {
			time.Sleep(step.after)
			failing.Store(step.fail)
			began := time.Now()
			got, err := k.get(ctx, time.Second, nil)
			if waited := time.Since(began); waited != step.waits || got != step.want || step.fail != (err != nil) {
				t.Errorf("step %d: got %d, %v after %v, want %d after %v", i, got, err, waited, step.want, step.waits)
			}
			time.Sleep(time.Second)
			if n := reads.Load(); n != step.read {
				t.Errorf("step %d: found out %d times, want %d", i, n, step.read)
			}
		}
		cancel()
		<-done
	})
}

// TestKeptGivesUpWaiting for what doesn't come.
func TestKeptGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(time.Second, time.Minute, func(ctx context.Context, _ int) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.run(ctx) }()
		began := time.Now()
		if _, err := k.get(ctx, time.Second, nil); err != nil || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		cancel()
		<-done
	})
}

// TestTelling: what can't be found out is told of once, and again when it could
// be in between.
func TestTelling(t *testing.T) {
	var log strings.Builder
	results := []error{errors.New("first"), errors.New("second"), nil, errors.New("third")}
	read := telling(slog.New(slog.NewTextHandler(&log, nil)), "nobody says", func(_ context.Context, n int) (int, error) { return n + 1, results[n] })
	for n := range results {
		if got, err := read(t.Context(), n); got != n+1 || err != results[n] {
			t.Errorf("%d: %d %v", n, got, err)
		}
	}
	if text := log.String(); strings.Count(text, "nobody says") != 2 || !strings.Contains(text, "first") || !strings.Contains(text, "third") {
		t.Error(text)
	}
}
