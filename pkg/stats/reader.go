package stats

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	info "github.com/google/cadvisor/info/v1"
	"golang.org/x/sys/unix"
)

// reader reads small files of the kernel into one buffer, with three system
// calls each: a scrape reads thousands of them.
type reader struct {
	buf []byte
	// err is the first that a call found, other than that a file isn't there.
	err error
	// disks by major and minor, and names of entries, which are used again.
	disks map[[2]uint64]string
	names []string
}

const (
	// cwd is where absolute paths are found.
	cwd = unix.AT_FDCWD
	// none is the folder that is not there.
	none = -1
)

// folder opens one to find files in it; none if it isn't there.
func (r *reader) folder(path string) int {
	for {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return fd
		case err == unix.EINTR:
			continue
		}
		r.failed("open", path, err)
		return none
	}
}

// bytes are what the file in the folder holds, until the next call; nothing of
// one that isn't there.
func (r *reader) bytes(folder int, name string) []byte {
	if folder == none {
		return nil
	}
	fd, err := unix.Openat(folder, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	for err == unix.EINTR {
		fd, err = unix.Openat(folder, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		r.failed("open", name, err)
		return nil
	}
	if r.buf == nil {
		r.buf = make([]byte, 8<<10)
	}
	n, err := r.fill(fd)
	_ = unix.Close(fd) // opened to read: nothing to lose
	if err != nil {
		r.failed("read", name, err)
		return nil
	}
	return r.buf[:n]
}

// fill reads the file to its end. The kernel gives a page at a time, if there is
// one.
func (r *reader) fill(fd int) (n int, err error) {
	for {
		more, err := unix.Read(fd, r.buf[n:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		}
		n += more
		if more == 0 || n < 4096 {
			return n, nil
		}
		if n == len(r.buf) {
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
	}
}

func (r *reader) failed(what, name string, err error) {
	switch {
	case r.err != nil:
	case err == unix.ENOENT, err == unix.ENODEV: // removed before, or while it was open
	case err == unix.ESRCH: // a process that has ended
	case err == unix.EOPNOTSUPP: // pressure that the kernel was told not to count
	default:
		r.err = &os.PathError{Op: what, Path: name, Err: err}
	}
}

// number is the one that the file holds; "max" is none at all: the greatest.
func (r *reader) number(folder int, name string) uint64 {
	n, _ := r.given(folder, name)
	return n
}

// given is the file's number, if there is such a file.
func (r *reader) given(folder int, name string) (uint64, bool) {
	b := bytes.TrimSpace(r.bytes(folder, name))
	if len(b) == 0 {
		return 0, false
	}
	n, ok := parse(b)
	if !ok && r.err == nil {
		r.err = fmt.Errorf("read %s: %.40q is no number", name, b)
	}
	return n, ok
}

// pairs calls f with each "key number" line of the file.
func (r *reader) pairs(folder int, name string, f func(key []byte, value uint64)) {
	for line := range bytes.Lines(r.bytes(folder, name)) {
		if key, text, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" ")); ok {
			if n, ok := parse(text); ok {
				f(key, n)
			}
		}
	}
}

// pressure of a file such as cpu.pressure: "some avg10=0.00 ... total=0".
func (r *reader) pressure(folder int, name string) (p info.PSIStats) {
	for line := range bytes.Lines(r.bytes(folder, name)) {
		fields := bytes.Fields(line)
		into := &p.Some
		if len(fields) > 0 && string(fields[0]) == "full" {
			into = &p.Full
		}
		for _, field := range fields {
			key, value, _ := bytes.Cut(field, []byte("="))
			switch string(key) {
			case "avg10":
				into.Avg10 = decimal(value)
			case "avg60":
				into.Avg60 = decimal(value)
			case "avg300":
				into.Avg300 = decimal(value)
			case "total":
				into.Total, _ = parse(value)
			}
		}
	}
	return p
}

func decimal(b []byte) float64 {
	f, _ := strconv.ParseFloat(string(b), 64) // the kernel's own: %lu.%02lu
	return f
}

// parse a number without making a string of it.
func parse(b []byte) (n uint64, ok bool) {
	if string(b) == "max" {
		return 1<<64 - 1, true
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, len(b) > 0
}
