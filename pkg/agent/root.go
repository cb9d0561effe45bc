package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// prepareRoot makes the root folder and says where it really is (behaviour
// row 1.24-4).
func prepareRoot(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("root folder: %w", err)
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("root folder: %w", err)
	}
	if root, err = filepath.Abs(root); err != nil {
		return "", fmt.Errorf("root folder: %w", err)
	}
	return root, nil
}

// shareMounts lets mounts made below the root later reach containers that ask
// for them, and theirs the node (behaviour rows 1.12-27, 1.24-4). That needs a
// mount that is shared, as on most machines / is; where it isn't, the root is
// made one, and stays so when the agent ends: containers go on using it.
func shareMounts(root string) error {
	above, err := mountinfo.GetMounts(mountinfo.ParentsFilter(root))
	if err != nil {
		return fmt.Errorf("read the mount table: %w", err)
	}
	var nearest *mountinfo.Info
	for _, m := range above {
		if nearest == nil || len(m.Mountpoint) >= len(nearest.Mountpoint) { // the newest of those at one place
			nearest = m
		}
	}
	switch {
	case nearest == nil:
		return fmt.Errorf("the mount table has nothing above %s", root)
	case strings.Contains(" "+nearest.Optional, " shared:"):
		return nil
	case nearest.Mountpoint != root:
		// With all that is mounted below: a pod of an earlier agent has it open.
		if err := unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind the root folder %s to itself, to share its mounts: %w", root, err)
		}
	}
	if err := unix.Mount("", root, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share the mounts of the root folder %s: %w", root, err)
	}
	return nil
}
