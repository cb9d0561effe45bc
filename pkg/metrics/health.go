package metrics

import (
	"net/http"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/prometheus/slis"
)

// Health are the series of /metrics/slis: how each check of /healthz went when
// somebody last asked. The library that serves /healthz tells them, for the whole
// process.
type Health struct{ registry metrics.KubeRegistry }

func newHealth() *Health {
	h := &Health{metrics.NewKubeRegistry()}
	slis.Register(h.registry)
	return h
}

// Handler answers /metrics/slis. A DELETE sets all to nothing, as with the kubelet.
func (h *Health) Handler() http.Handler {
	return metrics.HandlerWithReset(h.registry, metrics.HandlerOpts{})
}
