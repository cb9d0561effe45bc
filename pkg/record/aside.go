package record

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Aside is a record that could not be read.
type Aside struct {
	Name string // of the record; empty when the folder itself can't be read
	Path string // where its content is now
	Err  error  // why it was not accepted, and what went wrong in moving it
}

const (
	asideMark = ".corrupt-"
	// maxAside bounds what is kept for people to look at.
	maxAside = 16
)

// setAside renames the record to <name>.corrupt-<n>, so that it is neither read
// again nor lost to whoever wants to know what happened.
func (s *Store) setAside(name string, cause error) Aside {
	a := Aside{Name: name, Path: filepath.Join(s.dir, name+suffix), Err: cause}
	kept, err := s.asides()
	if err != nil {
		a.Err = errors.Join(cause, fmt.Errorf("set record %s aside: %w", name, err))
		return a
	}
	n := 1
	if len(kept) > 0 {
		n = kept[len(kept)-1].n + 1
	}
	to := filepath.Join(s.dir, name+asideMark+strconv.Itoa(n))
	if err := os.Rename(a.Path, to); err != nil {
		a.Err = errors.Join(cause, fmt.Errorf("set record %s aside: %w", name, err))
		return a
	}
	a.Path = to
	for len(kept) >= maxAside {
		if err := os.Remove(kept[0].path); err != nil {
			a.Err = errors.Join(a.Err, fmt.Errorf("drop old record set aside: %w", err))
		}
		kept = kept[1:]
	}
	return a
}

type numbered struct {
	path string
	n    int
}

// asides are the records set aside before, oldest first.
func (s *Store) asides() ([]numbered, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var found []numbered
	for _, e := range entries {
		i := strings.LastIndex(e.Name(), asideMark)
		if i < 0 {
			continue
		}
		if n, err := strconv.Atoi(e.Name()[i+len(asideMark):]); err == nil {
			found = append(found, numbered{filepath.Join(s.dir, e.Name()), n})
		}
	}
	slices.SortFunc(found, func(a, b numbered) int { return a.n - b.n })
	return found, nil
}
