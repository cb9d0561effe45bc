package cgroups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// settle is how long processes have to leave by themselves: after the runtime
// says that a container is gone, its last ones may still be in exit.
const settle = time.Second

// Remove takes the pod's cgroup away, with those below it; one that is gone is
// no error. It looks in every tier, as of a pod whose spec is lost nobody knows
// which was its own. Call it when the runtime shows nothing of the pod any more:
// processes that are left after a second belong to nobody, and are killed. It
// then waits for them to be gone, until ctx ends.
func (t *Tree) Remove(ctx context.Context, uid types.UID) error {
	if !t.opts.PerQoS {
		return nil
	}
	if err := pod.CheckUID(uid); err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	var errs []error
	for _, class := range classes {
		errs = append(errs, t.remove(ctx, uid, Name(t.opts.Root, uid, class, t.opts.Driver)))
	}
	return errors.Join(errs...)
}

func (t *Tree) remove(ctx context.Context, uid types.UID, name string) error {
	dirs := t.existing(name)
	if len(dirs) == 0 && t.opts.Driver != Systemd { // systemd may still know the slice
		return nil
	}
	if err := t.drain(ctx, uid, dirs); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", name, err)
	}
	err := within(ctx, func() error {
		m, err := t.manager(name, t.resources(Values{}))
		if err != nil {
			return err
		}
		return m.Destroy()
	})
	if left := t.existing(name); err == nil && len(left) > 0 {
		err = fmt.Errorf("%s is still there", strings.Join(left, ", "))
	}
	if err != nil {
		return fmt.Errorf("remove cgroup %s: %w", name, err)
	}
	return nil
}

// existing are the cgroup's folders, one in each v1 hierarchy.
func (t *Tree) existing(name string) []string {
	var dirs []string
	for _, mount := range t.facts.mounts {
		dir := filepath.Join(mount, name)
		if _, err := os.Stat(dir); err == nil {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	return dirs
}

func (t *Tree) drain(ctx context.Context, uid types.UID, dirs []string) error {
	switch {
	case len(dirs) == 0:
		return nil
	case t.v2():
		return drainV2(ctx, uid, dirs[0]) // there is no other
	}
	return drainV1(ctx, uid, dirs)
}

// drainV1 looks again and again, at growing distance: v1 tells nobody that a
// cgroup became empty.
func drainV1(ctx context.Context, uid types.UID, dirs []string) error {
	patience := time.After(settle)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		pids, err := processes(dirs)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-patience:
			slog.Warn("killing what is left in the pod's cgroup", "pod", uid, "pids", pids)
			for _, pid := range pids {
				if err := kill(pid, dirs); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return fmt.Errorf("%w while processes %v are in it", ctx.Err(), pids)
		}
	}
}

// drainV2 waits for the event that the kernel sends when the last process of a
// cgroup and of all below it has ended.
func drainV2(ctx context.Context, uid types.UID, dir string) (err error) {
	if full, err := populated(dir); err != nil || !full {
		return err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.Add(filepath.Join(dir, "cgroup.events")); err != nil {
		return err
	}
	patience := time.After(settle)
	for {
		full, err := populated(dir)
		if err != nil || !full {
			return err
		}
		select {
		case <-w.Events:
		case err := <-w.Errors:
			return err
		case <-patience:
			slog.Warn("killing what is left in the pod's cgroup", "pod", uid, "cgroup", dir)
			if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("%w while processes are in %s", ctx.Err(), dir)
		}
	}
}

// populated says whether any process is in a v2 cgroup or below it.
func populated(dir string) (bool, error) {
	content, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	if gone(err) {
		return false, nil
	}
	return strings.Contains(string(content), "populated 1"), err
}

// processes in the cgroups and below them.
func processes(dirs []string) ([]int, error) {
	var all []int
	for _, dir := range dirs {
		pids, err := cgroups.GetAllPids(dir)
		if err != nil && !gone(err) {
			return nil, err
		}
		all = append(all, pids...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// kill ends a process if it still is in one of the cgroups: the number may
// have been given to another one since it was read.
func kill(pid int, dirs []string) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	pids, err := processes(dirs)
	if err != nil {
		return err
	}
	if !slices.Contains(pids, pid) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}

// gone: a file that is open when its cgroup is removed answers ENODEV.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}
