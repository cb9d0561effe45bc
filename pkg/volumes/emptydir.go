package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cgroups"
)

// emptyDir is a folder that lives as long as its pod (behaviour row 1.12-3):
// on the root's disk, or in memory as a tmpfs of its own.
//
// A file named ready, beside the pod's volumes, says that the folder has been
// set up once: its owner and mode are the containers' from then on.
type emptyDir struct {
	pods   string // where the pods' folders are
	memory int64  // bytes; 0 for no bound
}

const emptyDirName = "kubernetes.io~empty-dir"

// The paths are relative to the pods' folder.
func emptyDirPath(uid types.UID, name string) string {
	return filepath.Join(string(uid), "volumes", emptyDirName, name)
}

func readyPath(uid types.UID, name string) string {
	return filepath.Join(string(uid), "plugins", emptyDirName, name, "ready")
}

// Mount makes the folder.
func (e *emptyDir) Mount(ctx context.Context, p *v1.Pod, vol *v1.Volume) (string, error) {
	var medium v1.StorageMedium
	if vol.EmptyDir != nil {
		medium = vol.EmptyDir.Medium
	}
	inMemory := medium == v1.StorageMediumMemory
	if !inMemory && medium != v1.StorageMediumDefault {
		if strings.HasPrefix(string(medium), string(v1.StorageMediumHugePages)) {
			return "", fmt.Errorf("medium %q: huge pages are not built yet; there are \"\" (disk) and Memory", medium)
		}
		return "", fmt.Errorf("medium %q: want \"\" (disk) or Memory", medium)
	}
	root, err := os.OpenRoot(e.pods)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }() // opened to read: nothing to lose
	dir := emptyDirPath(p.UID, vol.Name)
	path := filepath.Join(e.pods, dir)
	mounted := false
	if inMemory {
		if mounted, err = isMounted(path); err != nil {
			return "", err
		}
	}
	if ready(root, dir, readyPath(p.UID, vol.Name)) && mounted == inMemory {
		return path, nil
	}
	if err := root.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	if inMemory && !mounted {
		if err := mountTmpfs(root, dir, e.size(p, vol)); err != nil {
			return "", err
		}
	}
	if err := setOwner(root, dir, inMemory, p.Spec.SecurityContext); err != nil {
		return "", err
	}
	return path, setReady(root, readyPath(p.UID, vol.Name))
}

// ready says whether the volume was set up before and is still there.
func ready(root *os.Root, dir, marker string) bool {
	d, err := root.Lstat(dir)
	if err != nil || !d.IsDir() {
		return false
	}
	m, err := root.Lstat(marker)
	return err == nil && m.Mode().IsRegular()
}

func setReady(root *os.Root, marker string) error {
	if err := root.MkdirAll(filepath.Dir(marker), 0o750); err != nil {
		return err
	}
	return root.WriteFile(marker, nil, 0o640)
}

// size of the tmpfs in bytes: the least of what the volume, the pod and the
// node allow; 0 for no bound.
func (e *emptyDir) size(p *v1.Pod, vol *v1.Volume) int64 {
	size := e.memory
	limits := []int64{cgroups.ResourceConfig(p, false, time.Second).Memory}
	if limit := vol.EmptyDir.SizeLimit; limit != nil {
		limits = append(limits, limit.Value())
	}
	for _, limit := range limits {
		if limit > 0 && (size == 0 || limit < size) {
			size = limit
		}
	}
	return size
}

func mountTmpfs(root *os.Root, dir string, size int64) error {
	f, err := openDir(root, dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	options := ""
	if size > 0 {
		options = fmt.Sprintf("size=%d,", size)
	}
	// By descriptor: what was checked is what gets mounted upon.
	target := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	err = unix.Mount("tmpfs", target, "tmpfs", 0, options+"noswap")
	if errors.Is(err, unix.EINVAL) { // before Linux 6.4
		err = unix.Mount("tmpfs", target, "tmpfs", 0, strings.TrimSuffix(options, ","))
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs at %s: %w", f.Name(), err)
	}
	return nil
}

// setOwner lets everybody write, and gives the folder to the pod's fsGroup with
// all that is made in it (behaviour row 1.12-23). A tmpfs keeps its own mode,
// 01777.
func setOwner(root *os.Root, dir string, inMemory bool, sc *v1.PodSecurityContext) error {
	f, err := openDir(root, dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	mode := fs.FileMode(0o777)
	if inMemory {
		mode |= fs.ModeSticky
	}
	if sc != nil && sc.FSGroup != nil {
		if err := f.Chown(-1, int(*sc.FSGroup)); err != nil {
			return fmt.Errorf("give volume to fsGroup: %w", err)
		}
		mode |= fs.ModeSetgid
	}
	return f.Chmod(mode)
}

func openDir(root *os.Root, dir string) (*os.File, error) {
	return root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// Unmount deletes the folder with its content.
func (e *emptyDir) Unmount(ctx context.Context, uid types.UID, name string) error {
	dir := emptyDirPath(uid, name)
	path := filepath.Join(e.pods, dir)
	if err := unmountTmpfs(path); err != nil {
		return err
	}
	if err := refuseMounts(path); err != nil {
		return err
	}
	// First, so that a folder whose deletion is cut short is never taken for
	// one in use.
	if err := removeTree(ctx, e.pods, filepath.Dir(readyPath(uid, name)), everything); err != nil {
		return err
	}
	return removeTree(ctx, e.pods, dir, everything)
}

// unmountTmpfs unmounts what Mount mounted, as often as it did. It fails if
// anything else is mounted in the folder or uses it.
func unmountTmpfs(path string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		return fmt.Errorf("read the mount table: %w", err)
	}
	for _, m := range mounts {
		if m.Mountpoint != path || m.FSType != "tmpfs" || m.Root != "/" {
			return refuseMounts(path)
		}
	}
	for range mounts {
		if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w; nothing is deleted", path, err)
		}
	}
	return nil
}

// Names of the pod's emptyDirs that have a folder.
func (e *emptyDir) Names(uid types.UID) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(e.pods, filepath.Dir(emptyDirPath(uid, "x"))))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, nil
}

func isMounted(path string) (bool, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	if err != nil {
		return false, fmt.Errorf("read the mount table: %w", err)
	}
	return len(mounts) > 0, nil
}
