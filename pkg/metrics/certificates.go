package metrics

import (
	"math"
	"sync/atomic"
	"time"

	"k8s.io/component-base/metrics"
)

// Certificates are the series of the node's own certificates (behaviour row 1.19-5).
type Certificates struct {
	Client, Server *Certificate
}

// Certificate are the series of one of them. A series that it has not is nil.
type Certificate struct {
	failed  *metrics.Counter
	rotated *metrics.Histogram
	expires *atomic.Pointer[func() time.Time]
}

func newCertificates(m maker) *Certificates {
	const day = 24 * 3600
	return &Certificates{
		Client: &Certificate{
			failed:  m.counter("kubelet_certificate_manager_client_expiration_renew_errors", "Requests for a client certificate that failed."),
			expires: m.ttl("kubelet_certificate_manager_client_ttl_seconds", "Seconds until the node's client certificate expires; less than 0 when it has, +Inf if it has none or one that does not."),
		},
		Server: &Certificate{
			failed: m.counter("kubelet_server_expiration_renew_errors", "Requests for a serving certificate that failed."),
			rotated: m.histogram("kubelet_certificate_manager_server_rotation_seconds", "How long serving certificates lived before the next one was issued.",
				[]float64{60, 3600, 4 * 3600, day, 7 * day, 30 * day, 90 * day, 180 * day, 360 * day, 4 * 360 * day}),
			expires: m.ttl("kubelet_certificate_manager_server_ttl_seconds", "Seconds until the node's serving certificate expires; less than 0 when it has, +Inf if it has none."),
		},
	}
}

// ttl is a gauge of the seconds until a time that is asked for at each scrape.
func (m maker) ttl(name, help string) *atomic.Pointer[func() time.Time] {
	expires := &atomic.Pointer[func() time.Time]{}
	m.registry.RawMustRegister(metrics.NewGaugeFunc(&metrics.GaugeOpts{Name: name, Help: help, StabilityLevel: metrics.ALPHA}, func() float64 {
		if ask := expires.Load(); ask != nil {
			if at := (*ask)(); !at.IsZero() {
				return math.Trunc(time.Until(at).Seconds())
			}
		}
		return math.Inf(1)
	}))
	return expires
}

// Expires has it asked at each scrape when the certificate expires; zero is never.
func (c *Certificate) Expires(ask func() time.Time) {
	if c != nil {
		c.expires.Store(&ask)
	}
}

// Failed tells that a request for a certificate failed.
func (c *Certificate) Failed() {
	if c != nil {
		c.failed.Inc()
	}
}

// Rotated tells that a certificate was replaced after it had lived for that long.
func (c *Certificate) Rotated(lived time.Duration) {
	if c != nil && c.rotated != nil {
		c.rotated.Observe(lived.Seconds())
	}
}
