package volumes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// policy is what the walk may delete.
type policy int

const (
	// keepData deletes folders, links and empty files: what is left of mount
	// points. Content is not ours to judge.
	keepData policy = iota
	everything
)

const (
	dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	// Not even a bind mount of the same file system is entered, nor a link,
	// nor anything outside the folder that the walk is in.
	resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	// maxDepth bounds the open folders; the walk moves what lies deeper up.
	maxDepth = 64
	batch    = 512
)

// walk deletes a tree. This is the only place that deletes what others wrote.
//
// It holds a descriptor of each folder on its way and names only single
// elements below them, so that whatever happens to the tree meanwhile (links
// put in the place of folders, folders moved, file systems mounted) it deletes
// in folders that it entered by the rules above, or not at all.
type walk struct {
	ctx    context.Context
	policy policy
	top    *os.File // the tree's own folder
	moved  int
}

// removeTree deletes path, below base; one that is gone is no error. It fails
// at the first thing that it may not or can't delete.
func removeTree(ctx context.Context, base, path string, p policy) error {
	root, err := os.Open(base)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // opened to read: nothing to lose
	parent, err := enter(root, filepath.Dir(path))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	w := &walk{ctx: ctx, policy: p}
	return w.remove(parent, filepath.Base(path), 0)
}

// enter opens a folder below parent by the rules of the walk.
func enter(parent *os.File, name string) (*os.File, error) {
	f, err := beneath(parent, name, dirFlags, resolve)
	if errors.Is(err, unix.EXDEV) {
		return nil, fmt.Errorf("%w: something is mounted there; nothing is deleted below it", err)
	}
	return f, err
}

func (w *walk) remove(parent *os.File, name string, depth int) error {
	dir, err := enter(parent, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP): // a file or a link
		return w.unlink(parent, name)
	case err != nil:
		return err
	}
	defer func() { _ = dir.Close() }()
	if depth == 0 {
		w.top = dir
	}
	if err := w.clear(dir, depth); err != nil {
		return err
	}
	return unlinkat(parent, name, unix.AT_REMOVEDIR)
}

// clear empties the folder. It reads it again after each batch, because what
// others add or the walk itself moves up is to go as well.
func (w *walk) clear(dir *os.File, depth int) error {
	for {
		if err := w.ctx.Err(); err != nil {
			return fmt.Errorf("delete %s: %w", dir.Name(), err)
		}
		names, err := dir.Readdirnames(batch)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if depth < maxDepth {
				err = w.remove(dir, name, depth+1)
			} else {
				err = w.lift(dir, name)
			}
			if err != nil {
				return err
			}
		}
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

// lift moves what lies too deep to the top of the tree, where the walk finds
// it again.
func (w *walk) lift(dir *os.File, name string) error {
	if w.policy == keepData {
		return fmt.Errorf("%s: too deep for a folder of mount points; nothing is deleted below it", filepath.Join(dir.Name(), name))
	}
	for {
		w.moved++
		err := unix.Renameat2(int(dir.Fd()), name, int(w.top.Fd()), ".deleting-"+strconv.Itoa(w.moved), unix.RENAME_NOREPLACE)
		switch {
		case errors.Is(err, unix.EEXIST):
			continue
		case errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return &os.PathError{Op: "move up", Path: filepath.Join(dir.Name(), name), Err: err}
		}
		return nil
	}
}

func (w *walk) unlink(parent *os.File, name string) error {
	if w.policy == keepData {
		var st unix.Stat_t
		err := unix.Fstatat(int(parent.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		path := filepath.Join(parent.Name(), name)
		if err != nil {
			return &os.PathError{Op: "stat", Path: path, Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0 {
			return fmt.Errorf("%s holds data of a volume; it is not deleted", path)
		}
	}
	return unlinkat(parent, name, 0)
}

func unlinkat(parent *os.File, name string, flags int) error {
	err := unix.Unlinkat(int(parent.Fd()), name, flags)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "delete", Path: filepath.Join(parent.Name(), name), Err: err}
	}
	return nil
}
