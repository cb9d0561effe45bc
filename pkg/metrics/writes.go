package metrics

import (
	"time"

	"k8s.io/component-base/metrics"
)

// Writes are the series of what the apiserver is told of pods.
type Writes struct {
	sync  *metrics.Histogram
	calls *metrics.CounterVec
}

func newWrites(m maker) *Writes {
	return &Writes{
		sync:  m.histogram("kubelet_pod_status_sync_duration_seconds", "From when the apiserver's copy of a pod's status was first found untrue until it was true again.", []float64{0.010, 0.050, 0.100, 0.500, 1, 5, 10, 20, 30, 45, 60}),
		calls: m.counters("nodeagent_pod_writes_total", "Calls to the apiserver about pods: get, patch of the status, delete, create of a static pod's image; result is ok or error.", "verb", "result"),
	}
}

// Call tells of a call about a pod.
func (w *Writes) Call(verb string, failed bool) {
	if w == nil {
		return
	}
	result := "ok"
	if failed {
		result = "error"
	}
	w.calls.WithLabelValues(verb, result).Inc()
}

// Synced tells that the apiserver's copy of a status is true again, and for how
// long it was not.
func (w *Writes) Synced(after time.Duration) {
	if w != nil {
		w.sync.Observe(after.Seconds())
	}
}
