//go:build peer

package e2e

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPeerStatsFields: what a kubelet tells in its summary, the agent is asked to
// tell too. The kubelet of this bed tells less than one whose runtime has the
// usual socket, where cAdvisor looks for it.
func TestPeerStatsFields(t *testing.T) {
	j := joinPeer(t)
	j.Config = map[string]any{"volumeStatsAggPeriod": "5s"}
	j.join()
	j.meter()
	// A kubelet tells things as it comes to them, and some of them perhaps not
	// here: all that it told within a minute counts.
	got, began := map[string]bool{}, time.Now()
	j.eventually("a minute is over", 3*time.Minute, func() error {
		_, raw := j.summary("")
		summaryPaths(raw, "", got)
		if time.Since(began) < time.Minute {
			return errors.New("not yet")
		}
		return nil
	})
	if !got[".pods.containers.memory.workingSetBytes"] {
		t.Error("the kubelet tells of no container")
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		t.Log(path)
		// A kubelet tells the network of process 1, which is the machine's, not the
		// lab's node's.
		if !full(path) && !strings.HasPrefix(path, ".node.network.") {
			t.Errorf("the kubelet tells %s", path)
		}
	}
	_, raw := j.summary("?only_cpu_and_memory=true")
	clear(got)
	summaryPaths(raw, "", got)
	for path := range got {
		if !brief(path) {
			t.Errorf("the kubelet tells %s with CPU and memory alone", path)
		}
	}
}
