// Package record keeps small durable records of the agent, one file each, and
// the lock that keeps a second agent off the same root.
//
// A record is a hint: whatever the runtime, the disk layout or the mount table
// say themselves is not in one, and the agent starts without any of them. So a
// record that can't be read is set aside, never an obstacle.
//
// A file holds one line of JSON, {"version":1,"checksum":"<sha256>","data":…},
// and is read back byte for byte: what this package would not have written is
// not a record.
package record

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	suffix    = ".json"
	tmpPrefix = ".tmp-"
	tail      = "}\n"
	// maxSize is far above the largest pod that an apiserver stores (1.5 MiB).
	maxSize = 16 << 20
	maxName = 200
)

// ErrCorrupt says that a file is no record that this version has written.
var ErrCorrupt = errors.New("not a whole record of version 1")

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Store is a folder of records. Its methods may be called side by side; writes
// to one name must not be.
type Store struct{ dir string }

// Open makes the folder, with mode 0700, and clears what a write that was
// killed left behind. The caller holds the Lock of the root it is in.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("open records: %w", err)
			}
		}
	}
	return &Store{dir: dir}, nil
}

// Write makes v the record of that name. When it returns nil, v has reached the
// disk; when it fails or is killed, the record before it stands.
//
// A name is of letters, digits, '.', '_' and '-', and begins with a letter or
// a digit.
func (s *Store) Write(name string, v any) error {
	path, err := s.path(name)
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	content, err := encode(v)
	if err != nil {
		return fmt.Errorf("write record %s: %w", name, err)
	}
	if err := s.replace(path, content); err != nil {
		return fmt.Errorf("write record %s: %w", name, err)
	}
	return nil
}

// replace puts content at path: either all of it or nothing.
func (s *Store) replace(path string, content []byte) error {
	err := Replace(s.dir, filepath.Base(path), content)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody removed the folder. Only it is made again: if more is gone,
		// the disk may be, and what is written would lie beneath it.
		if err = os.Mkdir(s.dir, 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			err = Replace(s.dir, filepath.Base(path), content)
		}
	}
	return err
}

// Replace makes content all that is in a file of the folder, with mode 0600.
// When it returns nil that has reached the disk; when it fails or is killed, the
// file before it stands. What a killed one left behind is written over by the
// next of the same name, of which there may be one at a time.
func Replace(dir, name string, content []byte) error {
	path := filepath.Join(dir, tmpPrefix+name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(path, filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return syncFolder(dir)
}

// syncFolder makes what was renamed or removed in it survive a power cut.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Read returns the record of that name. Errors are fs.ErrNotExist when there is
// none, and ErrCorrupt when there was one that can't be read and is now set
// aside.
func Read[T any](s *Store, name string) (T, error) {
	var zero T
	path, err := s.path(name)
	if err != nil {
		return zero, fmt.Errorf("read record: %w", err)
	}
	v, err := load[T](path)
	if err == nil {
		return v, nil
	}
	if errors.Is(err, ErrCorrupt) {
		a := s.setAside(name, err)
		return zero, fmt.Errorf("read record %s: %w (now %s)", name, a.Err, a.Path)
	}
	return zero, fmt.Errorf("read record %s: %w", name, err)
}

// All returns every record by its name, and what had to be set aside. It never
// fails as a whole: the caller warns of each Aside and goes on.
func All[T any](s *Store) (map[string]T, []Aside) {
	records := map[string]T{}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return records, []Aside{{Path: s.dir, Err: fmt.Errorf("read records: %w", err)}}
	}
	var aside []Aside
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || !validName.MatchString(name) {
			continue
		}
		v, err := load[T](filepath.Join(s.dir, e.Name()))
		switch {
		case err == nil:
			records[name] = v
		case errors.Is(err, fs.ErrNotExist): // deleted since the folder was read
		default:
			aside = append(aside, s.setAside(name, err))
		}
	}
	return records, aside
}

// Delete removes the record of that name; one that is gone is no error.
func (s *Store) Delete(name string) error {
	path, err := s.path(name)
	if err != nil {
		return fmt.Errorf("delete record: %w", err)
	}
	switch err := os.Remove(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("delete record %s: %w", name, err)
	}
	if err := syncFolder(s.dir); err != nil {
		return fmt.Errorf("delete record %s: %w", name, err)
	}
	return nil
}

func (s *Store) path(name string) (string, error) {
	if len(name) > maxName || !validName.MatchString(name) {
		return "", fmt.Errorf("invalid name %.*q: want up to %d letters, digits, '.', '_', '-'", maxName, name, maxName)
	}
	return filepath.Join(s.dir, name+suffix), nil
}

func head(data []byte) string {
	sum := sha256.Sum256(data)
	return `{"version":1,"checksum":"` + hex.EncodeToString(sum[:]) + `","data":`
}

func encode(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	content := append([]byte(head(data)), data...)
	content = append(content, tail...)
	if len(content) > maxSize {
		return nil, fmt.Errorf("%d bytes exceed the limit of %d", len(content), maxSize)
	}
	return content, nil
}

// decode is the inverse of encode. It compares instead of parsing, so that not
// even a change that JSON would overlook (letter case, white space) goes by.
func decode[T any](content []byte) (T, error) {
	var v T
	n := len(head(nil))
	if len(content) < n+len(tail) {
		return v, fmt.Errorf("%w: %d bytes are too few", ErrCorrupt, len(content))
	}
	data := content[n : len(content)-len(tail)]
	if string(content[:n]) != head(data) || string(content[len(content)-len(tail):]) != tail {
		return v, fmt.Errorf("%w: version or checksum differ", ErrCorrupt)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		var zero T
		return zero, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return v, nil
}

func load[T any](path string) (T, error) {
	var zero T
	// Neither a symlink nor a FIFO that somebody put there may lead us on.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return zero, fmt.Errorf("%w: not a regular file", ErrCorrupt)
	}
	if err != nil {
		return zero, err
	}
	defer func() { _ = f.Close() }() // read only: nothing to lose
	info, err := f.Stat()
	if err != nil {
		return zero, err
	}
	if !info.Mode().IsRegular() {
		return zero, fmt.Errorf("%w: not a regular file", ErrCorrupt)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return zero, err
	}
	if len(content) > maxSize {
		return zero, fmt.Errorf("%w: more than %d bytes", ErrCorrupt, maxSize)
	}
	return decode[T](content)
}
