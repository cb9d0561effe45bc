package node

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// The waits after a failure.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// trouble tells of something that fails once, and once when it is over.
type trouble struct {
	log  *slog.Logger
	what string
	wait time.Duration
	told bool
}

// failed says how long to wait before trying again: longer each time, and not
// the same on every node.
func (t *trouble) failed(ctx context.Context, err error) time.Duration {
	if !t.told && ctx.Err() == nil && !apierrors.IsConflict(err) {
		t.told = true
		t.log.Error(t.what, "error", err)
	}
	t.wait = min(max(2*t.wait, firstRetry), lastRetry)
	return t.wait/2 + rand.N(t.wait/2)
}

// over says that it works.
func (t *trouble) over() {
	if t.told {
		t.log.Info("no longer: " + t.what)
	}
	t.told, t.wait = false, 0
}

// jittered is a period made a little longer, so that not all nodes do the same
// at the same time.
func jittered(d time.Duration) time.Duration { return d + rand.N(d/25+1) }

// pause waits. Its error says that ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
