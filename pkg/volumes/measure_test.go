package volumes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodeagent/nodeagent/pkg/env"
)

func measurable(t *testing.T, source v1.VolumeSource) (*Volumes, *v1.Pod, string) {
	t.Helper()
	v, err := New(t.TempDir(), 0, env.Resolver{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &v1.Pod{}
	p.Name, p.UID = "web", "3f0ad6b4-2f4c-44a1-9a3a-8f2f4a2c0f11"
	p.Spec.Volumes = []v1.Volume{{Name: "data", VolumeSource: source}}
	p.Spec.Containers = []v1.Container{{Name: "main", VolumeMounts: []v1.VolumeMount{{Name: "data", MountPath: "/data"}}}}
	if err := v.Prepare(p); err != nil {
		t.Fatal(err)
	}
	paths, _, err := v.Mount(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Unmount(t.Context(), p.UID); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		_ = unix.Unmount(paths["data"], unix.MNT_DETACH) // left only by a test that failed
	})
	return v, p, paths["data"]
}

// TestMeasure: a folder takes what its own files take, each counted once, and
// nothing that a link or a mount leads to.
func TestMeasure(t *testing.T) {
	v, p, dir := measurable(t, v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "a/b/file"), make([]byte, 100<<10), 0o644))
	must(os.Link(filepath.Join(dir, "a/b/file"), filepath.Join(dir, "same")))
	must(os.Symlink("/usr", filepath.Join(dir, "usr")))
	must(os.MkdirAll(filepath.Join(dir, "mounted"), 0o755))
	must(unix.Mount("/usr", filepath.Join(dir, "mounted"), "", unix.MS_BIND, ""))
	got, err := v.Measure(t.Context(), p, &p.Spec.Volumes[0])
	must(unix.Unmount(filepath.Join(dir, "mounted"), 0))
	must(err)
	var want, inodes uint64
	for _, path := range []string{".", "a", "a/b", "a/b/file", "usr"} {
		var st unix.Stat_t
		must(unix.Lstat(filepath.Join(dir, path), &st))
		want, inodes = want+uint64(st.Blocks)*512, inodes+1
	}
	if got.Used != want || got.InodesUsed != inodes {
		t.Errorf("got %d bytes and %d inodes, want %d and %d", got.Used, got.InodesUsed, want, inodes)
	}
	var fs unix.Statfs_t
	must(unix.Statfs(dir, &fs))
	if got.Capacity != fs.Blocks*uint64(fs.Bsize) || time.Since(got.At) > time.Minute {
		t.Errorf("got %+v", got)
	}
}

// TestMeasureAsksTheVolumesOwnFileSystem, which knows without a walk.
func TestMeasureAsksTheVolumesOwnFileSystem(t *testing.T) {
	limit := resource.MustParse("8Mi")
	v, p, dir := measurable(t, v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory, SizeLimit: &limit}})
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := v.Measure(t.Context(), p, &p.Spec.Volumes[0])
	if err != nil {
		t.Fatal(err)
	}
	if got.Used != 1<<20 || got.Capacity != 8<<20 || got.Available != 7<<20 || got.InodesUsed != 2 {
		t.Errorf("got %+v", got)
	}
}

// TestMeasureStopsInTheDepths: no pod has the agent hold any number of folders
// open.
func TestMeasureStopsInTheDepths(t *testing.T) {
	v, p, dir := measurable(t, v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}})
	parent, err := os.OpenRoot(dir)
	for i := 0; i <= deepest+1 && err == nil; i++ {
		name := fmt.Sprint(i)
		if err = parent.Mkdir(name, 0o755); err == nil {
			var next *os.Root
			next, err = parent.OpenRoot(name)
			_ = parent.Close()
			parent = next
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = parent.Close()
	got, err := v.Measure(t.Context(), p, &p.Spec.Volumes[0])
	if err == nil {
		t.Error("counted to the end")
	}
	if got.InodesUsed <= deepest || got.At.IsZero() {
		t.Errorf("nothing is told of what was counted: %+v", got)
	}
}

// TestHostPathIsNotMeasured: it is the host's.
func TestHostPathIsNotMeasured(t *testing.T) {
	v, p, _ := measurable(t, v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/usr"}})
	if _, err := v.Measure(t.Context(), p, &p.Spec.Volumes[0]); !errors.Is(err, ErrNotMeasured) {
		t.Errorf("got %v", err)
	}
}
