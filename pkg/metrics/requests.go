package metrics

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"k8s.io/component-base/metrics"
)

// Requests are the series of the agent's own server.
type Requests struct {
	total, streams *metrics.CounterVec
	took           *metrics.HistogramVec
	inflight       *metrics.GaugeVec
}

func newRequests(m maker) *Requests {
	labels := []string{"method", "path", "server_type", "long_running"}
	return &Requests{
		total:    m.counters("kubelet_http_requests_total", "Requests to the agent's server, by the first part of their path.", labels...),
		took:     m.histograms("kubelet_http_requests_duration_seconds", "How long requests to the agent's server took.", metrics.DefBuckets, labels...),
		inflight: m.gauges("kubelet_http_inflight_requests", "Requests to the agent's server that are under way.", labels...),
		streams:  m.counters("kubelet_websocket_streaming_requests_total", "Requests for exec, attach and portforward over WebSocket.", "subresource"),
	}
}

// longRunning are the paths whose requests last as long as people like.
var longRunning = []string{"exec", "attach", "portForward", "debug"}

// Begin tells of a request, and is told when it ends. path is the first part of
// the route that it matched without slashes (metrics with its second), "other" if
// it matched none: never what a caller wrote. readOnly is of the port that asks
// nobody who they are.
func (q *Requests) Begin(method, path string, readOnly bool) (end func()) {
	if q == nil {
		return func() {}
	}
	began := time.Now()
	server := "readwrite"
	if readOnly {
		server = "readonly"
	}
	labels := []string{methodLabel(method), path, server, strconv.FormatBool(slices.Contains(longRunning, path))}
	q.total.WithLabelValues(labels...).Inc()
	flying := q.inflight.WithLabelValues(labels...)
	flying.Inc()
	return func() {
		flying.Dec()
		q.took.WithLabelValues(labels...).Observe(time.Since(began).Seconds())
	}
}

func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return method
	}
	return "other"
}

// Stream tells of a request for exec, attach or portforward over WebSocket.
func (q *Requests) Stream(subresource string) {
	if q != nil {
		q.streams.WithLabelValues(subresource).Inc()
	}
}
