package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/local"
)

// TestCgroupsAndVolumes is what a pod gets of the node, and what is left of it.
func TestCgroupsAndVolumes(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.Config = map[string]any{"podPidsLimit": 64}
	b.start()
	b.share(map[string]func(*bed){
		"GuaranteedCgroup":     guaranteedCgroup,
		"BurstableCgroup":      burstableCgroup,
		"BestEffortCgroup":     bestEffortCgroup,
		"HostPathTypes":        hostPathTypes,
		"HostPathIsAwaited":    hostPathIsAwaited,
		"EmptyDirIsShared":     emptyDirIsShared,
		"MountLeftInPodIsKept": mountLeftInPodIsKept,
		"HostPort":             hostPort,
		"HostNetwork":          hostNetwork,
	})
}

// cgroup reads a file of the pod's cgroup in one hierarchy.
func (b *bed) cgroup(controller, tier string, p *local.Pod, file string) string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, b.CgroupRoot, "kubepods", tier, "pod"+string(p.UID), file))
	b.must(err)
	return strings.TrimSpace(string(data))
}

func (b *bed) cgroupIs(tier string, p *local.Pod, want map[string]string) {
	b.t.Helper()
	for file, value := range want {
		controller, _, _ := strings.Cut(file, ".")
		if got := b.cgroup(controller, tier, p, file); got != value {
			b.t.Errorf("%s is %s, want %s", file, got, value)
		}
	}
}

func stays(name, resources string) string {
	return podOf(name, `
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"], resources: {`+resources+`}}`)
}

func guaranteedCgroup(b *bed) {
	b.apply("guaranteed", stays("guaranteed", "limits: {cpu: 100m, memory: 64Mi}"))
	p := b.ready("guaranteed")
	b.cgroupIs("", p, map[string]string{"cpu.shares": "102", "cpu.cfs_quota_us": "10000", "memory.limit_in_bytes": "67108864", "pids.max": "64"})
	if p.Status.QOSClass != v1.PodQOSGuaranteed {
		b.t.Errorf("QoS class %s", p.Status.QOSClass)
	}
	b.remove("guaranteed")
	b.gone("guaranteed", string(p.UID))
}

func burstableCgroup(b *bed) {
	b.apply("burstable", stays("burstable", "requests: {cpu: 100m}"))
	p := b.ready("burstable")
	b.cgroupIs("burstable", p, map[string]string{"cpu.shares": "102", "cpu.cfs_quota_us": "-1", "pids.max": "64"})
	b.remove("burstable")
	b.gone("burstable", string(p.UID))
}

func bestEffortCgroup(b *bed) {
	b.apply("besteffort", stays("besteffort", ""))
	p := b.ready("besteffort")
	b.cgroupIs("besteffort", p, map[string]string{"cpu.shares": "2", "pids.max": "64"})
	// The containers are in it.
	tasks, err := filepath.Glob(filepath.Join("/sys/fs/cgroup/cpu", b.CgroupRoot, "kubepods/besteffort/pod"+string(p.UID), b.instances(string(p.UID))["main"]))
	b.must(err)
	if len(tasks) != 1 {
		b.t.Errorf("the container's cgroup is not in its pod's")
	}
	b.remove("besteffort")
	b.gone("besteffort", string(p.UID))
}

func hostPathPod(name, path, kind string) string {
	return podOf(name, `
volumes: [{name: d, hostPath: {path: '`+path+`', type: `+kind+`}}]
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"], volumeMounts: [{name: d, mountPath: /d}]}`)
}

func hostPathTypes(b *bed) {
	dir := b.Path("types")
	b.must(os.MkdirAll(dir, 0o755))
	b.must(os.WriteFile(dir+"/file", nil, 0o644))
	for i, c := range []struct{ kind, path, problem string }{
		{"Directory", dir + "/file", "not a directory"},
		{"File", dir, "not a file"},
		{"Socket", dir + "/file", "socket"},
		{"CharDevice", dir + "/file", "character device"},
		{"BlockDevice", dir + "/file", "block device"},
	} {
		name := fmt.Sprintf("wrongtype%d", i)
		b.apply(name, hostPathPod(name, c.path, c.kind))
		b.eventually(c.kind+" is refused", 30*time.Second, func() error {
			p := b.pod(name)
			if p == nil || !slices.ContainsFunc(p.Notes, func(n local.Note) bool {
				return n.Reason == "FailedMount" && strings.Contains(n.Message, c.path) && strings.Contains(n.Message, c.problem)
			}) {
				return fmt.Errorf("it says %+v", p)
			}
			return nil
		})
	}
	b.apply("rightdir", hostPathPod("rightdir", dir+"/made/deep", "DirectoryOrCreate"))
	b.apply("rightfile", hostPathPod("rightfile", dir+"/made-file", "FileOrCreate"))
	b.ready("rightdir")
	b.ready("rightfile")
	if info, err := os.Stat(dir + "/made/deep"); err != nil || info.Mode().Perm() != 0o755 {
		b.t.Errorf("made folder: %v, %v", info, err)
	}
	if info, err := os.Stat(dir + "/made-file"); err != nil || info.Mode().Perm() != 0o644 {
		b.t.Errorf("made file: %v, %v", info, err)
	}
}

func hostPathIsAwaited(b *bed) {
	dir := b.Path("awaited")
	b.apply("awaits", hostPathPod("awaits", dir, "Directory"))
	b.eventually("it waits", 30*time.Second, func() error {
		if p := b.pod("awaits"); p == nil || !strings.Contains(strings.Join(p.Waits, " "), dir) {
			return fmt.Errorf("it says %+v", p)
		}
		return nil
	})
	b.must(os.Mkdir(dir, 0o755))
	b.ready("awaits")
}

func emptyDirIsShared(b *bed) {
	b.apply("share", podOf("share", `
volumes: [{name: e, emptyDir: {}}]
containers:
- {name: writer, image: BUSYBOX, command: [sh, -c, "echo data > /e/x; trap exit TERM; sleep 1000 & wait"], volumeMounts: [{name: e, mountPath: /e}]}
- {name: reader, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"], volumeMounts: [{name: e, mountPath: /other}]}`))
	p := b.ready("share")
	reader := b.instances(string(p.UID))["reader"]
	b.eventually("the reader sees the data", 30*time.Second, func() error {
		if got := b.exec(reader, "cat", "/other/x"); got != "data" {
			return fmt.Errorf("it sees %q", got)
		}
		return nil
	})
	on := filepath.Join(b.Root, "pods", string(p.UID), "volumes/kubernetes.io~empty-dir/e")
	if info, err := os.Stat(on); err != nil || info.Mode().Perm() != 0o777 {
		b.t.Errorf("emptyDir on disk: %v, %v", info, err)
	}
	b.remove("share")
	b.gone("share", string(p.UID)) // its folder too
}

// mountLeftInPodIsKept mounts a folder of data into a volume behind the
// agent's back: the pod's end stops there and says so, and goes on once the
// mount is gone.
func mountLeftInPodIsKept(b *bed) {
	data := b.Path("precious")
	b.must(os.MkdirAll(data, 0o755))
	b.must(os.WriteFile(data+"/bytes", []byte("precious"), 0o644))
	b.apply("mounted", podOf("mounted", `
volumes: [{name: e, emptyDir: {}}]
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"], volumeMounts: [{name: e, mountPath: /e}]}`))
	p := b.ready("mounted")
	point := filepath.Join(b.Root, "pods", string(p.UID), "volumes/kubernetes.io~empty-dir/e/mnt")
	b.must(os.Mkdir(point, 0o755))
	b.must(unix.Mount(data, point, "", unix.MS_BIND, ""))
	b.remove("mounted")
	b.eventually("the pod says what keeps it", 30*time.Second, func() error {
		if p := b.pod("mounted"); p == nil || !strings.Contains(strings.Join(p.Waits, " "), point) {
			return fmt.Errorf("it says %+v", p)
		}
		return nil
	})
	if got, err := os.ReadFile(data + "/bytes"); err != nil || string(got) != "precious" {
		b.t.Fatalf("the data is %q, %v", got, err)
	}
	b.must(unix.Unmount(point, 0))
	b.gone("mounted", string(p.UID))
	if got, err := os.ReadFile(data + "/bytes"); err != nil || string(got) != "precious" {
		b.t.Fatalf("the data is %q, %v", got, err)
	}
}

// served is a pod that answers "hello" on a port of the node.
func served(name, port string) string {
	return podOf(name, `
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "mkdir /w && echo hello > /w/index.html && httpd -f -p 80 -h /w"]
  ports: [{containerPort: 80, hostPort: `+port+`}]`)
}

// hostPort: the port of the node leads to the pod; a second pod that wants it
// is refused, and the port is free again once the first is gone.
func hostPort(b *bed) {
	b.apply("port", served("port", "18080"))
	first := b.ready("port")
	b.eventually("the port answers", 30*time.Second, func() error {
		c, err := b.Network.Dial(context.Background(), "tcp", lab.NodeAddress+":18080")
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		got, err := io.ReadAll(c)
		if err == nil && !strings.Contains(string(got), "hello") {
			err = fmt.Errorf("it says %q", got)
		}
		return err
	})
	b.apply("port-too", served("port-too", "18080"))
	second := b.phase("port-too", "Failed")
	if second.Status.Reason != "NodePorts" && !strings.Contains(second.Status.Message, "port") {
		b.t.Errorf("refused for %s: %s", second.Status.Reason, second.Status.Message)
	}
	b.remove("port-too")
	b.gone("port-too", string(second.UID))
	b.remove("port")
	b.gone("port", string(first.UID))
	b.apply("port-three", served("port-three", "18080"))
	b.ready("port-three")
}

// hostNetwork: such a pod has the node's address, and takes none of the pods'.
func hostNetwork(b *bed) {
	b.apply("hostnet", podOf("hostnet", `
hostNetwork: true
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]}`))
	p := b.ready("hostnet")
	if p.Status.PodIP != lab.NodeAddress || p.Status.HostIP != lab.NodeAddress {
		b.t.Errorf("pod IP %s, host IP %s, want %s", p.Status.PodIP, p.Status.HostIP, lab.NodeAddress)
	}
	links := b.exec(b.instances(string(p.UID))["main"], "ip", "-o", "link")
	if !strings.Contains(links, "node0") {
		b.t.Errorf("it doesn't see the node's links: %s", links)
	}
}
