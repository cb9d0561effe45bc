package volumes

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// A folder that shows a payload holds, as the peer's do (behaviour row 1.12-6),
//
//	..2026_11_21_05_12_27.123456789  the files
//	..data -> ..2026_11_21_05_12_27.123456789
//	key -> ..data/key
//
// so that one rename changes all files at once for who opens them.
const (
	dataLink = "..data"
	newLink  = "..data_tmp" // becomes another link by a rename
)

// writer changes what such a folder shows. Every step goes by the descriptor
// of the folder and can't leave it, whatever others put in it.
type writer struct {
	root  *os.Root
	group *int64 // fsGroup
}

// write makes the folder show the files. Who opens one of them sees those from
// before or those from now, also when the writer ends at any instant: the
// links that new files need are there, leading nowhere, before the one rename,
// and those of files that went are taken away after it. What an earlier write
// left is cleared away.
func (w *writer) write(ctx context.Context, files payload) error {
	current, err := w.current()
	if err != nil {
		return err
	}
	if current == "" || !w.shows(current, files) {
		if current, err = w.replace(ctx, files); err != nil {
			return err
		}
	} else if err := w.link(ctx, files); err != nil {
		return err
	}
	return w.sweep(ctx, current, files)
}

// replace shows the files in place of what was shown. If it fails it leaves
// nothing: tries that go on for days must not fill the disk.
func (w *writer) replace(ctx context.Context, files payload) (next string, err error) {
	next = fmt.Sprintf("%s.%09d", time.Now().UTC().Format("..2006_01_02_15_04_05"), rand.IntN(1e9))
	if err = w.fill(next, files); err == nil {
		err = w.link(ctx, files)
	}
	if err == nil {
		err = w.point(ctx, dataLink, next)
	}
	if err != nil {
		return "", errors.Join(err, w.discard(ctx, func(e fs.DirEntry) bool { return e.Name() == next }))
	}
	return next, nil
}

// current is the folder that is shown, "" for none.
func (w *writer) current() (string, error) {
	name, err := w.root.Readlink(dataLink)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read link of the data: %w", err)
	}
	if !strings.HasPrefix(name, "..") || strings.Contains(name, "/") {
		return "", nil // not ours: a write puts another in its place
	}
	return name, nil
}

// shows says whether the folder holds just these files, as they are to be.
func (w *writer) shows(dir string, files payload) bool {
	folders := folders(files)
	found := 0
	err := fs.WalkDir(w.root.FS(), dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(name, dir), "/")
		want, isFile := files[rel]
		ok := info.Mode() == w.mode(want.mode) && info.Size() == int64(len(want.data)) && w.owned(info, want)
		if !isFile {
			ok = d.IsDir() && folders[rel]
		}
		if ok && isFile {
			found++
			var data []byte
			data, err = w.root.ReadFile(name)
			ok = bytes.Equal(data, want.data)
		}
		if err == nil && !ok {
			err = errDiffers
		}
		return err
	})
	return err == nil && found == len(files)
}

var errDiffers = errors.New("the folder shows something else")

// folders are those that the files are in, "" being the volume's own.
func folders(files payload) map[string]bool {
	out := map[string]bool{"": true}
	for name := range files {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			out[dir] = true
		}
	}
	return out
}

// fill makes a folder with the files.
func (w *writer) fill(dir string, files payload) error {
	for _, sub := range slices.Sorted(maps.Keys(folders(files))) {
		if err := w.makeFolder(path.Join(dir, sub)); err != nil {
			return fmt.Errorf("make folder of data: %w", err)
		}
	}
	for name, f := range files {
		if err := w.makeFile(path.Join(dir, name), f); err != nil {
			return fmt.Errorf("write file %s: %w", name, err)
		}
	}
	return nil
}

func (w *writer) makeFolder(name string) error {
	mode := fs.FileMode(0o755)
	if err := w.root.Mkdir(name, mode); err != nil {
		return err
	}
	if w.group != nil {
		if err := w.root.Lchown(name, -1, int(*w.group)); err != nil {
			return err
		}
		mode |= fs.ModeSetgid
	}
	return w.root.Chmod(name, mode) // whatever the umask
}

func (w *writer) makeFile(name string, content file) error {
	f, err := w.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if w.group != nil || content.owner != nil {
		err = f.Chown(int(ptr.Deref(content.owner, -1)), int(ptr.Deref(w.group, -1)))
	}
	if err == nil {
		err = f.Chmod(w.mode(content.mode))
	}
	if err == nil {
		_, err = f.Write(content.data)
	}
	return errors.Join(err, f.Close())
}

// mode of a file: the pod's fsGroup can read it (behaviour row 1.12-23).
func (w *writer) mode(mode fs.FileMode) fs.FileMode {
	if w.group != nil {
		mode |= 0o440
	}
	return mode
}

func (w *writer) owned(info fs.FileInfo, want file) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || (w.group == nil || int64(st.Gid) == *w.group) && (want.owner == nil || int64(st.Uid) == *want.owner)
}

// link makes the links that people open, one for each first element of a path.
// A folder in the place of one is where another volume is mounted: it stays.
func (w *writer) link(ctx context.Context, files payload) error {
	for name := range tops(files) {
		target := path.Join(dataLink, name)
		if have, err := w.root.Readlink(name); err == nil && have == target {
			continue
		}
		if info, err := w.root.Lstat(name); err == nil && info.IsDir() {
			continue
		}
		if err := w.point(ctx, name, target); err != nil {
			return err
		}
	}
	return nil
}

func tops(files payload) map[string]bool {
	out := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		out[top] = true
	}
	return out
}

// point makes name a link to target, in one step.
func (w *writer) point(ctx context.Context, name, target string) error {
	err := w.root.Symlink(target, newLink)
	if errors.Is(err, fs.ErrExist) { // left by a write that was cut short
		if err := w.discard(ctx, func(e fs.DirEntry) bool { return e.Name() == newLink }); err != nil {
			return err
		}
		err = w.root.Symlink(target, newLink)
	}
	if err != nil {
		return fmt.Errorf("make link %s: %w", name, err)
	}
	if err := w.root.Rename(newLink, name); err != nil {
		return fmt.Errorf("make link %s: %w", name, err)
	}
	return nil
}

// sweep removes what is shown no more, and what writes that were cut short
// left. What it doesn't know it leaves alone.
func (w *writer) sweep(ctx context.Context, current string, files payload) error {
	tops := tops(files)
	return w.discard(ctx, func(e fs.DirEntry) bool {
		switch name := e.Name(); {
		case name == dataLink || name == current:
			return false
		case strings.HasPrefix(name, ".."):
			return true
		case e.Type()&fs.ModeSymlink != 0 && !tops[name]:
			target, err := w.root.Readlink(name)
			return err == nil && target == path.Join(dataLink, name)
		}
		return false
	})
}

// discard deletes what is chosen in the folder, with all below it.
func (w *writer) discard(ctx context.Context, chosen func(fs.DirEntry) bool) error {
	d, err := w.root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // opened to read: nothing to lose
	entries, err := d.ReadDir(-1)
	for _, e := range entries {
		if err == nil && chosen(e) {
			err = (&walk{ctx: ctx, policy: everything}).remove(d, e.Name(), 0)
		}
	}
	if err != nil {
		return fmt.Errorf("remove what is not shown any more: %w", err)
	}
	return nil
}

// nested are the folders that other volumes are mounted on inside this one, in
// some container: those whose nearest mount above is this volume's. What is below
// such a folder is the other volume's business. The volume is read-only there:
// they must exist.
func nested(p *v1.Pod, volume string) []string {
	var out []string
	for c := range pod.Containers(p) {
		ours := map[string]bool{} // by mount path
		for _, m := range c.VolumeMounts {
			at := filepath.Clean("/" + m.MountPath)
			ours[at] = ours[at] || m.Name == volume
		}
		for at := range ours {
			for up := at; up != "/"; {
				up = cmp.Or(up[:strings.LastIndexByte(up, '/')], "/")
				here, mounted := ours[up]
				if here {
					out = append(out, strings.TrimPrefix(at[len(up):], "/"))
				}
				if mounted {
					break
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
