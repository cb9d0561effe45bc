package logs

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// watch tells of news in a log folder, and when the writer of a file has
// closed it. It uses inotify itself: the fsnotify library does not tell of the
// latter, and only that says that a rotated file is complete.
type watch struct {
	// news has an element when something has happened.
	news    chan struct{}
	inotify *os.File
	done    chan struct{}

	mu   sync.Mutex
	now  int32 // the file's watch descriptor
	shut bool  // its writer has closed it
}

// newWatch watches a folder for files that come.
func newWatch(dir *os.File) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch log folder: %w", err)
	}
	w := &watch{news: make(chan struct{}, 1), inotify: os.NewFile(uintptr(fd), "inotify"), done: make(chan struct{}), now: -1}
	if _, err := w.add(dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		w.inotify.Close()
		return nil, err
	}
	go w.read()
	return w, nil
}

// add watches an open file, by the kernel's link to it: its path may lead
// elsewhere by now.
func (w *watch) add(f *os.File, mask uint32) (wd int, err error) {
	raw, err := w.inotify.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("watch %s: %w", f.Name(), err)
	}
	controlErr := raw.Control(func(fd uintptr) {
		wd, err = unix.InotifyAddWatch(int(fd), fmt.Sprintf("/proc/self/fd/%d", f.Fd()), mask)
	})
	if controlErr != nil {
		err = controlErr
	}
	if err != nil {
		return 0, fmt.Errorf("watch %s: %w", f.Name(), err)
	}
	return wd, nil
}

// file watches this file instead of the one before.
func (w *watch) file(f *os.File) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	wd, err := w.add(f, unix.IN_MODIFY|unix.IN_CLOSE_WRITE)
	if err != nil {
		return err
	}
	if w.now >= 0 && w.now != int32(wd) {
		w.drop(w.now)
	}
	w.now, w.shut = int32(wd), false
	return nil
}

// drop watches a file no longer; the kernel may have dropped it with the file.
func (w *watch) drop(wd int32) {
	if raw, err := w.inotify.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) })
	}
}

// closed says that the file's writer has closed it and wrote nothing since.
func (w *watch) closed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shut
}

// read notes events until the watch is closed.
func (w *watch) read() {
	defer close(w.done)
	buf := make([]byte, 4096)
	for {
		n, err := w.inotify.Read(buf)
		if err != nil {
			return // closed
		}
		for data := buf[:n]; len(data) >= unix.SizeofInotifyEvent; {
			wd, mask := int32(binary.NativeEndian.Uint32(data)), binary.NativeEndian.Uint32(data[4:])
			w.note(wd, mask)
			data = data[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(data[12:]):]
		}
		select {
		case w.news <- struct{}{}:
		default:
		}
	}
}

func (w *watch) note(wd int32, mask uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if wd == w.now {
		w.shut = mask&unix.IN_CLOSE_WRITE != 0
	}
}

func (w *watch) close() {
	w.inotify.Close()
	<-w.done
}
