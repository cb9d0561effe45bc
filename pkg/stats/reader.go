package stats

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
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

// bytes are what the file holds, until the next call; nothing of one that isn't
// there.
func (r *reader) bytes(path string) []byte {
	b, err := r.read(path)
	switch {
	case err == nil, r.err != nil:
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV): // removed before, or while it was open
	case errors.Is(err, unix.EOPNOTSUPP): // pressure that the kernel was told not to count
	default:
		r.err = err
	}
	return b
}

func (r *reader) read(path string) ([]byte, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // opened to read: nothing to lose
	if r.buf == nil {
		r.buf = make([]byte, 8<<10)
	}
	for n := 0; ; {
		more, err := retry(func() (int, error) { return unix.Read(fd, r.buf[n:]) })
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		n += more
		switch {
		case more == 0, n < 4096 && n < len(r.buf): // the kernel gives a page, if there is one
			return r.buf[:n], nil
		case n == len(r.buf):
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
	}
}

func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// number is the one that the file holds; "max" is none at all: the greatest.
func (r *reader) number(path string) uint64 {
	n, _ := r.given(path)
	return n
}

// given is the file's number, if there is such a file.
func (r *reader) given(path string) (uint64, bool) {
	b := bytes.TrimSpace(r.bytes(path))
	if len(b) == 0 {
		return 0, false
	}
	n, ok := parse(b)
	if !ok && r.err == nil {
		r.err = fmt.Errorf("read %s: %.40q is no number", path, b)
	}
	return n, ok
}

// pairs calls f with each "key number" line of the file.
func (r *reader) pairs(path string, f func(key []byte, value uint64)) {
	for line := range bytes.Lines(r.bytes(path)) {
		if key, text, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" ")); ok {
			if n, ok := parse(text); ok {
				f(key, n)
			}
		}
	}
}

// pressure of a file such as cpu.pressure: "some avg10=0.00 ... total=0".
func (r *reader) pressure(path string) (p info.PSIStats) {
	for line := range bytes.Lines(r.bytes(path)) {
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
