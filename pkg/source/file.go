package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// spread is the least time between two looks at the folder while updates follow
// each other: a thousand files dropped at once give few updates.
const spread = 10 * time.Millisecond

// fileSource is the source of pods in a folder or a file.
type fileSource struct {
	FileOptions
	log *slog.Logger
}

// FileOptions says where pods are read.
type FileOptions struct {
	Path     string        // of a folder or file
	NodeName string        // whose pods they are
	Reread   time.Duration // between two looks though nothing is noticed, 20 s when 0
	// Joined says that an apiserver has the objects that pods refer to.
	Joined bool
}

// NewFile gives the pods in the files of a folder, or in a single file
// (behaviour rows 1.1-1, 1.1-2). Changes are noticed at once. A path that
// doesn't exist gives no pods until it appears.
func NewFile(o FileOptions) Source {
	if o.Reread <= 0 {
		o.Reread = 20 * time.Second
	}
	if absolute, err := filepath.Abs(o.Path); err == nil {
		o.Path = absolute // fails only without a working folder
	}
	return &fileSource{FileOptions: o, log: slog.With("source", FileName, "path", o.Path)}
}

func (f *fileSource) Name() string { return FileName }

// Run is documented at Source.
func (f *fileSource) Run(ctx context.Context, out chan<- Update) error {
	w := newWatch(f.Path, f.log)
	defer w.close()
	files := folder{path: f.Path, place: place{source: FileName, node: f.NodeName, joined: f.Joined}, files: map[string]*entry{}}
	tick := time.NewTicker(f.Reread)
	defer tick.Stop()
	look := time.NewTimer(0) // when to look at the files next
	defer look.Stop()
	var (
		soonest time.Time           // no look before this
		pending Update              // not received yet
		send    chan<- Update       // nil while nothing is pending
		told    []Problem           // the newest problems logged
		first   = true              // nothing was sent yet
		touched = map[string]bool{} // what changed since the last look, true: deleted
	)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-w.events():
			if w.concerns(e) {
				if len(touched) == 0 {
					files.noticed = time.Now()
				}
				touched[e.Name] = e.Has(fsnotify.Remove)
				look.Reset(time.Until(soonest))
			}
		case err := <-w.errors():
			f.log.Warn("lost track of changes, looking at all files", "error", err)
			look.Reset(time.Until(soonest))
		case <-tick.C:
			look.Reset(0)
		case <-look.C:
			w.follow()
			now := time.Now()
			changed, again := files.scan(touched, now)
			clear(touched)
			files.noticed = time.Time{}
			if !again.IsZero() {
				look.Reset(again.Sub(now))
			}
			if !changed && !first {
				continue
			}
			first = false
			pending, send = files.update(), out
			logChanges(f.log, told, pending.Problems)
			told = pending.Problems
			soonest = now.Add(spread)
		case send <- pending:
			send = nil
		}
	}
}

// list names the files that may hold manifests, sorted, and says whether there
// is anything at path.
func list(path string) ([]string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at manifests: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("list manifests: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !ignored(e.Name()) {
			names = append(names, filepath.Join(path, e.Name()))
		}
	}
	slices.Sort(names)
	return names, nil
}

// ignored says that a name is hidden (the folders of an atomically swapped
// volume too) or the mark of an editor: backup, swap file, probe for rights.
func ignored(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || name == "4913" {
		return true
	}
	if strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#") {
		return true
	}
	switch filepath.Ext(name) {
	case ".bak", ".swp", ".swo", ".swx", ".tmp":
		return true
	}
	return false
}
