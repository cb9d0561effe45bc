package stats

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/google/cadvisor/container"
	"github.com/google/cadvisor/container/common"
	"github.com/google/cadvisor/container/libcontainer"
	info "github.com/google/cadvisor/info/v1"
	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// theirs is what cAdvisor says of a cgroup.
type theirs struct {
	Spec  info.ContainerSpec
	Stats info.ContainerStats
	Disks map[string]map[string]uint64 // by kind and device
}

func (n *node) cadvisor(t *testing.T, cgroup string, pid int) theirs {
	t.Helper()
	paths := map[string]string{}
	for _, controller := range append(n.facts.Controllers, "") {
		if dir := n.facts.Dir(controller, cgroup); dir != "" && controller != "cpuset" && (controller != "") == (n.facts.Version != "v2") {
			paths[controller] = dir
		}
	}
	groups, err := libcontainer.NewCgroupManager(cgroup, paths)
	if err != nil {
		t.Fatal(err)
	}
	set := container.MetricSet{}
	for _, kind := range []container.MetricKind{
		container.CpuUsageMetrics, container.MemoryUsageMetrics, container.DiskIOMetrics, container.NetworkUsageMetrics,
		container.ProcessMetrics, container.OOMMetrics, container.PressureMetrics,
	} {
		set[kind] = struct{}{}
	}
	stats, err := libcontainer.NewHandler(groups, "/", pid, set).GetStats()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := common.GetSpec(paths, machine{}, false, false)
	if err != nil {
		t.Fatal(err)
	}
	return comparable(spec, *stats)
}

type machine struct{}

func (machine) GetMachineInfo() (*info.MachineInfo, error) {
	return &info.MachineInfo{NumCores: 2}, nil
}
func (machine) GetVersionInfo() (*info.VersionInfo, error) { return nil, nil }

// comparable leaves out what is found out elsewhere, and lays open the rest.
func comparable(spec info.ContainerSpec, stats info.ContainerStats) theirs {
	spec.CreationTime, stats.Timestamp = time.Time{}, time.Time{}
	spec.Image, spec.Cpu.Mask, spec.HasNetwork, spec.HasHugetlb = "", "", false, false
	disks := map[string]map[string]uint64{}
	for kind, of := range map[string][]info.PerDiskStats{"bytes": stats.DiskIo.IoServiceBytes, "served": stats.DiskIo.IoServiced} {
		for _, d := range of {
			disks[fmt.Sprint(kind, d.Major, ":", d.Minor)] = d.Stats
		}
	}
	// Of v1 cAdvisor takes the cgroup's own faults for those of the cgroups in it too.
	stats.Memory.HierarchicalData = info.MemoryStatsMemoryData{}
	psi := stats.DiskIo.PSI
	stats.DiskIo = info.DiskIoStats{PSI: psi}
	stats.Network.InterfaceStats = info.InterfaceStats{}
	return theirs{spec, stats, disks}
}

// TestFullIsCadvisors: a container's limits and figures are those that cAdvisor
// reads, and its counters lie between what cAdvisor reads before and after.
func TestFullIsCadvisors(t *testing.T) {
	n := newNode(t)
	ready := filepath.Join(t.TempDir(), "ready")
	n.add(t, "p", "sh", "-c", `read x; dd if=/dev/zero of="$0.data" bs=64k count=64 oflag=direct 2>/dev/null; sleep 1000 & echo $! >"$0"; wait`, ready)
	await(t, ready)
	t.Cleanup(func() {
		pid := 0
		text, err := os.ReadFile(ready)
		if _, scan := fmt.Sscan(string(text), &pid); err != nil || scan != nil || syscall.Kill(pid, syscall.SIGKILL) != nil {
			t.Errorf("the sleeping process is left: %q", text)
		}
	})
	s := n.sampler(t)
	for _, kind := range []Kind{KindContainer, KindSandbox, KindPod} {
		cgroup := find(t, sample(t, s, Full), kind, "p").Cgroup
		pids, _ := os.ReadFile(filepath.Join(n.facts.Dir("cpu", cgroup), "cgroup.procs"))
		pid := 0
		if _, err := fmt.Sscan(string(pids), &pid); err != nil && kind != KindPod {
			t.Fatal(err)
		}
		before := n.cadvisor(t, cgroup, pid)
		c := find(t, s.round(Full), kind, "p")
		ours := comparable(*c.Spec, *c.Stats)
		after := n.cadvisor(t, cgroup, pid)
		if kind != KindSandbox { // the rest of a pod shares its network
			ours.Stats.Network, before.Stats.Network, after.Stats.Network = info.NetworkStats{}, info.NetworkStats{}, info.NetworkStats{}
		}
		if between(reflect.ValueOf(before), reflect.ValueOf(ours), reflect.ValueOf(after)) != "" {
			t.Errorf("kind %d: %s: cAdvisor's (-) and ours (+):\n%s", kind,
				between(reflect.ValueOf(before), reflect.ValueOf(ours), reflect.ValueOf(after)), cmp.Diff(before, ours))
		}
		if kind == KindContainer && (ours.Stats.Processes.ProcessCount != 2 || ours.Stats.Processes.FdCount == 0 || ours.Spec.Cpu.Limit == 0) {
			t.Errorf("too little is compared: %+v", ours)
		}
	}
}

// between says where v isn't between a and b, which are of its type.
func between(a, v, b reflect.Value) string {
	switch v.Kind() {
	case reflect.Uint64:
		if v.Uint() < min(a.Uint(), b.Uint()) || v.Uint() > max(a.Uint(), b.Uint()) {
			return fmt.Sprintf(" %d is not between %d and %d", v.Uint(), a.Uint(), b.Uint())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				if bad := between(a.Field(i), v.Field(i), b.Field(i)); bad != "" {
					return "." + v.Type().Field(i).Name + bad
				}
			}
		}
	case reflect.Slice:
		if v.Len() != a.Len() || v.Len() != b.Len() {
			return fmt.Sprintf(" has %d, not %d or %d", v.Len(), a.Len(), b.Len())
		}
		for i := range v.Len() {
			if bad := between(a.Index(i), v.Index(i), b.Index(i)); bad != "" {
				return fmt.Sprintf("[%d]%s", i, bad)
			}
		}
	case reflect.Map:
		if v.Len() != a.Len() || v.Len() != b.Len() {
			return fmt.Sprintf(" has %d keys, not %d or %d", v.Len(), a.Len(), b.Len())
		}
		for _, key := range v.MapKeys() {
			if !a.MapIndex(key).IsValid() || !b.MapIndex(key).IsValid() {
				return fmt.Sprintf("[%v] is only ours", key)
			}
			if bad := between(a.MapIndex(key), v.MapIndex(key), b.MapIndex(key)); bad != "" {
				return fmt.Sprintf("[%v]%s", key, bad)
			}
		}
	case reflect.Float64: // averages of stalls
	default:
		if !reflect.DeepEqual(a.Interface(), v.Interface()) {
			return fmt.Sprintf(" is %v, not %v", v, a)
		}
	}
	return ""
}

// TestDisksAreNamed: traffic is of disks by the name of their device.
func TestDisksAreNamed(t *testing.T) {
	blocks, err := filepath.Glob("/sys/dev/block/*")
	if err != nil || len(blocks) == 0 {
		t.Fatal("this machine has no disks", err)
	}
	var r reader
	for _, block := range blocks {
		major, minor, ok := device([]byte(filepath.Base(block)))
		if !ok {
			t.Fatalf("%s is no number of a device", block)
		}
		if _, err := os.Stat("/sys/class/block/" + filepath.Base(r.disk(major, minor))); err != nil {
			t.Error(err)
		}
	}
	if got := r.disk(4095, 1); got != "" {
		t.Errorf("a disk that isn't there is called %q", got)
	}
}

// TestDisksOfV2: what io.stat says is read in cAdvisor's terms.
func TestDisksOfV2(t *testing.T) {
	var io info.DiskIoStats
	disks2([]byte("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=5 dios=3 cost.usage=7 cost.wait=8\n253:1 \nbad\n"), &io)
	want := info.DiskIoStats{
		IoServiceBytes: []info.PerDiskStats{{Major: 8, Stats: map[string]uint64{"Read": 10, "Write": 20, "Discard": 5}}},
		IoServiced:     []info.PerDiskStats{{Major: 8, Stats: map[string]uint64{"Read": 1, "Write": 2, "Discard": 3}}},
		IoCostUsage:    []info.PerDiskStats{{Major: 8, Stats: map[string]uint64{"Count": 7}}},
		IoCostWait:     []info.PerDiskStats{{Major: 8, Stats: map[string]uint64{"Count": 8}}},
	}
	if diff := cmp.Diff(want, io); diff != "" {
		t.Error(diff)
	}
}

// TestMounted: the file system of the root is told once, as statfs tells it, with
// the traffic of its disk.
func TestMounted(t *testing.T) {
	var r reader
	all := mounted(&r)
	seen := map[string]bool{}
	for _, fs := range all {
		if seen[fs.Device] || fs.Limit == 0 || fs.Usage > fs.Limit || fs.InodesFree > fs.Inodes {
			t.Errorf("file system %+v", fs)
		}
		seen[fs.Device] = true
	}
	if len(all) == 0 || r.err != nil {
		t.Errorf("no file systems: %v", r.err)
	}
}

// await waits for a file that another program makes.
func await(t *testing.T, file string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if info, err := os.Stat(file); err == nil && info.Size() > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the program in the cgroup doesn't get ready")
		}
	}
}

// TestSampledBetweenRestarts: while no container of a pod runs, its sandbox still
// has a network, and the counters go on.
func TestSampledBetweenRestarts(t *testing.T) {
	f, s := newV2(t)
	f.add(t, "web")
	f.cgroup(t, "podweb/web-sandbox", nil)
	view := &f.pods[0].View
	view.Containers[0].State, view.Sandboxes[0].Ready = pod.Exited, true
	if got := find(t, s.round(Full), KindSandbox, "web"); got.ID != "web-sandbox" || got.Stats.Memory.Usage == 0 {
		t.Errorf("sandbox: %+v", got)
	}
	view.Sandboxes[0].Ready = false
	for _, c := range s.round(Full) {
		if c.Pod == "web" {
			t.Errorf("of a pod whose sandbox is down there is %+v", c)
		}
	}
}
