package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// metered is a pod that takes some of everything that is counted.
const metered = `
apiVersion: v1
kind: Pod
metadata: {name: metered}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: settings, configMap: {name: kube-root-ca.crt}}
  containers:
  - name: main
    image: BUSYBOX
    command:
    - sh
    - -c
    - |
      dd if=/dev/zero of=/disk/file bs=1024 count=300
      dd if=/dev/zero of=/memory/file bs=1024 count=200
      dd if=/dev/zero of=/layer bs=1024 count=500
      i=0; while [ $i -lt 1000 ]; do echo line $i of what is printed; i=$((i+1)); done
      touch /disk/ready
      exec sleep 100000
    resources: {limits: {cpu: 500m, memory: 64Mi}}
    readinessProbe: {exec: {command: [test, -e, /disk/ready]}, periodSeconds: 1}
    volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}, {name: settings, mountPath: /settings}]
  - name: other
    image: BUSYBOX
    command: [sleep, "100000"]
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: BUSYBOX, command: [sleep, "100000"]}
`

// meter starts these pods.
func (j *joined) meter() {
	j.create(strings.ReplaceAll(metered, "BUSYBOX", lab.BusyboxImage))
	j.waitReady("metered")
	j.waitReady("host")
}

// summary asks the node, through the apiserver.
func (j *joined) summary(query string) (s statsapi.Summary, raw map[string]any) {
	j.t.Helper()
	out := j.proxied("/stats/summary" + query)
	j.must(json.Unmarshal([]byte(out), &s))
	j.must(json.Unmarshal([]byte(out), &raw))
	return s, raw
}

func podStats(t *testing.T, s statsapi.Summary, name string) statsapi.PodStats {
	t.Helper()
	for _, p := range s.Pods {
		if p.PodRef.Name == name {
			return p
		}
	}
	t.Fatalf("pod %s is not in the summary", name)
	return statsapi.PodStats{}
}

// summaryPaths are the paths of all fields in a JSON value, without indexes.
func summaryPaths(v any, at string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			summaryPaths(value, at+"."+key, into)
		}
	case []any:
		for _, value := range v {
			summaryPaths(value, at, into)
		}
	default:
		into[at] = true
	}
}

// schemaPaths are those of all fields that a type has in JSON.
func schemaPaths(t reflect.Type, at string, into map[string]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[metav1.Time]() {
		into[at] = true
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" {
			name = "." + name
		}
		schemaPaths(f.Type, at+name, into)
	}
}

// notTold are the fields of the summary that a node leaves out: a kubelet does so
// as well, or nothing here has such a thing.
var notTold = []string{
	".node.systemContainers.rootfs", ".node.systemContainers.logs", ".node.systemContainers.userDefinedMetrics",
	".node.systemContainers.accelerators", ".pods.containers.userDefinedMetrics", ".pods.containers.accelerators",
	".pods.volume.volumeHealthStats", ".pods.volume.pvcRef",
	// What has no limit has nothing available.
	".node.systemContainers.swap.swapAvailableBytes", ".pods.swap.swapAvailableBytes", ".pods.memory.availableBytes",
	// Only an eth0 stands for all, and the lab's node has none.
	".node.network.rxBytes", ".node.network.rxErrors", ".node.network.txBytes", ".node.network.txErrors",
}

// full are the fields that a summary must have, brief those with CPU and memory
// alone.
func full(path string) bool {
	return !slices.ContainsFunc(notTold, func(p string) bool { return path == p || strings.HasPrefix(path, p+".") })
}

func brief(path string) bool {
	parts := strings.Split(path, ".")
	named := slices.ContainsFunc(parts, func(p string) bool { return p == "cpu" || p == "memory" || p == "swap" })
	about := slices.Contains([]string{"nodeName", "name", "startTime", "namespace", "uid"}, parts[len(parts)-1]) && !slices.Contains(parts, "network") && !slices.Contains(parts, "volume")
	return full(path) && (named || about)
}

// TestStatsSummary: the summary is what the kernel says at that moment.
func TestStatsSummary(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	j.meter()
	j.summary("")                       // rates are taken from the second on
	time.Sleep(1100 * time.Millisecond) // a sample that is younger is given to both
	parts := map[string]func(*joined, statsapi.Summary){
		"Node": nodeFigures, "Pod": podFigures, "Disks": diskFigures, "Network": networkFigures,
	}
	before := j.cpuTimes()
	s, raw := j.summary("")
	after := j.cpuTimes()
	for name, check := range parts {
		t.Run(name, func(t *testing.T) { check(j.in(t), s) })
	}
	t.Run("CPUTime", func(t *testing.T) {
		for _, c := range podStats(t, s, "metered").Containers {
			if got := *c.CPU.UsageCoreNanoSeconds; got < before[c.Name] || got > after[c.Name] {
				t.Errorf("%s: CPU time %d, want between %d and %d", c.Name, got, before[c.Name], after[c.Name])
			}
		}
	})
	t.Run("Fields", func(t *testing.T) { sameFields(t, raw, full) })
	t.Run("OnlyCPUAndMemory", func(t *testing.T) {
		_, raw := j.in(t).summary("?only_cpu_and_memory=true")
		sameFields(t, raw, brief)
	})
}

// sameFields says which fields of the schema are missing, or are there though not
// wanted.
func sameFields(t *testing.T, raw map[string]any, wanted func(string) bool) {
	t.Helper()
	got, schema := map[string]bool{}, map[string]bool{}
	summaryPaths(raw, "", got)
	schemaPaths(reflect.TypeFor[statsapi.Summary](), "", schema)
	for _, path := range slices.Sorted(maps.Keys(schema)) {
		if wanted(path) != got[path] {
			t.Errorf("field %s: there %v, wanted %v", path, got[path], wanted(path))
		}
	}
	for path := range got {
		if !schema[path] {
			t.Errorf("field %s is unknown", path)
		}
	}
}

// podCgroup is a file of the pod's cgroup on v1, or of a container's in it.
func (j *joined) podCgroup(controller, pod, container, file string) string {
	j.t.Helper()
	p := j.waitPod(pod, "is there", podReady)
	tier := map[string]string{"Burstable": "burstable", "BestEffort": "besteffort"}[string(p.Status.QOSClass)]
	dir := filepath.Join("/sys/fs/cgroup", controller, j.CgroupRoot, "kubepods", tier, "pod"+string(p.UID))
	for _, s := range p.Status.ContainerStatuses {
		if s.Name == container {
			_, id, _ := strings.Cut(s.ContainerID, "://")
			dir = filepath.Join(dir, id)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, file))
	j.must(err)
	return strings.TrimSpace(string(text))
}

func (j *joined) number(controller, pod, container, file string) uint64 {
	j.t.Helper()
	n, err := strconv.ParseUint(j.podCgroup(controller, pod, container, file), 10, 64)
	j.must(err)
	return n
}

// stat is a line of memory.stat.
func (j *joined) stat(pod, container, key string) uint64 {
	j.t.Helper()
	for line := range strings.Lines(j.podCgroup("memory", pod, container, "memory.stat")) {
		var n uint64
		if _, err := fmt.Sscanf(line, key+" %d", &n); err == nil {
			return n
		}
	}
	j.t.Fatalf("memory.stat has no %s", key)
	return 0
}

func (j *joined) cpuTimes() map[string]uint64 {
	return map[string]uint64{
		"main":  j.number("cpuacct", "metered", "main", "cpuacct.usage"),
		"other": j.number("cpuacct", "metered", "other", "cpuacct.usage"),
	}
}

// near says whether a figure is what it should be, give or take what changes
// between two looks at it.
func near(t *testing.T, what string, got *uint64, want, tolerance uint64) {
	t.Helper()
	if got == nil {
		t.Errorf("%s: nothing, want %d", what, want)
	} else if *got > want+tolerance || *got+tolerance < want {
		t.Errorf("%s: %d, want %d give or take %d", what, *got, want, tolerance)
	}
}

func podFigures(j *joined, s statsapi.Summary) {
	p := podStats(j.t, s, "metered")
	const slack = 1 << 20
	for _, c := range p.Containers {
		usage, inactive := j.number("memory", "metered", c.Name, "memory.usage_in_bytes"), j.stat("metered", c.Name, "total_inactive_file")
		near(j.t, c.Name+" memory", c.Memory.UsageBytes, usage, slack)
		near(j.t, c.Name+" working set", c.Memory.WorkingSetBytes, usage-inactive, slack)
		near(j.t, c.Name+" rss", c.Memory.RSSBytes, j.stat("metered", c.Name, "total_rss"), slack)
		near(j.t, c.Name+" page faults", c.Memory.PageFaults, j.stat("metered", c.Name, "pgfault"), 100000)
		near(j.t, c.Name+" swap", c.Swap.SwapUsageBytes, j.stat("metered", c.Name, "total_swap"), slack)
		if c.CPU.UsageNanoCores == nil || *c.CPU.UsageNanoCores > 2e9 {
			j.t.Errorf("%s: rate of CPU use %v", c.Name, c.CPU.UsageNanoCores)
		}
		if limited := c.Name == "main"; limited != (c.Memory.AvailableBytes != nil) {
			j.t.Errorf("%s: memory available %v", c.Name, c.Memory.AvailableBytes)
		} else if limited {
			near(j.t, "memory available", c.Memory.AvailableBytes, 64<<20-*c.Memory.WorkingSetBytes, 0)
		}
		if since := time.Since(c.StartTime.Time); since < 0 || since > 5*time.Minute {
			j.t.Errorf("%s: began %v", c.Name, c.StartTime)
		}
	}
	near(j.t, "pod's memory", p.Memory.UsageBytes, j.number("memory", "metered", "", "memory.usage_in_bytes"), slack)
	near(j.t, "processes", p.ProcessStats.ProcessCount, 2, 0)
}

func diskFigures(j *joined, s statsapi.Summary) {
	p := podStats(j.t, s, "metered")
	var main statsapi.ContainerStats
	for _, c := range p.Containers {
		if c.Name == "main" {
			main = c
		}
	}
	// containerd counts layers each 10 s: it may not have come to this one, and
	// the next request is told what this one asked for.
	j.eventually("the writable layer is counted", 60*time.Second, func() error {
		s, _ := j.summary("")
		p = podStats(j.t, s, "metered")
		for _, c := range p.Containers {
			if c.Name == "main" && c.Rootfs != nil && *c.Rootfs.UsedBytes >= 500<<10 && *s.Node.Runtime.ImageFs.UsedBytes > 500<<10 {
				main = c
				return nil
			}
		}
		return fmt.Errorf("writable layer: %+v", main.Rootfs)
	})
	near(j.t, "writable layer", main.Rootfs.UsedBytes, 500<<10, 64<<10)
	logs, err := filepath.Glob(filepath.Join(j.PodLogs, j.ns+"_metered_*", "main", "*.log"))
	j.must(err)
	if len(logs) != 1 {
		j.t.Fatalf("logs: %v", logs)
	}
	near(j.t, "logs", main.Logs.UsedBytes, blocks(j.t, logs[0]), 8<<10)
	sizes := map[string]uint64{"disk": 300 << 10, "memory": 200 << 10, "settings": 8 << 10}
	for _, v := range p.VolumeStats {
		want, known := sizes[v.Name]
		switch {
		case known:
			near(j.t, "volume "+v.Name, v.UsedBytes, want, 16<<10)
		case !strings.HasPrefix(v.Name, "kube-api-access-"):
			j.t.Errorf("volume %s is not of the pod", v.Name)
		}
		delete(sizes, v.Name)
	}
	for name := range sizes {
		j.t.Errorf("volume %s is not told", name)
	}
	near(j.t, "ephemeral storage", p.EphemeralStorage.UsedBytes, *main.Rootfs.UsedBytes+*main.Logs.UsedBytes+300<<10, 128<<10)
}

// blocks are the bytes that a file takes of the disk.
func blocks(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return uint64(st.Blocks) * 512
}

func nodeFigures(j *joined, s statsapi.Summary) {
	var fs unix.Statfs_t
	j.must(unix.Statfs(j.Root, &fs))
	block := uint64(fs.Bsize)
	near(j.t, "disk", s.Node.Fs.CapacityBytes, fs.Blocks*block, 0)
	near(j.t, "disk available", s.Node.Fs.AvailableBytes, fs.Bavail*block, 1<<30)
	near(j.t, "disk used", s.Node.Fs.UsedBytes, (fs.Blocks-fs.Bfree)*block, 1<<30)
	near(j.t, "inodes", s.Node.Fs.Inodes, fs.Files, 0)
	node := j.waitNode("is Ready", nodeReady)
	total := uint64(node.Status.Capacity.Memory().Value())
	near(j.t, "memory used and available", s.Node.Memory.AvailableBytes, total-*s.Node.Memory.WorkingSetBytes, 0)
	if s.Node.NodeName != j.Node {
		j.t.Errorf("node %q", s.Node.NodeName)
	}
	if rates := s.Node.CPU.UsageNanoCores; rates == nil || *rates == 0 || *rates > 1e9*uint64(node.Status.Capacity.Cpu().Value()) {
		j.t.Errorf("rate of CPU use: %v", rates)
	}
	near(j.t, "disk of images", s.Node.Runtime.ImageFs.CapacityBytes, fs.Blocks*block, 0) // the lab has one
	near(j.t, "disk of containers", s.Node.Runtime.ContainerFs.CapacityBytes, fs.Blocks*block, 0)
	if r := s.Node.Rlimit; r == nil || *r.MaxPID < *r.NumOfRunningProcesses || *r.NumOfRunningProcesses < 3 {
		j.t.Errorf("processes: %+v", s.Node.Rlimit)
	}
	if !slices.ContainsFunc(s.Node.SystemContainers, func(c statsapi.ContainerStats) bool { return c.Name == statsapi.SystemContainerPods }) {
		j.t.Error("all pods together are not told")
	}
}

func networkFigures(j *joined, s statsapi.Summary) {
	n := podStats(j.t, s, "metered").Network
	if n == nil || n.Name != "eth0" || *n.RxBytes == 0 || len(n.Interfaces) != 1 {
		j.t.Errorf("the pod's network: %+v", n)
	}
	if n := podStats(j.t, s, "host").Network; n != nil {
		j.t.Errorf("the network of a pod in the node's: %+v", n)
	}
}
