package agent

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// inMountNamespace runs f on a thread with mounts of its own, which nobody else
// sees and which end with it.
func inMountNamespace(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// mountsAt are the mounts at a path as the calling thread sees them.
func mountsAt(t *testing.T, path string) []*mountinfo.Info {
	t.Helper()
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		t.Error(err)
		return nil
	}
	defer f.Close()
	found, err := mountinfo.GetMountsFromReader(f, func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != path, false })
	if err != nil {
		t.Error(err)
	}
	return found
}

func TestShareMounts(t *testing.T) {
	dir := t.TempDir()
	inMountNamespace(t, func() {
		root := filepath.Join(dir, "root")
		volume := filepath.Join(root, "pods/volume")
		if err := os.MkdirAll(volume, 0o755); err != nil {
			t.Error(err)
		}
		if err := unix.Mount("tmpfs", volume, "tmpfs", 0, ""); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(volume, "data"), nil, 0o644); err != nil {
			t.Error(err)
		}
		for range 2 { // an agent that starts again finds it done
			if err := shareMounts(root); err != nil {
				t.Error(err)
			}
			if at := mountsAt(t, root); len(at) != 1 || at[0].Optional == "" {
				t.Errorf("%d mounts at the root, want one that is shared: %v", len(at), at)
			}
		}
		if at := mountsAt(t, volume); len(at) == 0 || at[len(at)-1].Optional == "" {
			t.Errorf("what was mounted before: %v", at)
		}
		if _, err := os.Stat(filepath.Join(volume, "data")); err != nil {
			t.Errorf("what was mounted before is hidden: %v", err)
		}
		// A root that is a mount point of its own is shared as it is.
		disk := filepath.Join(dir, "disk")
		if err := os.Mkdir(disk, 0o755); err != nil {
			t.Error(err)
		}
		if err := unix.Mount("tmpfs", disk, "tmpfs", 0, ""); err != nil {
			t.Error(err)
		}
		if err := shareMounts(disk); err != nil {
			t.Error(err)
		}
		if at := mountsAt(t, disk); len(at) != 1 || at[0].Optional == "" {
			t.Errorf("a root on its own disk: %v", at)
		}
		// Below a shared mount there is nothing to do.
		inner := filepath.Join(disk, "inner")
		if err := os.Mkdir(inner, 0o755); err != nil {
			t.Error(err)
		}
		if err := shareMounts(inner); err != nil {
			t.Error(err)
		}
		if at := mountsAt(t, inner); len(at) != 0 {
			t.Errorf("below a shared mount: %v", at)
		}
	})
}
