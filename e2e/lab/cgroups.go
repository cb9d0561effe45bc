package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// cgroupMounts lists the mount points of all hierarchies, v1 and v2.
func cgroupMounts() ([]string, error) {
	infos, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	var points []string
	for _, m := range infos {
		if !slices.Contains(points, m.Mountpoint) {
			points = append(points, m.Mountpoint)
		}
	}
	return points, nil
}

// cgroupsUnder lists the folders of a cgroup in every hierarchy, parents first.
func cgroupsUnder(cgroup string) ([]string, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, m := range mounts {
		err := filepath.WalkDir(filepath.Join(m, cgroup), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil // removed while we walk
			}
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list cgroups under %s: %w", cgroup, err)
		}
	}
	return dirs, nil
}

// topCgroups lists the topmost cgroups of every hierarchy, without those of
// labs (this one's are looked at by name, others' come and go).
func topCgroups() []string {
	mounts, err := cgroupMounts()
	if err != nil {
		return nil
	}
	var dirs []string
	for _, m := range mounts {
		entries, _ := os.ReadDir(m)
		for _, e := range entries {
			if e.IsDir() && !strings.HasPrefix(e.Name(), cgroupPrefix) {
				dirs = append(dirs, filepath.Join(m, e.Name()))
			}
		}
	}
	return dirs
}

// removeCgroup removes a cgroup and all below it in every hierarchy. Their
// processes must be gone.
func removeCgroup(cgroup string) error {
	if filepath.Clean("/"+cgroup) == "/" {
		return fmt.Errorf("remove cgroup %q: it is the root", cgroup)
	}
	dirs, err := cgroupsUnder(cgroup)
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		if e := unix.Rmdir(d); e != nil && !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, fmt.Errorf("remove cgroup %s: %w", d, e))
		}
	}
	return err
}
