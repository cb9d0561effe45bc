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

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cgroups"
)

// emptyDir is a folder that lives as long as its pod (behaviour row 1.12-3):
// on the root's disk, or in memory or huge pages as a file system of its own.
//
// A file named ready, beside the pod's volumes, says that the folder has been
// set up once: its owner and mode are the containers' from then on.
type emptyDir struct {
	pods   string // where the pods' folders are
	memory int64  // bytes; 0 for no bound
}

const emptyDirName = "kubernetes.io~empty-dir"

// readyPath is relative to the pods' folder.
func readyPath(uid types.UID, name string) string {
	return filepath.Join(string(uid), "plugins", emptyDirName, name, "ready")
}

// Folder implements kind.
func (e *emptyDir) Folder() string { return emptyDirName }

// Mount makes the folder.
func (e *emptyDir) Mount(_ context.Context, p *v1.Pod, vol *v1.Volume) (standing, error) {
	mount, err := e.medium(p, vol)
	if err != nil {
		return standing{}, err
	}
	root, err := os.OpenRoot(e.pods)
	if err != nil {
		return standing{}, err
	}
	defer func() { _ = root.Close() }() // opened to read: nothing to lose
	dir, marker := volumePath(p.UID, emptyDirName, vol.Name), readyPath(p.UID, vol.Name)
	path := filepath.Join(e.pods, dir)
	mounted, err := isMounted(e.pods, dir)
	if err != nil {
		return standing{}, err
	}
	if ready(root, dir, marker) && mounted == (mount != nil) {
		return standing{path: path}, nil
	}
	f, err := makeBeneath(e.pods, dir)
	if err != nil {
		return standing{}, err
	}
	defer func() { _ = f.Close() }()
	if mount != nil && !mounted {
		if err := mount(f); err != nil {
			return standing{}, err
		}
	}
	top, err := openBeneath(e.pods, dir) // what is mounted there by now
	if err != nil {
		return standing{}, err
	}
	defer func() { _ = top.Close() }()
	if err := setOwner(top, mount != nil, p.Spec.SecurityContext); err != nil {
		return standing{}, err
	}
	return standing{path: path}, setReady(root, marker)
}

// medium is how the volume's file system is mounted, nil for one on disk.
func (e *emptyDir) medium(p *v1.Pod, vol *v1.Volume) (func(*os.File) error, error) {
	var from v1.EmptyDirVolumeSource
	if vol.EmptyDir != nil {
		from = *vol.EmptyDir
	}
	switch {
	case from.Medium == v1.StorageMediumDefault:
		return nil, nil
	case from.Medium == v1.StorageMediumMemory:
		return func(f *os.File) error { return mountTmpfs(f, e.size(p, from.SizeLimit)) }, nil
	case strings.HasPrefix(string(from.Medium), string(v1.StorageMediumHugePages)):
		page, err := pageSize(p, from.Medium)
		if err != nil {
			return nil, fmt.Errorf("medium %q: %w", from.Medium, err)
		}
		return func(f *os.File) error { return mountHugePages(f, page, from.SizeLimit) }, nil
	}
	return nil, fmt.Errorf("medium %q: want \"\" (disk), Memory, HugePages or HugePages-<size>", from.Medium)
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

// size of a tmpfs in bytes: the least of what the volume, the pod and the node
// allow; 0 for no bound.
func (e *emptyDir) size(p *v1.Pod, limit *resource.Quantity) int64 {
	size := e.memory
	limits := []int64{cgroups.ResourceConfig(p, false, time.Second).Memory}
	if limit != nil {
		limits = append(limits, limit.Value())
	}
	for _, limit := range limits {
		if limit > 0 && (size == 0 || limit < size) {
			size = limit
		}
	}
	return size
}

// mountTmpfs mounts a file system in memory upon the opened folder: what was
// checked is what gets mounted upon.
func mountTmpfs(f *os.File, size int64) error {
	options := ""
	if size > 0 {
		options = fmt.Sprintf("size=%d,", size)
	}
	err := unix.Mount("tmpfs", byDescriptor(f), "tmpfs", 0, options+"noswap")
	if errors.Is(err, unix.EINVAL) { // before Linux 6.4
		err = unix.Mount("tmpfs", byDescriptor(f), "tmpfs", 0, strings.TrimSuffix(options, ","))
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs at %s: %w", f.Name(), err)
	}
	return nil
}

// setOwner lets everybody write, and gives the folder to the pod's fsGroup with
// all that is made in it (behaviour row 1.12-23). A file system of its own keeps
// its own mode, 01777.
func setOwner(f *os.File, own bool, sc *v1.PodSecurityContext) error {
	mode := fs.FileMode(0o777)
	if own {
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

// Remove implements kind. The mark goes first, so that a folder whose deletion
// is cut short is never taken for one in use.
func (e *emptyDir) Remove(ctx context.Context, uid types.UID, name string) error {
	if err := removeTree(ctx, e.pods, filepath.Dir(readyPath(uid, name)), everything); err != nil {
		return err
	}
	return removeTree(ctx, e.pods, volumePath(uid, emptyDirName, name), everything)
}
