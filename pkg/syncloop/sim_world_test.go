package syncloop

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// world is one simulated machine: a runtime, a disk, sources, and an agent
// that is killed and started again. Its seed decides everything that happens.
type world struct {
	seed  uint64
	begin time.Time

	mu     sync.Mutex // guards all below
	script []string
	wrong  []string
	rolls  map[string]uint64
	quiet  bool // no more faults
	tardy  bool // what happens now was asked for by a caller that is gone

	runtime *machine
	disk    *disk
	sources map[string]*origins
	agent   *agent // the one that runs now, or ran last
	agents  int
	checks  *checks
	cluster cluster
}

func newWorld(seed uint64) *world {
	w := &world{seed: seed, begin: time.Now(), rolls: map[string]uint64{}}
	w.runtime = newMachine(w)
	w.disk = newDisk(w)
	w.checks = newChecks(w)
	w.sources = map[string]*origins{}
	w.cluster.removed, w.cluster.heard = map[types.UID]bool{}, map[int]bool{}
	return w
}

// dice are the dice for one decision. Each decision has dice of its own, by
// what it is about, so that the order in which goroutines come to theirs does
// not matter. The caller holds w.mu.
func (w *world) dice(format string, args ...any) *rand.Rand {
	about := fmt.Sprintf(format, args...)
	w.rolls[about]++
	h := fnv.New64a()
	h.Write([]byte(about))
	return rand.New(rand.NewPCG(w.seed, h.Sum64()+w.rolls[about]))
}

// between is a random duration.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)+1))
}

func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

// say writes a line of the script. The caller holds w.mu.
func (w *world) say(format string, args ...any) {
	w.script = append(w.script, fmt.Sprintf("%12s %s", time.Since(w.begin).Round(time.Microsecond), fmt.Sprintf(format, args...)))
}

// violated notes that an invariant does not hold. The caller holds w.mu.
func (w *world) violated(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if slices.Contains(w.wrong, text) {
		return
	}
	w.say("VIOLATED: %s", text)
	w.wrong = append(w.wrong, text)
}

func (w *world) report() string { return strings.Join(w.script, "\n") }

// locked runs f while nothing else happens.
func (w *world) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// after runs f later, while nothing else happens.
func (w *world) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { w.locked(f) })
}

// sleep waits for d, or the context's end.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wanted are the pods that the sources want now, by the UID they run under: of
// two of one name in one source only one.
func (w *world) wanted() map[types.UID]*v1.Pod {
	out := map[types.UID]*v1.Pod{}
	for _, d := range w.agent.loop.merge.Pods() {
		uid := d.Pod.UID
		if adopted, ok := w.agent.loop.adopted[uid]; ok {
			uid = adopted
		}
		out[uid] = d.Pod
	}
	return out
}
