package stats

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// kept is something that takes long to find out. Whoever asks gets what is known
// and, if that is old, has it found out anew behind his back; he waits only for
// what is not known at all, or is very old, and not for long.
type kept[T any] struct {
	// fresh is the age up to which nothing is done, old the one from which it is
	// waited for.
	fresh, old time.Duration
	// read finds it out. It is given what is known.
	read func(context.Context, T) (T, error)

	mu     sync.Mutex
	value  T
	at     time.Time // zero before the first answer
	err    error
	next   chan struct{} // closed with the next answer
	wanted chan struct{} // of size 1: somebody asked
}

func newKept[T any](fresh, old time.Duration, read func(context.Context, T) (T, error)) *kept[T] {
	return &kept[T]{fresh: fresh, old: old, read: read, next: make(chan struct{}), wanted: make(chan struct{}, 1)}
}

// telling has the log say why something could not be found out: once, until it can
// be again. What was known before is told meanwhile.
func telling[T any](log *slog.Logger, what string, read func(context.Context, T) (T, error)) func(context.Context, T) (T, error) {
	told := false
	return func(ctx context.Context, known T) (T, error) {
		value, err := read(ctx, known)
		if err != nil && !told && ctx.Err() == nil {
			log.Warn("figures of the disk are old or missing: "+what, "error", err)
		}
		told = err != nil
		return value, err
	}
}

// get is what is known, waiting no longer than that. ageOf may be nil: then what
// is known is as old as it was found out. With an error it is the last that was
// known, perhaps nothing.
func (k *kept[T]) get(ctx context.Context, wait time.Duration, ageOf func(T) time.Duration) (T, error) {
	k.mu.Lock()
	value, at, err, next := k.value, k.at, k.err, k.next
	k.mu.Unlock()
	age := k.old
	switch {
	case at.IsZero():
	case ageOf != nil:
		age = ageOf(value)
	default:
		age = time.Since(at)
	}
	if age < k.fresh {
		return value, err
	}
	select {
	case k.wanted <- struct{}{}:
	default: // it is on its way
	}
	if age < k.old {
		return value, err
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	select {
	case <-next:
	case <-late.C:
	case <-ctx.Done():
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.value, k.err
}

// run finds it out whenever somebody asked, until ctx ends.
func (k *kept[T]) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.wanted:
		}
		k.mu.Lock()
		known := k.value
		k.mu.Unlock()
		value, err := k.read(ctx, known)
		k.mu.Lock()
		if err == nil {
			k.value, k.at = value, time.Now()
		}
		k.err = err
		close(k.next)
		k.next = make(chan struct{})
		k.mu.Unlock()
	}
}
