// Package metrics is what the agent counts and times of its own work, for
// Prometheus: under the kubelet's names where dashboards and alerts know them and
// they mean the same here, under nodeagent_ where not. docs/METRICS.md lists every
// series and says when it moves.
//
// Each subject has a type whose methods are told what happened. They take
// nanoseconds and never block, and on a nil pointer they do nothing: whoever is
// made without metrics need not ask.
package metrics

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/restclient" // rest_client_*, of all clients of the process
)

// Series are all series of one agent, by subject.
type Series struct {
	Pods         *Pods
	Runtime      *Runtime
	Writes       *Writes
	Storage      *Storage
	Probes       *Probes
	Certificates *Certificates
	Requests     *Requests
	Health       *Health

	registry metrics.KubeRegistry
}

// Build is who the agent is.
type Build struct {
	Node       string // name
	GitVersion string // v1.36.3+nodeagent.0.1.0
	Major      string
	Minor      string
}

// New makes the series and registers them. Those of clients and of the process
// itself are the process's: the libraries that count them have but one registry.
func New(b Build) *Series {
	m := maker{metrics.NewKubeRegistry()}
	m.gauges("kubelet_node_name", "Always 1, labelled with the name of the node.", "node").WithLabelValues(b.Node).Set(1)
	m.gauges("kubernetes_build_info", "Always 1, labelled with the version of Kubernetes that the agent stands for and of the agent, and what it was built with.",
		"major", "minor", "git_version", "git_commit", "git_tree_state", "build_date", "go_version", "compiler", "platform").
		WithLabelValues(b.Major, b.Minor, b.GitVersion, "", "", "", runtime.Version(), runtime.Compiler, runtime.GOOS+"/"+runtime.GOARCH).Set(1)
	return &Series{
		Pods: newPods(m), Runtime: newRuntime(m), Writes: newWrites(m), Storage: newStorage(m), Probes: newProbes(),
		Certificates: newCertificates(m), Requests: newRequests(m), Health: newHealth(),
		registry: m.registry,
	}
}

// Handler answers /metrics.
func (s *Series) Handler() http.Handler {
	all := prometheus.Gatherers{s.registry, legacyregistry.DefaultGatherer}
	return metrics.HandlerFor(all, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError})
}

// maker makes series and registers them.
type maker struct{ registry metrics.KubeRegistry }

func (m maker) counter(name, help string) *metrics.Counter {
	c := metrics.NewCounter(&metrics.CounterOpts{Name: name, Help: help})
	m.registry.MustRegister(c)
	return c
}

func (m maker) counters(name, help string, labels ...string) *metrics.CounterVec {
	c := metrics.NewCounterVec(&metrics.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m maker) gauge(name, help string) *metrics.Gauge {
	g := metrics.NewGauge(&metrics.GaugeOpts{Name: name, Help: help})
	m.registry.MustRegister(g)
	return g
}

func (m maker) gauges(name, help string, labels ...string) *metrics.GaugeVec {
	g := metrics.NewGaugeVec(&metrics.GaugeOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(g)
	return g
}

func (m maker) histogram(name, help string, buckets []float64) *metrics.Histogram {
	h := metrics.NewHistogram(&metrics.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	m.registry.MustRegister(h)
	return h
}

func (m maker) histograms(name, help string, buckets []float64, labels ...string) *metrics.HistogramVec {
	h := metrics.NewHistogramVec(&metrics.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(h)
	return h
}

// Buckets in seconds. The kubelet's series have its own bounds, so that what
// compares nodes can compare these too.
var (
	startBuckets = []float64{0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}
	// stepBuckets are of steps that mostly take milliseconds.
	stepBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}
)
