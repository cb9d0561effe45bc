//go:build peer

package e2e

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"
)

// TestPeerStatsFields: what a kubelet tells in its summary, the agent is asked to
// tell too. The kubelet of this bed tells less than one whose runtime has the
// usual socket, where cAdvisor looks for it.
func TestPeerStatsFields(t *testing.T) {
	j := joinPeer(t)
	j.join()
	j.meter()
	got := map[string]bool{}
	j.eventually("volumes and rates are told", 3*time.Minute, func() error {
		_, raw := j.summary("")
		clear(got)
		summaryPaths(raw, "", got)
		if !got[".pods.volume.usedBytes"] || !got[".pods.containers.cpu.usageNanoCores"] {
			return errors.New("not yet")
		}
		return nil
	})
	for _, path := range slices.Sorted(maps.Keys(got)) {
		t.Log(path)
		if !full(path) {
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
