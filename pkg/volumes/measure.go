package volumes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Usage is what a volume takes of its file system, in bytes and inodes, and how
// the file system is.
type Usage struct {
	At                                      time.Time
	Used, InodesUsed                        uint64
	Capacity, Available, Inodes, InodesFree uint64
}

// measured is a kind that can say what a volume of it takes.
type measured interface {
	Measure(ctx context.Context, uid types.UID, name string) (Usage, error)
}

// ErrNotMeasured is said of kinds whose volumes nobody counts, such as hostPath.
var ErrNotMeasured = errors.New("volumes of this kind are not measured")

// Measure counts what a mounted volume takes. A volume with a file system of its
// own is asked for it; any other is walked through, which takes time and gives
// way to other work. With the error of a walk that was given up comes what it had
// counted until then.
func (v *Volumes) Measure(ctx context.Context, p *v1.Pod, vol *v1.Volume) (Usage, error) {
	m, ok := v.kinds[source(vol)].(measured)
	if !ok || !pod.UsedVolumes(p)[vol.Name] {
		return Usage{}, ErrNotMeasured
	}
	err := errors.Join(pod.CheckUID(p.UID), checkName(vol.Name))
	var u Usage
	if err == nil {
		u, err = m.Measure(ctx, p.UID, vol.Name)
	}
	if err != nil {
		return u, fmt.Errorf("measure volume %q of pod %s/%s: %w", vol.Name, p.Namespace, p.Name, err)
	}
	return u, nil
}

// Measure implements measured.
func (e *emptyDir) Measure(ctx context.Context, uid types.UID, name string) (Usage, error) {
	return measure(ctx, e.pods, volumePath(uid, emptyDirName, name))
}

// Measure implements measured.
func (s *shown) Measure(ctx context.Context, uid types.UID, name string) (Usage, error) {
	return measure(ctx, s.pods, volumePath(uid, s.folder, name))
}

// measure the folder at path, below base.
func measure(ctx context.Context, base, path string) (Usage, error) {
	own, err := isMounted(base, path)
	if err != nil {
		return Usage{}, err
	}
	f, err := openBeneath(base, path)
	if err != nil {
		return Usage{}, err
	}
	defer func() { _ = f.Close() }() // opened to read: nothing to lose
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return Usage{}, &os.PathError{Op: "statfs", Path: f.Name(), Err: err}
	}
	block := uint64(fs.Bsize)
	u := Usage{At: time.Now(), Capacity: fs.Blocks * block, Available: fs.Bavail * block, Inodes: fs.Files, InodesFree: fs.Ffree}
	if own {
		u.Used, u.InodesUsed = (fs.Blocks-fs.Bfree)*block, fs.Files-fs.Ffree
		return u, nil
	}
	c := counter{ctx: ctx, seen: map[uint64]bool{}, rested: time.Now()}
	err = c.count(f, 0)
	u.Used, u.InodesUsed = c.bytes, c.inodes
	return u, err
}

const (
	// A walk works for a while and then pauses, so that it takes a fifth of a
	// core at most.
	work, pause = 5 * time.Millisecond, 20 * time.Millisecond
	// deepest bounds the folders that a walk has open at a time. The pod says
	// how deep they are.
	deepest = 256
	// linked bounds what a walk remembers of files with several names, to count
	// them once.
	linked = 1 << 17
)

// counter walks through a folder that others write to meanwhile. It enters
// folders as the walk that deletes does (see remove.go): no link is followed, no
// other file system entered.
type counter struct {
	ctx           context.Context
	bytes, inodes uint64
	seen          map[uint64]bool
	rested        time.Time
}

func (c *counter) count(dir *os.File, depth int) error {
	if depth > deepest {
		return fmt.Errorf("%s: deeper than %d folders: not counted any further", dir.Name(), deepest)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir.Name(), Err: err}
	}
	c.add(&st)
	for {
		if err := c.rest(); err != nil {
			return err
		}
		entries, err := dir.ReadDir(128)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := c.entry(dir, e, depth); err != nil {
				return err
			}
		}
	}
}

func (c *counter) entry(dir *os.File, e os.DirEntry, depth int) error {
	if e.IsDir() {
		sub, err := beneath(dir, e.Name(), dirFlags, resolve)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
			return nil // gone, another file system, or something else by now
		case err != nil:
			return err
		}
		defer func() { _ = sub.Close() }()
		return c.count(sub, depth+1)
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return &os.PathError{Op: "stat", Path: filepath.Join(dir.Name(), e.Name()), Err: err}
	}
	if st.Nlink > 1 {
		if c.seen[st.Ino] {
			return nil
		}
		if len(c.seen) < linked {
			c.seen[st.Ino] = true
		}
	}
	c.add(&st)
	return nil
}

func (c *counter) add(st *unix.Stat_t) {
	c.bytes += uint64(st.Blocks) * 512
	c.inodes++
}

// rest lets others work, every now and then.
func (c *counter) rest() error {
	if err := c.ctx.Err(); err != nil || time.Since(c.rested) < work {
		return err
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-c.ctx.Done():
		return c.ctx.Err()
	case <-t.C:
		c.rested = time.Now()
		return nil
	}
}
