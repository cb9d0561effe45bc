package exposition

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/cadvisor/container"
	info "github.com/google/cadvisor/info/v1"
	v2 "github.com/google/cadvisor/info/v2"
	cadvisor "github.com/google/cadvisor/metrics"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	clock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/randfill"

	"github.com/nodeagent/nodeagent/pkg/stats"
)

// samples tells cAdvisor's own collectors what a scrape shows.
type samples struct{ *Cadvisor }

func (s samples) GetRequestedContainersInfo(string, v2.RequestOptions) (map[string]*info.ContainerInfo, error) {
	if s.Failed {
		return nil, errors.New("failed")
	}
	all := map[string]*info.ContainerInfo{}
	for i := range s.Containers {
		c := s.Containers[i]
		if c.Kind == stats.KindPod { // whose network is its sandbox's
			stats := *c.Stats
			stats.Network = info.NetworkStats{}
			c.Stats = &stats
		}
		all[c.Cgroup] = &info.ContainerInfo{
			ContainerReference: info.ContainerReference{Name: c.Cgroup},
			Spec:               *c.Spec, Stats: []*info.ContainerStats{c.Stats},
		}
	}
	return all, nil
}

func (s samples) GetVersionInfo() (*info.VersionInfo, error) {
	if s.Version == nil {
		return nil, errors.New("failed")
	}
	return s.Version, nil
}

func (s samples) GetMachineInfo() (*info.MachineInfo, error) {
	if s.Machine == nil {
		return nil, errors.New("failed")
	}
	return s.Machine, nil
}

// labels are those that a kubelet gives to series of a cgroup.
func (s samples) labels(of *info.ContainerInfo) map[string]string {
	i := slices.IndexFunc(s.Containers, func(c stats.Container) bool { return c.Cgroup == of.Name })
	c := s.Containers[i]
	if c.Kind != stats.KindContainer {
		c.Name = ""
	}
	if c.Kind == stats.KindSandbox {
		c.Image = s.SandboxImage
	}
	return map[string]string{"id": c.Cgroup, "name": c.ID, "image": c.Image, "container": c.Name, "pod": c.Pod, "namespace": c.Namespace}
}

// theirs is the text as cAdvisor's collectors and Prometheus' library write it.
// What they refuse, series that are there twice, is left out.
func theirs(t testing.TB, c *Cadvisor) string {
	set := container.MetricSet{}
	for _, kind := range []container.MetricKind{
		container.CpuUsageMetrics, container.MemoryUsageMetrics, container.CpuLoadMetrics, container.DiskIOMetrics,
		container.DiskUsageMetrics, container.NetworkUsageMetrics, container.AppMetrics, container.ProcessMetrics, container.OOMMetrics,
	} {
		set[kind] = struct{}{}
	}
	if c.Pressure {
		set[container.PressureMetrics] = struct{}{}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		cadvisor.NewPrometheusMachineCollector(samples{c}, set),
		cadvisor.NewPrometheusCollector(samples{c}, samples{c}.labels, set, clock.NewFakeClock(c.Now), v2.RequestOptions{}))
	return gathered(t, registry)
}

func gathered(t testing.TB, from prometheus.Gatherer) string {
	families, err := from.Gather()
	if err != nil && !strings.Contains(err.Error(), "was collected before with the same name and label values") {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// same compares two texts: families in the same order, with the same head and
// the same series, which may be in another order.
func same(t testing.TB, theirs, ours string) {
	t.Helper()
	if diff := cmp.Diff(canonical(theirs), canonical(ours)); diff != "" {
		t.Fatalf("theirs (-) and ours (+):\n%s", diff)
	}
}

func canonical(text string) (families []string) {
	for part := range strings.SplitSeq("\n"+text, "\n# HELP ") { // no value spans lines
		lines := strings.Split(strings.TrimSuffix(part, "\n"), "\n")
		if len(lines) > 2 {
			slices.Sort(lines[2:])
		}
		families = append(families, strings.Join(lines, "\n"))
	}
	return families
}

func written(t testing.TB, write func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// filler fills samples at random, with names that are hard to write.
func filler(seed int64) *randfill.Filler {
	parts := []string{"a", "pod-1", `"`, `\`, "\n", `\n`, "{}", "=", ",", "é", "\x00", "\u2028", "\r", "/", " ", "# HELP x"}
	devices := []string{"/dev/vda", "/dev/vda1", "overlay", ""}
	return randfill.New().RandSource(rand.NewSource(seed)).NilChance(0.2).NumElements(0, 4).Funcs(
		func(s *string, c randfill.Continue) {
			for *s = ""; c.Intn(3) > 0; {
				*s += parts[c.Intn(len(parts))]
			}
		},
		func(t *time.Time, c randfill.Continue) { *t = time.Unix(c.Int63n(1<<33), c.Int63n(1e9)) },
		func(t *metav1.Time, c randfill.Continue) { t.Time = time.Unix(c.Int63n(1<<33)-10, c.Int63n(1e9)) },
		func(v *uint64, c randfill.Continue) { *v = c.Uint64() >> c.Intn(65) },
		func(d *info.PerDiskStats, c randfill.Continue) {
			d.Device, d.Major, d.Minor = devices[c.Intn(4)], uint64(c.Intn(300)), uint64(c.Intn(3))
			d.Stats = map[string]uint64{}
			for _, operation := range []string{"Read", "Write", "Total", "Count", "Discard"} {
				if c.Bool() {
					d.Stats[operation] = c.Uint64()
				}
			}
		},
		func(f *info.FsStats, c randfill.Continue) {
			c.FillNoCustom(f)
			f.Device = devices[c.Intn(4)]
		},
		func(s *info.CpuSpec, c randfill.Continue) {
			c.FillNoCustom(s)
			s.Quota *= uint64(c.Intn(2))
		},
		func(h *info.Health, c randfill.Continue) {
			h.Status = []string{"healthy", "unhealthy", ""}[c.Intn(3)]
		},
		func(m **info.MemoryInfo, c randfill.Continue) {
			*m = &info.MemoryInfo{}
			c.Fill(*m)
		},
		// Not collected: see docs/BEHAVIOUR.md.
		func(m *map[string][]info.MetricVal, c randfill.Continue) {},
	)
}

func randomCadvisor(seed int64) *Cadvisor {
	f := filler(seed)
	c := &Cadvisor{}
	f.Fill(c)
	c.Now = time.Unix(seed&(1<<33-1), seed&1023*1e6)
	if c.Containers = nil; c.Failed {
		return c
	}
	for i := range 1 + seed&3 {
		var of stats.Container
		f.NilChance(0).Fill(&of)
		of.Cgroup += fmt.Sprint("/", i) // each is there once
		of.Kind = stats.Kind(i) % (stats.KindContainer + 1)
		c.Containers = append(c.Containers, of)
	}
	return c
}

func checkCadvisor(t testing.TB, seed int64) {
	c := randomCadvisor(seed)
	ours := written(t, func(w io.Writer) error { return WriteCadvisor(w, c) })
	same(t, theirs(t, c), ours)
}

// TestOracleCadvisor: /metrics/cadvisor has the families, series, values and
// times that cAdvisor's own collector gives for the same samples.
func TestOracleCadvisor(t *testing.T) {
	for seed := range int64(300) {
		checkCadvisor(t, seed)
	}
}

func FuzzCadvisor(f *testing.F) {
	f.Add(int64(1))
	f.Fuzz(func(t *testing.T, seed int64) { checkCadvisor(t, seed) })
}

// resourceSeries tells Kubernetes' metrics library of a summary.
type resourceSeries struct {
	metrics.BaseStableCollector
	descs   map[string]*metrics.Desc
	summary *statsapi.Summary
}

func (r *resourceSeries) desc(name, help string, level metrics.StabilityLevel, labels ...string) {
	r.descs[name] = metrics.NewDesc(name, help, labels, nil, level, "")
}

func newResourceSeries(s *statsapi.Summary) *resourceSeries {
	r := &resourceSeries{descs: map[string]*metrics.Desc{}, summary: s}
	container, pod := []string{"container", "pod", "namespace"}, []string{"pod", "namespace"}
	r.desc("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds", metrics.STABLE)
	r.desc("node_memory_working_set_bytes", "Current working set of the node in bytes", metrics.STABLE)
	r.desc("node_swap_usage_bytes", "Current swap usage of the node in bytes. Reported only on non-windows systems", metrics.ALPHA)
	r.desc("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", metrics.STABLE, container...)
	r.desc("container_memory_working_set_bytes", "Current working set of the container in bytes", metrics.STABLE, container...)
	r.desc("container_swap_usage_bytes", "Current amount of the container swap usage in bytes. Reported only on non-windows systems", metrics.ALPHA, container...)
	r.desc("container_swap_limit_bytes", "Current amount of the container swap limit in bytes. Reported only on non-windows systems", metrics.ALPHA, container...)
	r.desc("container_start_time_seconds", "Start time of the container since unix epoch in seconds", metrics.STABLE, container...)
	r.desc("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", metrics.STABLE, pod...)
	r.desc("pod_memory_working_set_bytes", "Current working set of the pod in bytes", metrics.STABLE, pod...)
	r.desc("pod_swap_usage_bytes", "Current amount of the pod swap usage in bytes. Reported only on non-windows systems", metrics.ALPHA, pod...)
	r.desc("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", metrics.STABLE)
	return r
}

func (r *resourceSeries) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, d := range r.descs {
		ch <- d
	}
}

func (r *resourceSeries) CollectWithStability(ch chan<- metrics.Metric) {
	if r.summary == nil {
		ch <- metrics.NewLazyConstMetric(r.descs["resource_scrape_error"], metrics.GaugeValue, 1)
		return
	}
	ch <- metrics.NewLazyConstMetric(r.descs["resource_scrape_error"], metrics.GaugeValue, 0)
	put := func(name string, kind metrics.ValueType, at metav1.Time, value *uint64, unit float64, labels ...string) {
		if value != nil {
			ch <- metrics.NewLazyMetricWithTimestamp(at.Time, metrics.NewLazyConstMetric(r.descs[name], kind, float64(*value)/unit, labels...))
		}
	}
	all := func(prefix string, cpu *statsapi.CPUStats, memory *statsapi.MemoryStats, swap *statsapi.SwapStats, labels ...string) {
		if cpu != nil {
			put(prefix+"_cpu_usage_seconds_total", metrics.CounterValue, cpu.Time, cpu.UsageCoreNanoSeconds, 1e9, labels...)
		}
		if memory != nil {
			put(prefix+"_memory_working_set_bytes", metrics.GaugeValue, memory.Time, memory.WorkingSetBytes, 1, labels...)
		}
		if swap != nil {
			put(prefix+"_swap_usage_bytes", metrics.GaugeValue, swap.Time, swap.SwapUsageBytes, 1, labels...)
		}
	}
	all("node", r.summary.Node.CPU, r.summary.Node.Memory, r.summary.Node.Swap)
	for _, p := range r.summary.Pods {
		all("pod", p.CPU, p.Memory, p.Swap, p.PodRef.Name, p.PodRef.Namespace)
		for _, c := range p.Containers {
			labels := []string{c.Name, p.PodRef.Name, p.PodRef.Namespace}
			all("container", c.CPU, c.Memory, c.Swap, labels...)
			if c.StartTime.Unix() > 0 {
				ch <- metrics.NewLazyConstMetric(r.descs["container_start_time_seconds"], metrics.GaugeValue, float64(c.StartTime.UnixNano())/1e9, labels...)
			}
			if s := c.Swap; s != nil && s.SwapAvailableBytes != nil {
				limit := float64(*s.SwapAvailableBytes)
				if s.SwapUsageBytes != nil {
					limit += float64(*s.SwapUsageBytes)
				}
				ch <- metrics.NewLazyMetricWithTimestamp(s.Time.Time,
					metrics.NewLazyConstMetric(r.descs["container_swap_limit_bytes"], metrics.GaugeValue, limit, labels...))
			}
		}
	}
}

func checkResource(t testing.TB, seed int64) {
	var s *statsapi.Summary
	if seed != 0 {
		s = &statsapi.Summary{}
		filler(seed).NilChance(0.3).Fill(s)
		for i := range s.Pods { // the library would let both pass
			s.Pods[i].PodRef.Name += fmt.Sprint(i)
			for k := range s.Pods[i].Containers {
				s.Pods[i].Containers[k].Name += fmt.Sprint(k)
			}
		}
	}
	registry := metrics.NewKubeRegistry()
	registry.CustomMustRegister(newResourceSeries(s))
	same(t, gathered(t, registry), written(t, func(w io.Writer) error { return WriteResource(w, s) }))
}

// TestOracleResource: /metrics/resource is what Kubernetes' metrics library
// writes of the same summary.
func TestOracleResource(t *testing.T) {
	for seed := range int64(300) {
		checkResource(t, seed)
	}
}

func FuzzResource(f *testing.F) {
	f.Add(int64(1))
	f.Fuzz(func(t *testing.T, seed int64) { checkResource(t, seed) })
}
