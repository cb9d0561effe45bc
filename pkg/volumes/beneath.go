package volumes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// noLinks is how a path that a pod may have a hand in is resolved: nothing on
// the way is a link, and nothing is outside the folder that it begins in.
const noLinks = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// beneath opens a path below parent, resolved by the kernel in one step.
func beneath(parent *os.File, name string, flags, resolve uint64) (*os.File, error) {
	path := filepath.Join(parent.Name(), name)
	for try := 1; ; try++ {
		fd, err := unix.Openat2(int(parent.Fd()), name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve})
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN) && try < 100: // something was renamed meanwhile
			continue
		case errors.Is(err, unix.ENOSYS):
			return nil, fmt.Errorf("%s: %w: this needs openat2, in Linux since 5.6", path, err)
		case err != nil:
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// makeBeneath makes the folder at path, below base, and those above it that are
// missing, and opens it.
func makeBeneath(base, path string) (*os.File, error) {
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // opened to read: nothing to lose
	if err := root.MkdirAll(path, 0o750); err != nil {
		return nil, err
	}
	return openBeneath(base, path)
}

// openBeneath opens the folder at path, below base; what is mounted there is
// entered.
func openBeneath(base, path string) (*os.File, error) {
	parent, err := os.Open(base)
	if err != nil {
		return nil, err
	}
	defer func() { _ = parent.Close() }()
	return beneath(parent, path, dirFlags, noLinks)
}

// isMounted says whether something is mounted at path, below base. It asks the
// kernel where a path crosses to, which tells of binds too: to read the table of
// all mounts takes milliseconds on a node with many pods. It never asks the
// mounted file system itself, which may be dead.
func isMounted(base, path string) (bool, error) {
	parent, err := openBeneath(base, filepath.Dir(path))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = parent.Close() }()
	f, err := beneath(parent, filepath.Base(path), unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV)
	switch {
	case errors.Is(err, unix.EXDEV):
		return true, nil
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, err
	}
	return false, f.Close()
}

// byDescriptor is a path that means the opened file itself, whatever stands
// meanwhile where it was found.
func byDescriptor(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
