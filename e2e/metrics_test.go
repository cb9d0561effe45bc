package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// scraped are families by their names.
type scraped map[string]*dto.MetricFamily

// scrape asks the node through the apiserver, and reads the answer as Prometheus
// does.
func (j *joined) scrape(path string) scraped {
	j.t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(j.proxied(path)))
	j.must(err)
	return families
}

// one is the value of the one series that has these labels, k=v; its time in ms.
func (s scraped) one(t *testing.T, name string, labels ...string) (value float64, at int64) {
	t.Helper()
	var found []*dto.Metric
	for _, m := range s[name].GetMetric() {
		has := func(want string) bool {
			return slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetName()+"="+l.GetValue() == want })
		}
		if !slices.ContainsFunc(labels, func(want string) bool { return !has(want) }) {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		t.Errorf("%s %v: %d series", name, labels, len(found))
		return 0, 0
	}
	return found[0].GetCounter().GetValue() + found[0].GetGauge().GetValue(), found[0].GetTimestampMs()
}

// TestMetricsScraped: what Prometheus and metrics-server scrape of a node is what
// the kernel says at that moment.
func TestMetricsScraped(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	j.meter()
	t.Run("Cadvisor", func(t *testing.T) { j.in(t).cadvisorFigures() })
	t.Run("Resource", func(t *testing.T) { j.in(t).resourceFigures() })
}

// close says whether a figure is what it should be, give or take.
func (j *joined) close(what string, got float64, want, tolerance uint64) {
	j.t.Helper()
	n := uint64(got)
	near(j.t, what, &n, want, tolerance)
}

func (j *joined) cadvisorFigures() {
	const slack = 1 << 20
	before := j.cpuTimes()
	s := j.scrape("/metrics/cadvisor")
	after := j.cpuTimes()
	for _, c := range []string{"main", "other"} {
		labels := []string{"namespace=" + j.ns, "pod=metered", "container=" + c}
		get := func(name string, more ...string) float64 {
			j.t.Helper()
			v, at := s.one(j.t, name, append(more, labels...)...)
			if age := time.Since(time.UnixMilli(at)); at != 0 && (age < -time.Second || age > time.Minute) {
				j.t.Errorf("%s of %s is of %v", name, c, time.UnixMilli(at))
			}
			return v
		}
		if cpu := uint64(get("container_cpu_usage_seconds_total", "cpu=total") * 1e9); cpu+1000 < before[c] || cpu > after[c]+1000 {
			j.t.Errorf("%s: CPU time %d, want between %d and %d", c, cpu, before[c], after[c])
		}
		usage, inactive := j.number("memory", "metered", c, "memory.usage_in_bytes"), j.stat("metered", c, "total_inactive_file")
		j.close(c+" memory", get("container_memory_usage_bytes"), usage, slack)
		j.close(c+" working set", get("container_memory_working_set_bytes"), usage-inactive, slack)
		j.close(c+" rss", get("container_memory_rss"), j.stat("metered", c, "total_rss"), slack)
		j.close(c+" peak", get("container_memory_max_usage_bytes"), j.number("memory", "metered", c, "memory.max_usage_in_bytes"), slack)
		j.close(c+" shares", get("container_spec_cpu_shares"), j.number("cpu", "metered", c, "cpu.shares"), 0)
		j.close(c+" processes", get("container_processes"), 1, 0)
		j.close(c+" threads", get("container_threads"), j.number("pids", "metered", c, "pids.current"), 0)
		j.close(c+" OOM kills", get("container_oom_events_total"), 0, 0)
		if began := get("container_start_time_seconds"); time.Since(time.Unix(int64(began), 0)) > 10*time.Minute {
			j.t.Errorf("%s began %v", c, time.Unix(int64(began), 0))
		}
	}
	limit, _ := s.one(j.t, "container_spec_memory_limit_bytes", "pod=metered", "container=main")
	j.close("memory limit", limit, 64<<20, 0)
	quota, _ := s.one(j.t, "container_spec_cpu_quota", "pod=metered", "container=main")
	j.close("CPU quota", quota, 50000, 0)
	if received, _ := s.one(j.t, "container_network_receive_bytes_total", "pod=metered", "namespace="+j.ns, "interface=eth0"); received == 0 {
		j.t.Error("the pod received nothing")
	}
	for _, name := range []string{"container_scrape_error", "machine_scrape_error"} {
		failed, _ := s.one(j.t, name)
		j.close(name, failed, 0, 0)
	}
	j.machineFigures(s)
}

func (j *joined) machineFigures(s scraped) {
	node := j.waitNode("is Ready", nodeReady)
	cores, _ := s.one(j.t, "machine_cpu_cores", "system_uuid="+node.Status.NodeInfo.SystemUUID, "boot_id="+node.Status.NodeInfo.BootID)
	j.close("cores", cores, uint64(node.Status.Capacity.Cpu().Value()), 0)
	memory, _ := s.one(j.t, "machine_memory_bytes")
	j.close("memory", memory, uint64(node.Status.Capacity.Memory().Value()), 0)
	var fs unix.Statfs_t
	j.must(unix.Statfs("/", &fs))
	table, err := os.ReadFile("/proc/self/mounts")
	j.must(err)
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); f[1] == "/" && strings.HasPrefix(f[0], "/dev/") {
			size, _ := s.one(j.t, "container_fs_limit_bytes", "id=/", "device="+f[0])
			j.close("disk", size, fs.Blocks*uint64(fs.Bsize), 0)
		}
	}
}

// resourceFigures: /metrics/resource has the summary's figures, where both were
// read at the same time.
func (j *joined) resourceFigures() {
	j.eventually("both are read at one time", 30*time.Second, func() error {
		summary, _ := j.summary("")
		s := j.scrape("/metrics/resource")
		// The summary's times are of seconds; samples are at least one apart.
		if _, at := s.one(j.t, "node_cpu_usage_seconds_total"); at/1000 != summary.Node.CPU.Time.Unix() {
			return fmt.Errorf("one is of %v, the other of %v", time.UnixMilli(at), summary.Node.CPU.Time)
		}
		j.sameAs(summary, s)
		return nil
	})
}

func (j *joined) sameAs(summary statsapi.Summary, s scraped) {
	j.t.Helper()
	compare := func(prefix string, cpu *statsapi.CPUStats, memory *statsapi.MemoryStats, swap *statsapi.SwapStats, labels ...string) {
		j.t.Helper()
		used, _ := s.one(j.t, prefix+"_cpu_usage_seconds_total", labels...)
		j.close(prefix+" CPU time", used*1e9, *cpu.UsageCoreNanoSeconds, 1000)
		set, _ := s.one(j.t, prefix+"_memory_working_set_bytes", labels...)
		j.close(prefix+" working set", set, *memory.WorkingSetBytes, 0)
		if swap != nil && swap.SwapUsageBytes != nil {
			swapped, _ := s.one(j.t, prefix+"_swap_usage_bytes", labels...)
			j.close(prefix+" swap", swapped, *swap.SwapUsageBytes, 0)
		}
	}
	compare("node", summary.Node.CPU, summary.Node.Memory, summary.Node.Swap)
	containers := 0
	for _, p := range summary.Pods {
		labels := []string{"pod=" + p.PodRef.Name, "namespace=" + p.PodRef.Namespace}
		compare("pod", p.CPU, p.Memory, p.Swap, labels...)
		for _, c := range p.Containers {
			containers++
			compare("container", c.CPU, c.Memory, c.Swap, append(labels, "container="+c.Name)...)
			began, _ := s.one(j.t, "container_start_time_seconds", append(labels, "container="+c.Name)...)
			j.close("start of "+c.Name, began, uint64(c.StartTime.Unix()), 1)
		}
	}
	if containers < 3 {
		j.t.Errorf("%d containers in the summary", containers)
	}
}
