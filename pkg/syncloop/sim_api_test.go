package syncloop

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
)

// cluster is what concerns the apiserver of a machine that joined one. All is
// guarded by world.mu.
type cluster struct {
	origins *origins // nil for a machine on its own
	boot    int      // of the machine
	start   bool     // pods may be started without asking
	removed map[types.UID]bool
	heard   map[int]bool // agents that have had its list
}

// join makes half of the machines nodes of a cluster, whose apiserver cannot be
// reached now and then, nor perhaps when an agent starts. Its dice are its own,
// so that all else that a seed draws stays as it is.
func (w *world) join(add func(time.Duration, func()), calm time.Duration) (reboots []time.Duration) {
	r := rand.New(rand.NewPCG(w.seed, 2))
	if chance(r, 50) {
		return nil
	}
	c := &w.cluster
	c.start = chance(r, 50)
	c.origins = newOrigins(source.APIName)
	c.origins.away = chance(r, 20)
	w.sources[source.APIName] = c.origins
	for i := range 2 + r.IntN(3) {
		w.bind(r, add, newBound(r, i), calm)
	}
	reach := func(at time.Duration, can bool) {
		add(at, func() {
			w.say("the apiserver can be reached: %v", can)
			c.origins.away = !can
			c.origins.touch()
		})
	}
	for range 1 + r.IntN(2) {
		at := between(r, 0, calm)
		reach(at, false)
		reach(min(calm, at+between(r, 10*time.Second, 4*time.Minute)), true)
	}
	reach(calm, true)
	for range r.IntN(3) / 2 {
		reboots = append(reboots, between(r, 0, calm))
	}
	return reboots
}

// newBound draws a pod of the apiserver.
func newBound(r *rand.Rand, i int) *draft {
	d := newDraft(r, 100+i)
	d.origin, d.static = fmt.Sprintf("/api/%d", i), false
	d.pod.Name, d.pod.UID = fmt.Sprintf("api%d", i), types.UID(fmt.Sprintf("api%d", i))
	if chance(r, 40) {
		ofDaemonSet(d.pod)
	}
	return d
}

// bind draws what becomes of the pod.
func (w *world) bind(r *rand.Rand, add func(time.Duration, func()), d *draft, calm time.Duration) {
	o, at := w.cluster.origins, time.Duration(0)
	if chance(r, 50) {
		at = between(r, 0, calm)
	}
	add(at, func() { w.put(o, d) })
	for range r.IntN(3) {
		at := between(r, at, calm)
		switch r.IntN(4) {
		case 0:
			add(at, func() { d.change(w.dice("change %s", d.origin)); w.put(o, d) })
		case 1, 2:
			add(at, func() { d.resize(w.dice("resize %s", d.origin)); w.put(o, d) })
		case 3:
			add(at, func() {
				w.say("%s is removed", d.origin)
				w.cluster.removed[d.pod.UID] = true
				o.remove(d.origin)
			})
		}
	}
}

// reboot starts the machine anew: nothing runs, and what was mounted is not.
func (w *world) reboot() {
	w.cluster.boot++
	w.say("the machine is started anew, boot %d", w.cluster.boot)
	m := w.runtime
	for _, id := range slices.Sorted(maps.Keys(m.sandboxes)) {
		m.stopSandbox(m.sandboxes[id])
	}
	clear(w.disk.mounts)
	clear(w.disk.cgroups)
}

func (w *world) bootID() string { return fmt.Sprint("boot ", w.cluster.boot) }

// isBound says whether the pod is one of the apiserver's.
func isBound(uid types.UID) bool { return strings.HasPrefix(string(uid), "api") }

// goesOn: what the apiserver wants all the time is never ended for want of its
// word.
func (k *checks) goesOn(p *pod.Pod) {
	if isBound(p.UID()) && p.Stop != nil && p.Stop.Unwanted && !k.world.cluster.removed[p.UID()] {
		k.world.violated("%s is ended as unwanted, and is wanted", p.UID())
	}
}

// asks: before the apiserver has been heard nothing begins but what ran in this
// boot of the machine, and what may without asking.
func (k *checks) asks(a *agent, p *v1.Pod, doing string) {
	w := k.world
	if !isBound(p.UID) || w.cluster.heard[a.number] {
		return
	}
	r, known := a.known[p.UID]
	may := w.cluster.start && pod.MayStartOffline(r) && time.Since(a.began) >= offlinePatience
	if !known || r.Boot != w.bootID() && !may {
		w.violated("%s: the apiserver was not asked, known %v, record %+v", doing, known, r)
	}
}
