//go:build peer

package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestPeerStatsFields: the fields that the agent's summary is compared with are
// a kubelet's.
func TestPeerStatsFields(t *testing.T) {
	j := joinPeer(t)
	j.join()
	j.meter()
	j.eventually("volumes and rates are told", 3*time.Minute, func() error {
		_, raw := j.summary("")
		got := strings.Join(fieldsOf(raw), "\n")
		if !strings.Contains(got, ".pods.volume.usedBytes") || !strings.Contains(got, ".pods.network.rxBytes") {
			return errors.New("not yet")
		}
		return nil
	})
	_, raw := j.summary("")
	t.Logf("fields:\n%s", strings.Join(fieldsOf(raw), "\n"))
	sameFields(t, fieldsOf(raw), summaryFields)
	_, raw = j.summary("?only_cpu_and_memory=true")
	t.Logf("brief:\n%s", strings.Join(fieldsOf(raw), "\n"))
	sameFields(t, fieldsOf(raw), briefFields)
}
