package volumes

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// table is the mount table from a folder downwards. It is read once for all
// volumes of a pod, and again after each unmount: to trust it, not our memory.
type table struct {
	dir    string
	mounts []*mountinfo.Info
}

func readMounts(dir string) (*table, error) {
	t := &table{dir: dir}
	return t, t.read()
}

func (t *table) read() (err error) {
	if t.mounts, err = mountinfo.GetMounts(mountinfo.PrefixFilter(t.dir)); err != nil {
		return fmt.Errorf("read the mount table: %w", err)
	}
	return nil
}

// below are the mounts at the path and below it, oldest first.
func (t *table) below(path string) []*mountinfo.Info {
	var out []*mountinfo.Info
	for _, m := range t.mounts {
		if m.Mountpoint == path || strings.HasPrefix(m.Mountpoint, path+"/") {
			out = append(out, m)
		}
	}
	return out
}

// refuse fails if the folder is a mount point or has one below it.
func (t *table) refuse(path string) error {
	mounts := t.below(path)
	if len(mounts) == 0 {
		return nil
	}
	m := mounts[0]
	return fmt.Errorf("%s (%s %s) is mounted there, one of %d: nothing is deleted; find out who mounted it, then umount it", m.Mountpoint, m.FSType, m.Source, len(mounts))
}

// ownTypes are what the kinds mount upon their folders.
var ownTypes = []string{"tmpfs", "hugetlbfs"}

// release unmounts what a kind mounted upon its folder, as often as it did. It
// fails if anything else is mounted in the folder or uses it.
func (t *table) release(path string) error {
	mounts := t.below(path)
	for _, m := range mounts {
		if m.Mountpoint != path || !slices.Contains(ownTypes, m.FSType) || m.Root != "/" {
			return t.refuse(path)
		}
	}
	return t.unmount(mounts)
}

// unmount unmounts them, newest first, and checks that they are gone.
func (t *table) unmount(mounts []*mountinfo.Info) error {
	if len(mounts) == 0 {
		return nil
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w; nothing is deleted", m.Mountpoint, err)
		}
	}
	if err := t.read(); err != nil {
		return err
	}
	for _, m := range mounts {
		if err := t.refuse(m.Mountpoint); err != nil {
			return err
		}
	}
	return nil
}

// elements are the names on the way from the pod's folder to the mount point.
func (t *table) elements(m *mountinfo.Info) []string {
	rel, err := filepath.Rel(t.dir, m.Mountpoint)
	if err != nil {
		return nil
	}
	return strings.Split(rel, "/")
}
