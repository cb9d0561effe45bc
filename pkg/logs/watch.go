package logs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// kernel is what the kernel tells of log folders and files: one inotify instance
// for all who follow, as a machine has few (fs.inotify.max_user_instances). It
// is there from the first follower to the last. It uses inotify itself: the
// fsnotify library does not tell that a file's writer has closed it, and only
// that says that a rotated file is complete.
var kernel inotify

// inotify is an instance that many share.
type inotify struct {
	mu       sync.Mutex
	instance *os.File
	watched  map[int32]*watched // by watch descriptor
}

// watched is a folder or a file that somebody watches.
type watched struct {
	by   map[*watch]bool
	shut bool // its writer has closed it, and wrote nothing since
}

const (
	folderNews = unix.IN_CREATE | unix.IN_MOVED_TO
	fileNews   = unix.IN_MODIFY | unix.IN_CLOSE_WRITE
)

// watch is one follower's: it tells of news in a log folder, and when the writer
// of a file has closed it.
type watch struct {
	// news has an element when something has happened.
	news      chan struct{}
	dir, file int32 // watch descriptors; -1 for none
}

// newWatch watches a folder for files that come.
func newWatch(dir *os.File) (*watch, error) {
	w := &watch{news: make(chan struct{}, 1), dir: -1, file: -1}
	kernel.mu.Lock()
	defer kernel.mu.Unlock()
	if err := kernel.open(); err != nil {
		return nil, err
	}
	wd, err := kernel.add(w, dir, folderNews)
	if err != nil {
		kernel.rest()
		return nil, err
	}
	w.dir = wd
	return w, nil
}

// follow watches this file instead of the one before.
func (w *watch) follow(f *os.File) error {
	kernel.mu.Lock()
	defer kernel.mu.Unlock()
	wd, err := kernel.add(w, f, fileNews)
	if err != nil {
		return err
	}
	if w.file != wd {
		kernel.drop(w, w.file)
	}
	w.file = wd
	return nil
}

// closed says that the file's writer has closed it and wrote nothing since.
func (w *watch) closed() bool {
	kernel.mu.Lock()
	defer kernel.mu.Unlock()
	at := kernel.watched[w.file]
	return at != nil && at.shut
}

func (w *watch) close() {
	kernel.mu.Lock()
	defer kernel.mu.Unlock()
	kernel.drop(w, w.file)
	kernel.drop(w, w.dir)
	kernel.rest()
}

func (w *watch) tell() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// open makes the instance, if there is none.
func (k *inotify) open() error {
	if k.instance != nil {
		return nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch log folders: %w", err)
	}
	k.instance, k.watched = os.NewFile(uintptr(fd), "inotify"), map[int32]*watched{}
	go k.read(k.instance)
	return nil
}

// rest closes the instance when nobody follows any more.
func (k *inotify) rest() {
	if len(k.watched) == 0 {
		k.instance.Close()
		k.instance = nil
	}
}

// add watches an open file, by the kernel's link to it: its path may lead
// elsewhere by now. The kernel has one descriptor for all who watch a file.
func (k *inotify) add(w *watch, f *os.File, mask uint32) (int32, error) {
	var wd int
	err := k.control(func(fd uintptr) (err error) {
		wd, err = unix.InotifyAddWatch(int(fd), fmt.Sprintf("/proc/self/fd/%d", f.Fd()), mask)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("watch %s: %w", f.Name(), err)
	}
	at := k.watched[int32(wd)]
	if at == nil {
		at = &watched{by: map[*watch]bool{}}
		k.watched[int32(wd)] = at
	}
	at.by[w] = true
	return int32(wd), nil
}

// drop watches a file no longer, when w was the last to. The kernel may have
// dropped it with the file.
func (k *inotify) drop(w *watch, wd int32) {
	at := k.watched[wd]
	if at == nil {
		return
	}
	if delete(at.by, w); len(at.by) > 0 {
		return
	}
	delete(k.watched, wd)
	_ = k.control(func(fd uintptr) error {
		_, err := unix.InotifyRmWatch(int(fd), uint32(wd))
		return err
	})
}

func (k *inotify) control(call func(fd uintptr) error) error {
	raw, err := k.instance.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = call(fd) }), err)
}

// read hands on what happens until the instance is closed.
func (k *inotify) read(instance *os.File) {
	buf := make([]byte, 16<<10)
	for {
		n, err := instance.Read(buf)
		if err != nil {
			return // closed
		}
		k.noteAll(instance, buf[:n])
	}
}

func (k *inotify) noteAll(from *os.File, data []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if from != k.instance {
		return // nobody watched any more, and the descriptors are those of another
	}
	for len(data) >= unix.SizeofInotifyEvent {
		k.note(int32(binary.NativeEndian.Uint32(data)), binary.NativeEndian.Uint32(data[4:]))
		data = data[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(data[12:]):]
	}
}

func (k *inotify) note(wd int32, mask uint32) {
	if mask&unix.IN_Q_OVERFLOW != 0 { // what was lost may concern anybody
		for _, at := range k.watched {
			at.shut = false
			at.tell()
		}
		return
	}
	if at := k.watched[wd]; at != nil {
		at.shut = mask&unix.IN_CLOSE_WRITE != 0 || at.shut && mask&unix.IN_IGNORED != 0
		at.tell()
	}
}

func (at *watched) tell() {
	for w := range at.by {
		w.tell()
	}
}
