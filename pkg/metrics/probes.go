package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/metrics"
)

// Probes are the series of /metrics/probes (behaviour row 1.6-19). They name pods
// and containers, and go with them.
type Probes struct {
	registry metrics.KubeRegistry
	attempts *metrics.CounterVec
	took     *metrics.HistogramVec
}

func newProbes() *Probes {
	m := maker{metrics.NewKubeRegistry()}
	_ = metrics.RegisterProcessStartTime(m.registry.Register) // as good as any without it
	return &Probes{
		registry: m.registry,
		attempts: m.counters("prober_probe_total", "Attempts of probes that have ended, by how.", "probe_type", "result", "container", "pod", "namespace", "pod_uid"),
		took:     m.histograms("prober_probe_duration_seconds", "How long attempts of probes took that did not fail.", metrics.DefBuckets, "probe_type", "container", "pod", "namespace"),
	}
}

// Probe names a probe.
type Probe struct{ Type, Container, Pod, Namespace, UID string }

// Attempt tells of an attempt of a probe: successful, failed or unknown.
func (p *Probes) Attempt(q Probe, result string, took time.Duration) {
	if p == nil {
		return
	}
	p.attempts.WithLabelValues(q.Type, result, q.Container, q.Pod, q.Namespace, q.UID).Inc()
	if result != "failed" {
		p.took.WithLabelValues(q.Type, q.Container, q.Pod, q.Namespace).Observe(took.Seconds())
	}
}

// Gone tells that the pod is not probed any more.
func (p *Probes) Gone(namespace, pod, uid string) {
	if p == nil {
		return
	}
	p.attempts.DeletePartialMatch(prometheus.Labels{"pod_uid": uid})
	p.took.DeletePartialMatch(prometheus.Labels{"namespace": namespace, "pod": pod})
}

// Handler answers /metrics/probes.
func (p *Probes) Handler() http.Handler {
	return metrics.HandlerFor(p.registry, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError})
}
