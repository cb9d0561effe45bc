package metrics

import (
	"context"
	"net/http"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/prometheus/slis"
)

// Health are the series of /metrics/slis: how each check of /healthz went when
// somebody last asked. The library that Kubernetes' components share has them for
// the whole process.
type Health struct{ registry metrics.KubeRegistry }

func newHealth() *Health {
	h := &Health{metrics.NewKubeRegistry()}
	slis.Register(h.registry)
	return h
}

// Checked tells how the check of that name went.
func (h *Health) Checked(ctx context.Context, name string, ok bool) {
	if h == nil {
		return
	}
	status := slis.Error
	if ok {
		status = slis.Success
	}
	_ = slis.ObserveHealthcheck(ctx, name, "healthz", status) // never fails
}

// Handler answers /metrics/slis. A DELETE sets all to nothing, as with the kubelet.
func (h *Health) Handler() http.Handler {
	return metrics.HandlerWithReset(h.registry, metrics.HandlerOpts{})
}
