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
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another agent holds the root.
var ErrLocked = errors.New("another agent holds the lock")

// letGo is how long the lock of a dead agent is waited for. One that is killed
// while it starts a process leaves the lock to that for a moment.
const letGo = time.Second

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
	err = take(f)
	for end := time.Now().Add(letGo); errors.Is(err, unix.EWOULDBLOCK) && holderIsDead(f) && time.Now().Before(end); {
		time.Sleep(letGo / 100)
		err = take(f)
	}
	switch {
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

func take(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

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
	if pid := signer(f); pid != 0 {
		return fmt.Sprintf("pid %d", pid)
	}
	return "a process"
}

// holderIsDead says that who signed the lock lives no more.
func holderIsDead(f *os.File) bool {
	pid := signer(f)
	return pid > 0 && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// signer is the process that signed the lock, 0 if nobody knows.
func signer(f *os.File) int {
	content, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0 // not signed yet
	}
	return pid
}
