package stats

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/volumes"
)

// world is what is around a node's cgroups: a runtime and volumes.
type world struct {
	usage      map[string]cri.Usage
	images     imageFS
	runtimeErr error
	volumes    func(*v1.Volume) (volumes.Usage, error)
}

func (w *world) Usage(context.Context) (map[string]cri.Usage, error) { return w.usage, w.runtimeErr }

func (w *world) ImageFS(context.Context) (a, b cri.FileSystem, err error) {
	return w.images.images, w.images.containers, w.runtimeErr
}

func (w *world) Measure(_ context.Context, _ *v1.Pod, vol *v1.Volume) (volumes.Usage, error) {
	return w.volumes(vol)
}

func newStats(t testing.TB, n *node, w *world, root string) *Stats {
	t.Helper()
	s, err := New(Options{NodeName: "n1", Pods: n, Places: n, Runtime: w, Volumes: w, Root: root, LogsDir: filepath.Join(root, "logs"),
		VolumePeriod: time.Minute, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

func summary(t testing.TB, s *Stats, brief bool) *statsapi.Summary {
	t.Helper()
	got, err := s.Summary(t.Context(), brief)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestSummaryOfAPod: every figure of a pod is there, and is what it is a figure of.
func TestSummaryOfAPod(t *testing.T) {
	n := newNode(t)
	p := n.add(t, "web", "sleep", "1000")
	n.pods[0].Spec.Spec.Volumes = []v1.Volume{
		{Name: "data", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		{Name: "memory", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}},
		{Name: "host", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/"}}},
		{Name: "claimed", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "pvc"}}},
	}
	root := t.TempDir()
	counted := time.Now().Add(-3 * time.Second)
	w := &world{
		usage:  map[string]cri.Usage{p.View.Containers[0].ID: {Layer: cri.FileSystem{At: counted, Mountpoint: root, Bytes: 100 << 10, Inodes: 7}}},
		images: imageFS{images: cri.FileSystem{At: counted, Mountpoint: "/", Bytes: 1 << 20, Inodes: 9}, containers: cri.FileSystem{At: counted, Mountpoint: "/proc", Bytes: 2 << 20, Inodes: 8}},
		volumes: func(vol *v1.Volume) (volumes.Usage, error) {
			if vol.HostPath != nil {
				return volumes.Usage{}, volumes.ErrNotMeasured
			}
			return volumes.Usage{At: counted, Used: 50 << 10, InodesUsed: 3, Capacity: 1 << 30, Available: 1 << 29, Inodes: 1000, InodesFree: 900}, nil
		},
	}
	logs := filepath.Join(root, "logs", "default_web_"+string(p.Spec.UID), "main")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	printed := write(t, filepath.Join(logs, "0.log"), 10000) + write(t, filepath.Join(logs, "0.log.20260101-000000"), 3)
	hosts := write(t, filepath.Join(root, "pods", string(p.Spec.UID), "etc-hosts"), 100)
	got := summary(t, newStats(t, n, w, root), false)
	if len(got.Pods) != 1 || len(got.Pods[0].Containers) != 1 {
		t.Fatalf("pods: %+v", got.Pods)
	}
	pod, main := got.Pods[0], got.Pods[0].Containers[0]
	if pod.PodRef.Name != "web" || pod.PodRef.Namespace != "default" || pod.PodRef.UID != string(p.Spec.UID) || main.Name != "main" {
		t.Errorf("reference: %+v, container %q", pod.PodRef, main.Name)
	}
	if !pod.StartTime.Time.Equal(p.View.Sandboxes[0].CreatedAt) || !main.StartTime.Time.Equal(p.View.Containers[0].CreatedAt) {
		t.Errorf("began: pod %v, container %v", pod.StartTime, main.StartTime)
	}
	equal(t, "processes", pod.ProcessStats.ProcessCount, 1)
	equal(t, "layer", main.Rootfs.UsedBytes, 100<<10)
	equal(t, "layer's inodes", main.Rootfs.InodesUsed, 7)
	if !main.Rootfs.Time.Time.Equal(counted) {
		t.Errorf("layer counted at %v, want %v", main.Rootfs.Time, counted)
	}
	equal(t, "logs", main.Logs.UsedBytes, printed)
	equal(t, "log files", main.Logs.InodesUsed, 2)
	if len(pod.VolumeStats) != 3 || pod.VolumeStats[0].Name != "data" || pod.VolumeStats[2].PVCRef == nil || pod.VolumeStats[2].PVCRef.Name != "pvc" {
		t.Errorf("volumes: %+v", pod.VolumeStats)
	}
	equal(t, "volume", pod.VolumeStats[0].UsedBytes, 50<<10)
	// Neither what is in memory nor what is claimed is of the node's disk.
	equal(t, "ephemeral storage", pod.EphemeralStorage.UsedBytes, 100<<10+printed+50<<10+hosts)
	equal(t, "ephemeral inodes", pod.EphemeralStorage.InodesUsed, 7+2+3+1)
	equal(t, "pod's memory available", pod.Memory.AvailableBytes, 64<<20-*pod.Memory.WorkingSetBytes)
	if main.Memory.AvailableBytes != nil {
		t.Error("a container without a limit of its own has memory available")
	}
	equal(t, "images", got.Node.Runtime.ImageFs.UsedBytes, 1<<20)
	equal(t, "writable layers", got.Node.Runtime.ContainerFs.UsedBytes, 2<<20)
	if *got.Node.Runtime.ImageFs.CapacityBytes == *got.Node.Runtime.ContainerFs.CapacityBytes {
		t.Error("the disk of images is told as that of containers")
	}
	if len(got.Node.SystemContainers) != 1 || got.Node.SystemContainers[0].Name != "pods" {
		t.Errorf("system containers: %+v", got.Node.SystemContainers)
	}
}

func equal(t *testing.T, what string, got *uint64, want uint64) {
	t.Helper()
	if got == nil || *got != want {
		t.Errorf("%s: got %v, want %d", what, got, want)
	}
}

// write a file, and say what it takes of the disk.
func write(t testing.TB, path string, size int) uint64 {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return uint64(st.Blocks) * 512
}

// BenchmarkSummary is one answer about 100 pods, as it is sent.
func BenchmarkSummary(b *testing.B) {
	n := newNode(b)
	w := &world{usage: map[string]cri.Usage{}, volumes: func(*v1.Volume) (volumes.Usage, error) { return volumes.Usage{At: time.Now()}, nil }}
	root := b.TempDir()
	for i := range 100 {
		p := n.add(b, fmt.Sprint("p", i), "sleep", "1000")
		w.usage[p.View.Containers[0].ID] = cri.Usage{Layer: cri.FileSystem{At: time.Now(), Mountpoint: root}}
		write(b, filepath.Join(root, "logs", "default_"+p.Spec.Name+"_"+string(p.Spec.UID), "main", "0.log"), 100)
	}
	s := newStats(b, n, w, root)
	for b.Loop() {
		s.newest = [Full + 1]round{} // as if a second had passed
		got := summary(b, s, false)
		if err := json.NewEncoder(io.Discard).Encode(got); err != nil || len(got.Pods) != 100 {
			b.Fatal(len(got.Pods), err)
		}
	}
}
