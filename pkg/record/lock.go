package record

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another agent holds the root.
var ErrLocked = errors.New("another agent holds the lock")

// Lock takes the lock of the agent's root, <root>/nodeagent/lock, and returns
// at once: with ErrLocked when another process has it. The kernel gives the
// lock back when the process ends, in whatever way; release does so earlier.
func Lock(root string) (release func(), err error) {
	dir := filepath.Join(root, "nodeagent")
	// The root itself is for others to look into (behaviour row 1.24-4).
	if err := errors.Join(os.MkdirAll(root, 0o750), os.MkdirAll(dir, 0o700)); err != nil {
		return nil, fmt.Errorf("lock %s: %w", root, err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", root, err)
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		err := fmt.Errorf("lock %s: %w: %s has %s; stop it, or choose another --root-dir", root, ErrLocked, holder(f), path)
		return nil, errors.Join(err, f.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock %s: flock %s: %w", root, path, err), f.Close())
	}
	if err := sign(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", root, err), f.Close())
	}
	// Closing gives the lock back. The file stays: were it removed, a third
	// agent could lock a new one while a second still waits at the old one.
	return sync.OnceFunc(func() { _ = f.Close() }), nil
}

func sign(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// holder tells people who has the lock. The number may be missing for the
// moment between taking the lock and signing it.
func holder(f *os.File) string {
	content, err := io.ReadAll(io.LimitReader(f, 32))
	if pid := strings.TrimSpace(string(content)); err == nil && pid != "" {
		return "pid " + pid
	}
	return "a process"
}
