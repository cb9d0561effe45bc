package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settle is how long a file must stay as it is before anything bad that is
	// seen in it is believed, and how long a file that wasn't deleted may be
	// missing: writers that truncate, rename away and write again take less.
	settle = 200 * time.Millisecond
	// writerWait is how often a file is looked at that somebody still writes.
	writerWait = time.Millisecond
)

// folder is what the files at a path give. Only its owner looks at it.
type folder struct {
	place
	path  string
	files map[string]*entry
	// noticed is when the first of the changes that a scan is about was noticed,
	// zero if it is about none.
	noticed time.Time
	// broken is why the path as a whole can't be listed, nil when it can.
	broken error
}

// entry is one file.
type entry struct {
	contents
	key  fileKey
	text [sha256.Size]byte // sum of what contents were decoded from
	// doubt is since when the file has been as it is, while it can't be taken so:
	// it is being written, or can't be used. Zero when all is well or told.
	doubt time.Time
	// missing is since when the file isn't there, though nothing deleted it.
	missing time.Time
}

// fileKey tells whether a file may have changed since it was read.
type fileKey struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// scan looks at all files, reading those that changed or are touched; touched
// is true for a file that was deleted. It says whether pods, objects or problems changed,
// and when to look again though nothing happens (zero: no need).
func (f *folder) scan(touched map[string]bool, now time.Time) (changed bool, again time.Time) {
	names, err := list(f.path)
	if (err == nil) != (f.broken == nil) || err != nil && err.Error() != f.broken.Error() {
		f.broken, changed = err, true
	}
	if err != nil {
		return changed, time.Time{} // what is in it is as before
	}
	present := make(map[string]bool, len(names))
	later := func(at time.Time) {
		if !at.IsZero() && (again.IsZero() || at.Before(again)) {
			again = at
		}
	}
	for _, name := range names {
		present[name] = true
		m := f.files[name]
		if m == nil {
			m = &entry{}
			f.files[name] = m
		}
		m.missing = time.Time{}
		_, forced := touched[name]
		c, at := f.look(name, m, forced, now)
		changed = changed || c
		later(at)
	}
	for name, m := range f.files {
		if present[name] {
			continue
		}
		if m.missing.IsZero() {
			m.missing = now
		}
		if at := m.missing.Add(settle); !touched[name] && now.Before(at) {
			later(at)
			continue
		}
		changed = changed || len(m.pods)+len(m.objects)+len(m.problems) > 0
		delete(f.files, name)
	}
	return changed, again
}

// seen is since when there has been something new in the file: it may have been in
// doubt, or other changes were awaited.
func (f *folder) seen(m *entry, now time.Time) time.Time {
	for _, at := range []time.Time{m.doubt, f.noticed} {
		if !at.IsZero() && at.Before(now) {
			now = at
		}
	}
	return now
}

// look reads one file if it may have changed.
func (f *folder) look(name string, m *entry, forced bool, now time.Time) (changed bool, again time.Time) {
	key, err := keyOf(name)
	if err == nil && key == m.key && m.doubt.IsZero() && !forced {
		return false, time.Time{}
	}
	var data []byte
	busy := false
	if err == nil {
		data, key, busy, err = read(name)
	}
	if key != m.key {
		m.key, m.doubt = key, time.Time{}
	}
	if busy && now.Before(m.doubtUntil(now)) {
		return false, now.Add(writerWait)
	}
	text := sha256.Sum256(data)
	if err == nil && text == m.text && len(data) > 0 {
		m.doubt = time.Time{}
		return false, time.Time{}
	}
	here := f.place
	here.origin = name
	var found contents
	if err == nil {
		found = here.decode(data)
	} else {
		found.problems = []Problem{{Origin: name, Message: err.Error(), beside: errors.Is(err, errNoFile)}}
		text = [sha256.Size]byte{}
	}
	if until := m.doubtUntil(now); found.unsure() && now.Before(until) {
		return false, until
	}
	before := m.contents
	m.contents, m.doubt = before.then(found, f.seen(m, now)), time.Time{}
	m.text = text
	return !same(before, m.contents), time.Time{}
}

// doubtUntil is when a doubt about the file, that is there now, is to be
// believed. A file that was left alone for long isn't doubted.
func (m *entry) doubtUntil(now time.Time) time.Time {
	if m.doubt.IsZero() {
		m.doubt = now
		if changed := time.Unix(m.key.ctime.Unix()); m.key != (fileKey{}) && changed.Before(now) {
			m.doubt = changed
		}
	}
	return m.doubt.Add(settle)
}

func same(a, b contents) bool {
	return slices.Equal(a.pods, b.pods) && slices.Equal(a.objects, b.objects) && slices.Equal(a.problems, b.problems)
}

// update is the full list of what is wanted now.
func (f *folder) update() Update {
	u := Update{Source: f.source}
	for _, name := range slices.Sorted(maps.Keys(f.files)) {
		m := f.files[name]
		u.Pods = append(u.Pods, m.pods...)
		u.Objects = append(u.Objects, m.objects...)
		u.Problems = append(u.Problems, m.problems...)
		if m.held() || !m.doubt.IsZero() || !m.missing.IsZero() {
			u.Held = append(u.Held, name)
		}
	}
	if f.broken != nil {
		u.Held = append(u.Held, f.path)
		u.Problems = append(u.Problems, Problem{Origin: f.path, Message: f.broken.Error()})
	}
	return u
}

// errNoFile is given for what can't hold pods.
var errNoFile = errors.New("is no regular file")

// keyOf looks at a file, refusing what isn't one.
func keyOf(name string) (fileKey, error) {
	info, err := os.Stat(name)
	if errors.Is(err, unix.ELOOP) {
		return fileKey{}, errors.New("symbolic links that lead to each other")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fileKey{}, errors.New("symbolic link to a file that doesn't exist")
	}
	if err != nil {
		return fileKey{}, fmt.Errorf("look at file: %w", err)
	}
	return keyFrom(info)
}

func keyFrom(info fs.FileInfo) (fileKey, error) {
	switch {
	case info.IsDir():
		return fileKey{}, fmt.Errorf("%w but a folder: only files directly in the manifest folder are read", errNoFile)
	case !info.Mode().IsRegular():
		return fileKey{}, errNoFile
	case info.Size() > maxManifest:
		return fileKey{}, fmt.Errorf("has %d bytes, more than %d MiB", info.Size(), maxManifest>>20)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileKey{}, fmt.Errorf("look at file: unexpected %T", info.Sys())
	}
	return fileKey{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, //nolint:unconvert // Dev has another width on some machines
		mtime: unix.Timespec(st.Mtim), ctime: unix.Timespec(st.Ctim)}, nil
}

// read gives the whole text of a file and its key, and says whether somebody is
// writing it.
func read(name string) (data []byte, key fileKey, busy bool, err error) {
	// Not blocking: it may have become a pipe since it was looked at, and some
	// files of the kernel, such as its log, are regular and yet wait for more.
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileKey{}, false, fmt.Errorf("open file: %w", err)
	}
	defer file.Close() // nothing was written to it
	key, err = keyOfOpen(file)
	if err != nil {
		return nil, key, false, err
	}
	busy = hasWriter(file)
	data, err = io.ReadAll(io.LimitReader(unwaiting(file.Fd()), maxManifest+1))
	if err != nil {
		return nil, key, busy, fmt.Errorf("read file: %w", err)
	}
	if len(data) > maxManifest {
		return nil, key, true, fmt.Errorf("has more than %d MiB", maxManifest>>20)
	}
	after, err := keyOfOpen(file)
	return data, after, busy || after != key, err
}

// unwaiting reads a descriptor as it is: where os.File would wait for data,
// it fails.
type unwaiting int

func (fd unwaiting) Read(buf []byte) (int, error) {
	for {
		switch n, err := unix.Read(int(fd), buf); {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return 0, fmt.Errorf("%w: it waits for more", errNoFile)
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func keyOfOpen(file *os.File) (fileKey, error) {
	info, err := file.Stat()
	if err != nil {
		return fileKey{}, fmt.Errorf("look at file: %w", err)
	}
	return keyFrom(info)
}

// hasWriter says whether somebody has the file open for writing: then no read
// lease is to be had. Where there are no leases (network file systems) nobody
// writes as far as we know, and settle has to do.
func hasWriter(file *os.File) bool {
	_, err := unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	// Given back at once: a writer that opens the file waits for it. Closing
	// the file gives it back if this fails.
	_, _ = unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return false
}
