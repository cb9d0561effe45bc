package syncloop

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
)

// The simulation runs the real loop against a simulated machine in virtual
// time. A seed decides everything: the pods, what the sources say, which calls
// fail, hang or lose their answers, when the runtime restarts and when the
// agent is killed. Invariants are checked after every change; in the end, when
// faults have stopped, all that is wanted must run and all else be gone.
//
// NODEAGENT_SEED=n runs one seed and prints what happened;
// NODEAGENT_SEEDS=n runs the first n.
func TestSimulation(t *testing.T) {
	if s := os.Getenv("NODEAGENT_SEED"); s != "" {
		w := simulate(t, number(t, s))
		t.Logf("what happened:\n%s", w.report())
		return
	}
	seeds := uint64(2000)
	if raceDetector {
		seeds = 100
	}
	if s := os.Getenv("NODEAGENT_SEEDS"); s != "" {
		seeds = number(t, s)
	}
	const chunks = 4
	for c := range uint64(chunks) {
		t.Run(fmt.Sprintf("chunk%d", c), func(t *testing.T) {
			t.Parallel()
			for seed := c; seed < seeds && !t.Failed(); seed += chunks {
				t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) {
					if w := simulate(t, seed); t.Failed() {
						t.Logf("replay: NODEAGENT_SEED=%d go test ./pkg/syncloop -run TestSimulation -v\n%s", seed, w.report())
					}
				})
			}
		})
	}
}

func number(t *testing.T, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func simulate(t *testing.T, seed uint64) (w *world) {
	synctest.Test(t, func(*testing.T) {
		w = newWorld(seed)
		w.run()
	})
	for _, v := range w.wrong {
		t.Error(v)
	}
	return w
}
