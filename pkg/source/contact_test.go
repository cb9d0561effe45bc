package source

import (
	"errors"
	"log/slog"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// TestMissed: after an interruption, and when the apiserver can't go on from
// where the watch ended, news may have been missed; not when a watch only begins
// anew.
func TestMissed(t *testing.T) {
	missed := 0
	c := contact{log: slog.New(slog.DiscardHandler), missed: func() { missed++ }}
	for i, step := range []struct {
		err  error
		want int
	}{{nil, 0}, {nil, 0}, {errors.New("connection refused"), 0}, {errors.New("connection refused"), 0}, {nil, 1}, {nil, 1},
		{apierrors.NewResourceExpired("too old"), 2}, {nil, 2}} {
		c.note(step.err)
		if missed != step.want {
			t.Errorf("step %d: missed %d times, want %d", i, missed, step.want)
		}
	}
}
