package agent

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

func TestLibrariesAreHeardByTheVerboseOnly(t *testing.T) {
	defer klog.ClearLogger()
	for level, want := range map[slog.Level]string{
		slog.LevelInfo:  "",
		slog.LevelDebug: "level=DEBUG msg=said\nlevel=DEBUG msg=failed err=why\n",
	} {
		var out strings.Builder
		LibrariesLogTo(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
		klog.InfoS("said")
		klog.V(1).InfoS("chatter")
		klog.ErrorS(errors.New("why"), "failed")
		if out.String() != want {
			t.Errorf("%v: %q, want %q", level, &out, want)
		}
	}
}
