package agent

import (
	"context"
	"log/slog"

	"k8s.io/klog/v2"
)

// LibrariesLogTo has what the Kubernetes client libraries log go there, as
// decisions that only a verbose agent shows: they say at each attempt what the
// agent says once itself. It is for the beginning of a process.
func LibrariesLogTo(log *slog.Logger) { klog.SetSlogLogger(slog.New(aside{log.Handler()})) }

// aside writes records of any level as Debug; those that libraries want shown
// to nobody by default it drops.
type aside struct{ slog.Handler }

func (a aside) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo && a.Handler.Enabled(ctx, slog.LevelDebug)
}

func (a aside) Handle(ctx context.Context, r slog.Record) error {
	if !a.Enabled(ctx, r.Level) {
		return nil // errors come without having asked
	}
	r.Level = slog.LevelDebug
	return a.Handler.Handle(ctx, r)
}

func (a aside) WithAttrs(attrs []slog.Attr) slog.Handler { return aside{a.Handler.WithAttrs(attrs)} }
func (a aside) WithGroup(name string) slog.Handler       { return aside{a.Handler.WithGroup(name)} }
