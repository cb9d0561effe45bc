package syncloop

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Pods that hang until another one runs, as without the driver of the network,
// don't keep that one from starting, though they are older, more than there
// are slots, and try again for ever.
func TestOneThatAllOthersNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1)
		w.quiet = true
		o := newOrigins("file")
		w.sources["file"] = o
		r := w.dice("pods")
		plain := func(i int) *draft {
			d := newDraft(r, i)
			w.makeNeeded(d) // as plain as that
			d.pod.Name = fmt.Sprintf("p%d", i)
			d.pod.Spec.HostNetwork, d.pod.Spec.Priority = false, nil
			return d
		}
		last := plain(100)
		for i := range 3 * slotCount {
			w.put(o, plain(i))
		}
		w.runtime.needs = last.pod.UID
		w.startAgent()
		time.Sleep(5 * time.Minute)
		w.locked(func() { w.put(o, last) })
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		var amiss []string
		w.locked(func() { amiss = slices.Concat(w.wrong, w.amiss()) })
		for _, a := range amiss {
			t.Error(a)
		}
		w.stopAgent(true)
	})
}
