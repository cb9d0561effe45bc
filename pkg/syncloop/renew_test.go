package syncloop

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodeagent/nodeagent/pkg/source"
)

// A pod whose volumes show a token is woken when it is due, and for nothing
// else.
func TestVolumesAreRenewedWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(w *world) { w.quiet = true; w.disk.tokens = time.Hour })
		b.updates <- source.Update{Source: "file", Pods: []source.Desired{{Pod: static("web", "w", "term=0s"), Origin: "/m/web"}}}
		time.Sleep(150 * time.Minute)
		var mounted []time.Time
		b.agent.world.locked(func() { mounted = slices.Clone(b.agent.world.disk.mounted) })
		if len(mounted) != 3 {
			t.Fatalf("mounted %d times in 2.5 hours: %v", len(mounted), mounted)
		}
		for i := range 2 {
			if gap := mounted[i+1].Sub(mounted[i]); (gap - time.Hour).Abs() > time.Second {
				t.Errorf("mounted again after %s", gap)
			}
		}
	})
}
