package metrics

import (
	"strconv"
	"strings"
	"time"

	"k8s.io/component-base/metrics"
)

// Runtime are the series of the calls to the container runtime, and of images.
type Runtime struct {
	operations, errors *metrics.CounterVec
	took               *metrics.HistogramVec
	sandbox            *metrics.HistogramVec
	sandboxErrors      *metrics.CounterVec
	pulls              *metrics.HistogramVec
	images             *metrics.CounterVec
}

func newRuntime(m maker) *Runtime {
	return &Runtime{
		operations:    m.counters("kubelet_runtime_operations_total", "Calls to the container runtime that have ended.", "operation_type"),
		errors:        m.counters("kubelet_runtime_operations_errors_total", "Calls to the container runtime that failed.", "operation_type"),
		took:          m.histograms("kubelet_runtime_operations_duration_seconds", "How long calls to the container runtime took.", metrics.ExponentialBuckets(.005, 2.5, 14), "operation_type"),
		sandbox:       m.histograms("kubelet_run_podsandbox_duration_seconds", "How long the runtime took to make a sandbox and its network, by the handler of the pod's RuntimeClass.", metrics.DefBuckets, "runtime_handler"),
		sandboxErrors: m.counters("kubelet_run_podsandbox_errors_total", "Sandboxes that the runtime failed to make, by the handler of the pod's RuntimeClass.", "runtime_handler"),
		pulls: m.histograms("kubelet_image_pull_duration_seconds", "How long it took to fetch an image, waiting included, by its size as the runtime tells it.",
			[]float64{1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}, "image_size_in_bytes"),
		images: m.counters("kubelet_image_manager_ensure_image_requests_total", "Images that were to be present, by pull policy, and whether they were and had to be fetched; unknown if the runtime did not say, or was not asked.", "pull_policy", "present_locally", "pull_required"),
	}
}

// Call tells of a call to the runtime, by the kubelet's name for it.
func (r *Runtime) Call(operation string, took time.Duration, failed bool) {
	if r == nil {
		return
	}
	r.operations.WithLabelValues(operation).Inc()
	r.took.WithLabelValues(operation).Observe(took.Seconds())
	if failed {
		r.errors.WithLabelValues(operation).Inc()
	}
}

// Sandbox tells of a call for a sandbox.
func (r *Runtime) Sandbox(handler string, took time.Duration, failed bool) {
	if r == nil {
		return
	}
	r.sandbox.WithLabelValues(handler).Observe(took.Seconds())
	if failed {
		r.sandboxErrors.WithLabelValues(handler).Inc()
	}
}

// Pulled tells of an image that was fetched. Its size in bytes is 0 if it is not
// known.
func (r *Runtime) Pulled(size uint64, took time.Duration) {
	if r != nil {
		r.pulls.WithLabelValues(sizeLabel(size)).Observe(took.Seconds())
	}
}

// sizes are the bounds by which images are counted, as the kubelet has them.
var sizes = []struct {
	over  uint64
	label string
}{
	{100 << 30, "GT100GB"}, {60 << 30, "60GB-100GB"}, {40 << 30, "40GB-60GB"}, {30 << 30, "30GB-40GB"}, {20 << 30, "20GB-30GB"},
	{10 << 30, "10GB-20GB"}, {5 << 30, "5GB-10GB"}, {1 << 30, "1GB-5GB"}, {500 << 20, "500MB-1GB"}, {100 << 20, "100MB-500MB"},
	{10 << 20, "10MB-100MB"}, {0, "0-10MB"},
}

func sizeLabel(size uint64) string {
	for _, s := range sizes {
		if size > s.over {
			return s.label
		}
	}
	return "N/A"
}

// Answer is yes, no or unknown.
type Answer int

// The answers.
const (
	Unknown Answer = iota
	No
	Yes
)

func (a Answer) String() string { return [...]string{"unknown", "false", "true"}[a] }

// Image tells of an image that a container needs: whether it was present, and
// whether it had to be fetched.
func (r *Runtime) Image(policy string, present Answer, pulled bool) {
	if r != nil {
		r.images.WithLabelValues(strings.ToLower(policy), present.String(), strconv.FormatBool(pulled)).Inc()
	}
}
