package server

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/metrics/metricstest"
)

// What a caller makes up is counted as other.
func TestRequestsAreCountedByRoute(t *testing.T) {
	for path, want := range map[string]string{
		"/": "other", "/pods": "pods", "/pods/": "pods", "/stats/summary": "stats", "/metrics": "metrics", "/metrics/cadvisor": "metrics/cadvisor",
		"/metrics/made-up": "other", "/exec/ns/pod/c": "exec", "/portForward/ns/pod": "portForward", "/made-up/1": "other", "//pods": "other",
		"/containerLogs/ns/pod/c": "containerLogs", "": "other",
	} {
		if got := rootOf(path); got != want {
			t.Errorf("%s is counted as %s, want %s", path, got, want)
		}
	}
}

// Requests are counted when they come, those that are refused too, and timed when
// they end; streams over WebSocket are counted beside.
func TestRequestsAreCounted(t *testing.T) {
	series := metrics.New(metrics.Build{})
	s := &Server{options: Options{Metrics: series}}
	under := 0.0
	h := s.count(false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		under = metricstest.Of(series.Handler())[`kubelet_http_inflight_requests{long_running="true",method="GET",path="exec",server_type="readwrite"}`]
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	}))
	r := httptest.NewRequest(http.MethodGet, "/exec/ns/pod/c", nil)
	r.Header.Set("Upgrade", "WebSocket")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	got := metricstest.Of(series.Handler())
	const labels = `{long_running="true",method="GET",path="exec",server_type="readwrite"}`
	if w.Code != http.StatusUnauthorized || under != 1 || got["kubelet_http_inflight_requests"+labels] != 0 || got["kubelet_http_requests_total"+labels] != 1 ||
		got["kubelet_http_requests_duration_seconds_count"+labels] != 1 || got[`kubelet_websocket_streaming_requests_total{subresource="exec"}`] != 1 {
		t.Errorf("code %d, under way %v, then %v", w.Code, under, got)
	}
}

// The paths of the agent's own series are there, each with its own.
func TestMetricsAreServed(t *testing.T) {
	series := metrics.New(metrics.Build{Node: "n1"})
	series.Probes.Attempt(metrics.Probe{Pod: "web"}, "successful", 1)
	mux := http.NewServeMux()
	installHealth(mux, nil)
	mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/healthz", nil))
	(&Server{options: Options{Metrics: series}}).addMetrics(mux)
	for path, want := range map[string]string{
		"/metrics": `kubelet_node_name{node="n1"}`, "/metrics/slis": `kubernetes_healthcheck{name="ping",type="healthz"}`,
		"/metrics/probes": `prober_probe_total{container="",namespace="",pod="web",pod_uid="",probe_type="",result="successful"}`,
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if got := metricstest.Parse(w.Body.String()); w.Code != http.StatusOK || got[want] != 1 {
			t.Errorf("%s: code %d, no %s", path, w.Code, want)
		}
	}
}
