package metrics

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics/prometheus/slis"
)

// checked tells of a check of /healthz as the library does that serves it.
func checked(name string, how slis.HealthcheckStatus) {
	_ = slis.ObserveHealthcheck(context.Background(), name, "healthz", how)
}

// moved is a set of series of which each has moved.
func moved() *Series {
	s := New(Build{Node: "n1", GitVersion: "v1.36.3+nodeagent.0.1.0", Major: "1", Minor: "36"})
	p := s.Pods
	p.Step("sandbox", 300*time.Millisecond)
	p.StepFailed("pull")
	p.Worked("create", time.Second)
	p.Taken(time.Millisecond, 2)
	p.Running(time.Second)
	p.Sandbox(true, false)
	p.ContainerStarted("container")
	p.ContainerFailed("container", "ErrImagePull")
	p.ContainerEnded("init_container", 137, "OOMKilled")
	p.Rejected("OutOfcpu")
	p.Restarted(true)
	p.Preempted()
	p.Count(func() Counts {
		n := NewCounts()
		n.Working[Working{"sync", "desired", true}] = 3
		n.Volumes[Volume{"kubernetes.io/secret", "actual_state_of_world"}] = 4
		n.Steps["pull"], n.Sandboxes = 2, 5
		return n
	})
	s.Runtime.Call("run_podsandbox", time.Second, true)
	s.Runtime.Sandbox("", time.Second, true)
	s.Runtime.Pulled(11<<20, time.Second)
	s.Runtime.Image("IfNotPresent", No, true)
	s.Writes.Call("patch", true)
	s.Storage.Mounted("kubernetes.io/secret", time.Second, true)
	s.Storage.Cgroup("create", time.Second)
	s.Storage.Logs(func() []Log { return []Log{{"u1", "default", "web", "app", 4096}} })
	s.Probes.Attempt(Probe{"Liveness", "app", "web", "default", "u1"}, "successful", time.Second)
	checked("ping", slis.Success)
	s.Requests.Begin("GET", "pods", false)()
	s.Requests.Stream("exec")
	return s
}

// gathered are the series of all three paths, but for those of libraries.
func gathered(t *testing.T, s *Series) map[string]*dto.MetricFamily {
	t.Helper()
	out := map[string]*dto.MetricFamily{}
	for _, registry := range []interface {
		Gather() ([]*dto.MetricFamily, error)
	}{s.registry, s.Probes.registry, s.Health.registry} {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() != "process_start_time_seconds" {
				out[f.GetName()] = f
			}
		}
	}
	return out
}

var documented = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\| ([^|]*) \\| ([^|]+) \\|$")

// docs/METRICS.md lists just the series that there are, with their types and
// labels.
func TestSeriesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	type row struct{ kind, labels string }
	want := map[string]row{}
	for _, m := range documented.FindAllStringSubmatch(string(text), -1) {
		if _, twice := want[m[1]]; twice {
			t.Errorf("%s is documented twice", m[1])
		}
		want[m[1]] = row{m[2], m[3]}
	}
	for name, f := range gathered(t, moved()) {
		got := row{strings.ToLower(f.GetType().String()), ""}
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		got.labels = strings.Join(labels, ", ")
		if got != want[name] {
			t.Errorf("%s is %q, documented as %q", name, got, want[name])
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s is documented, but is not there", name)
	}
}

// kubeletNames are names that are not as one would choose them, but are known.
var kubeletNames = []string{
	"kubelet_preemptions", "kubelet_server_expiration_renew_errors", "kubelet_certificate_manager_client_expiration_renew_errors",
}

// The series are as Prometheus wants them, but for those names.
func TestSeriesAreWellNamed(t *testing.T) {
	s := moved()
	ours := gathered(t, s)
	odd := map[string]bool{}
	for path, h := range map[string]http.Handler{"/metrics": s.Handler(), "/metrics/probes": s.Probes.Handler(), "/metrics/slis": s.Health.Handler()} {
		problems, err := promlint.New(strings.NewReader(scrape(t, h))).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			odd[p.Metric] = true
			if ours[p.Metric] != nil && !slices.Contains(kubeletNames, p.Metric) {
				t.Errorf("%s: %s: %s", path, p.Metric, p.Text)
			}
		}
	}
	for _, name := range kubeletNames {
		if !odd[name] {
			t.Errorf("%s is no exception", name)
		}
	}
}

func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("code %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func (s *Series) has(t *testing.T, h http.Handler, lines ...string) {
	t.Helper()
	text := scrape(t, h)
	for _, line := range lines {
		if !strings.Contains("\n"+text, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			name, _, _ = strings.Cut(name, " ")
			t.Errorf("no %s; there is\n%s", line, strings.Join(regexp.MustCompile("(?m)^"+name+".*").FindAllString(text, -1), "\n"))
		}
	}
}

// /metrics has the agent's own series and those of the process.
func TestMetrics(t *testing.T) {
	s := moved()
	s.has(t, s.Handler(),
		`kubelet_node_name{node="n1"} 1`,
		`kubelet_running_pods 5`,
		`kubelet_running_containers{container_state="running"} 0`,
		`kubelet_desired_pods{static=""} 0`,
		`kubelet_working_pods{config="desired",lifecycle="sync",static="true"} 3`,
		`volume_manager_total_volumes{plugin_name="kubernetes.io/secret",state="actual_state_of_world"} 4`,
		`nodeagent_pod_steps_in_flight{step="pull"} 2`,
		`kubelet_started_pods_total 1`,
		`kubelet_started_pods_errors_total 0`,
		`kubelet_started_user_namespaced_pods_total 1`,
		`kubelet_started_containers_total{container_type="container"} 2`,
		`kubelet_started_containers_errors_total{code="ErrImagePull",container_type="container"} 1`,
		`kubelet_terminated_containers_total{container_type="init_container",exit_code="137",reason="OOMKilled"} 1`,
		`kubelet_runtime_operations_errors_total{operation_type="run_podsandbox"} 1`,
		`kubelet_run_podsandbox_duration_seconds_count{runtime_handler=""} 1`,
		`kubelet_image_pull_duration_seconds_count{image_size_in_bytes="10MB-100MB"} 1`,
		`kubelet_image_manager_ensure_image_requests_total{present_locally="false",pull_policy="ifnotpresent",pull_required="true"} 1`,
		`storage_operation_duration_seconds_count{migrated="false",operation_name="volume_mount",status="fail-unknown",volume_plugin="kubernetes.io/secret"} 1`,
		`nodeagent_pod_writes_total{result="error",verb="patch"} 1`,
		`kubelet_container_log_filesystem_used_bytes{container="app",namespace="default",pod="web",uid="u1"} 4096`,
		`kubelet_http_requests_total{long_running="false",method="GET",path="pods",server_type="readwrite"} 1`,
		`kubelet_http_inflight_requests{long_running="false",method="GET",path="pods",server_type="readwrite"} 0`,
		`kubelet_certificate_manager_server_ttl_seconds +Inf`,
	)
	text := scrape(t, s.Handler())
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes", "rest_client_transport_cache_entries"} {
		if !strings.Contains(text, "\n"+name+" ") {
			t.Errorf("no %s", name)
		}
	}
}

// A pod's start is counted once, when the apiserver tells of it, without the time
// that only images took, and not for a stateful pod's objective.
func TestStartsAreToldByTheApiserver(t *testing.T) {
	s := New(Build{})
	created := time.Now()
	s.Pods.Told("early", created)
	s.Pods.Up("u1", Start{Created: created, Waited: 7 * time.Second})
	s.Pods.Up("u2", Start{Created: created, Waited: 7 * time.Second, Stateful: true})
	s.Pods.Up("gone", Start{Created: created})
	s.Pods.Gone("gone")
	for _, uid := range []string{"u1", "u2", "gone", "u1"} {
		s.Pods.Told(uid, created.Add(10*time.Second))
	}
	s.has(t, s.Handler(),
		"kubelet_pod_start_total_duration_seconds_count 2", "kubelet_pod_start_total_duration_seconds_sum 20",
		"kubelet_pod_start_sli_duration_seconds_count 1", "kubelet_pod_start_sli_duration_seconds_sum 3")
	if n := len(s.Pods.starts.up); n != 0 {
		t.Errorf("%d pods are still waited for", n)
	}
}

// The series of probes go with their pod, and only with it.
func TestProbesGoWithTheirPod(t *testing.T) {
	s := New(Build{})
	web, other := Probe{"Liveness", "app", "web", "default", "u1"}, Probe{"Readiness", "app", "other", "default", "u2"}
	for _, p := range []Probe{web, other} {
		s.Probes.Attempt(p, "successful", time.Millisecond)
		s.Probes.Attempt(p, "failed", time.Millisecond)
	}
	s.has(t, s.Probes.Handler(),
		`prober_probe_total{container="app",namespace="default",pod="web",pod_uid="u1",probe_type="Liveness",result="failed"} 1`,
		`prober_probe_duration_seconds_count{container="app",namespace="default",pod="web",probe_type="Liveness"} 1`)
	s.Probes.Gone("default", "web", "u1")
	text := scrape(t, s.Probes.Handler())
	if strings.Contains(text, `"web"`) || !strings.Contains(text, `"other"`) {
		t.Errorf("after one pod is gone:\n%s", text)
	}
}

// A check of health shows how it went last, and how often how.
func TestHealthChecks(t *testing.T) {
	s := New(Build{})
	checked("syncloop", slis.Success)
	checked("syncloop", slis.Error)
	s.has(t, s.Health.Handler(), `kubernetes_healthcheck{name="syncloop",type="healthz"} 0`,
		`kubernetes_healthchecks_total{name="syncloop",status="error",type="healthz"} 1`,
		`kubernetes_healthchecks_total{name="syncloop",status="success",type="healthz"} 1`)
	w := httptest.NewRecorder()
	s.Health.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodDelete, "/metrics/slis", nil))
	if text := scrape(t, s.Health.Handler()); strings.Contains(text, "syncloop") {
		t.Errorf("after a DELETE:\n%s", text)
	}
}

// A certificate's time to live is asked for at each scrape.
func TestCertificates(t *testing.T) {
	s := New(Build{})
	c := s.Certificates.Client
	value := func() float64 {
		return gathered(t, s)["kubelet_certificate_manager_client_ttl_seconds"].Metric[0].Gauge.GetValue()
	}
	if got := value(); !math.IsInf(got, 1) {
		t.Errorf("without a certificate: %v", got)
	}
	at := time.Now().Add(time.Hour)
	c.Expires(func() time.Time { return at })
	if got := value(); got < 3500 || got > 3600 {
		t.Errorf("one hour before: %v", got)
	}
	at = time.Now().Add(-time.Hour)
	if got := value(); got > -3600 || got < -3700 {
		t.Errorf("an hour after: %v", got)
	}
	c.Failed()
	s.Certificates.Server.Rotated(25 * time.Hour)
	s.has(t, s.Handler(), "kubelet_certificate_manager_client_expiration_renew_errors 1", "kubelet_server_expiration_renew_errors 0",
		`kubelet_certificate_manager_server_rotation_seconds_bucket{le="86400"} 0`, `kubelet_certificate_manager_server_rotation_seconds_bucket{le="604800"} 1`)
}

// A request of an unknown method is counted as one of others.
func TestRequests(t *testing.T) {
	s := New(Build{})
	end := s.Requests.Begin("BREW", "exec", true)
	s.has(t, s.Handler(), `kubelet_http_inflight_requests{long_running="true",method="other",path="exec",server_type="readonly"} 1`)
	end()
	s.has(t, s.Handler(), `kubelet_http_inflight_requests{long_running="true",method="other",path="exec",server_type="readonly"} 0`,
		`kubelet_http_requests_duration_seconds_count{long_running="true",method="other",path="exec",server_type="readonly"} 1`)
}

// Audits are timed, and what lies between them.
func TestAudits(t *testing.T) {
	s := New(Build{})
	at := time.Unix(1000, 0)
	s.Pods.Audited(at, at.Add(time.Second), 0)
	s.Pods.Audited(at.Add(time.Minute), at.Add(63*time.Second), 2)
	s.has(t, s.Handler(), "kubelet_pleg_relist_duration_seconds_sum 4", "kubelet_pleg_relist_interval_seconds_sum 60",
		"kubelet_pleg_relist_interval_seconds_count 1", "kubelet_pleg_last_seen_seconds 1063", "nodeagent_audit_corrections_total 2")
}

// Images are counted by the kubelet's sizes.
func TestSizes(t *testing.T) {
	for size, want := range map[uint64]string{0: "N/A", 1: "0-10MB", 10 << 20: "0-10MB", 10<<20 + 1: "10MB-100MB", 3 << 30: "1GB-5GB", 200 << 30: "GT100GB"} {
		if got := sizeLabel(size); got != want {
			t.Errorf("%d bytes are %s, want %s", size, got, want)
		}
	}
}

// What is nobody's does nothing.
func TestWithoutMetrics(t *testing.T) {
	var p *Pods
	p.Step("pull", 1)
	p.Told("u", time.Now())
	var r *Runtime
	r.Call("version", 1, false)
	var q *Requests
	q.Begin("GET", "pods", false)()
	var c *Certificate
	c.Failed()
}

func BenchmarkScrape(b *testing.B) {
	s := moved()
	h := s.Handler()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	}
}

func BenchmarkCall(b *testing.B) {
	s := moved()
	for b.Loop() {
		s.Runtime.Call("run_podsandbox", time.Second, false)
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		New(Build{})
	}
}
