package credentials

import (
	"log/slog"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// watch notices changes of files by the folders that they are in, since files
// are replaced, and of those that links lead to.
type watch struct {
	inotify *fsnotify.Watcher // nil when the kernel gives none
	names   map[string]bool   // what is of interest in the folders
}

func newWatch(log *slog.Logger, blind bool) *watch {
	w := &watch{}
	if blind {
		return w
	}
	var err error
	if w.inotify, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("can't watch certificates for changes, looking at them every minute (raise fs.inotify.max_user_instances)", "error", err)
	}
	return w
}

// follow watches for these files and no others, and says whether more of them
// than before: what was read of those may have changed before they were watched.
// A folder that is not there yet is found by looking now and then.
func (w *watch) follow(files []string) (more bool) {
	if w.inotify == nil {
		return false
	}
	before := w.names
	w.names = map[string]bool{}
	for _, name := range files {
		name = filepath.Clean(name)
		w.names[name] = true
		w.names[filepath.Join(filepath.Dir(name), "..data")] = true // an atomically swapped volume
		if target, err := filepath.EvalSymlinks(name); err == nil {
			w.names[target] = true
		}
	}
	folders := map[string]bool{}
	for name := range w.names {
		folders[filepath.Dir(name)] = true
	}
	for _, dir := range w.inotify.WatchList() {
		if !folders[dir] {
			_ = w.inotify.Remove(dir) // it may be gone
		}
	}
	for dir := range folders {
		_ = w.inotify.Add(dir) // a folder that is watched stays so
	}
	for name := range w.names {
		more = more || !before[name]
	}
	return more
}

func (w *watch) events() <-chan fsnotify.Event {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Events
}

// errors say that events were lost.
func (w *watch) errors() <-chan error {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Errors
}

func (w *watch) close() {
	if w.inotify != nil {
		_ = w.inotify.Close() // nothing was written
	}
}
