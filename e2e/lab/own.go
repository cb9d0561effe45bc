package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ownPaths makes a mount namespace in which the paths, folders that programs
// know by one name only, are empty ones of the node: dir/PATH. It returns the
// file that holds the namespace. Nothing is written to the machine's own, not
// even where a path was not there before.
func ownPaths(dir string, paths []string) (string, error) {
	holder := filepath.Join(dir, "namespace")
	file := filepath.Join(holder, "mnt")
	var script strings.Builder
	for i, path := range paths {
		// Over the parent, so that the path can be made in it.
		layer := filepath.Join(dir, fmt.Sprintf("layer%d", i))
		for _, d := range []string{layer + "/upper", layer + "/work", filepath.Join(dir, path)} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return "", err
			}
		}
		fmt.Fprintf(&script, "mount -t overlay overlay -o lowerdir=%[1]s,upperdir=%[2]s/upper,workdir=%[2]s/work %[1]s && mkdir -p %[3]s && mount --bind %[4]s %[3]s || exit 1\n",
			filepath.Dir(path), layer, path, filepath.Join(dir, path))
	}
	// A namespace can be held only where mounts are not passed on.
	err := errors.Join(os.MkdirAll(holder, 0o755), unix.Mount(holder, holder, "", unix.MS_BIND, ""),
		unix.Mount("", holder, "", unix.MS_PRIVATE, ""), os.WriteFile(file, nil, 0o600))
	if err != nil {
		return "", fmt.Errorf("own folders %v: %w", paths, err)
	}
	if out, err := exec.Command("unshare", "--mount="+file, "sh", "-c", script.String()).CombinedOutput(); err != nil {
		return "", fmt.Errorf("own folders %v: %w: %s", paths, err, out)
	}
	return file, nil
}
