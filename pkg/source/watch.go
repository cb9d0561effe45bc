package source

import (
	"log/slog"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// watch follows a folder and what stands above it: the folder may appear,
// vanish and be replaced. A single file is followed through its folder, since
// it may be replaced by another.
type watch struct {
	path    string
	log     *slog.Logger
	inotify *fsnotify.Watcher // nil when the kernel gives none
	above   string            // the nearest existing folder above path
	inside  os.FileInfo       // the folder at path that is watched
	warned  bool
}

func newWatch(path string, log *slog.Logger) *watch {
	w := &watch{path: path, log: log}
	var err error
	if w.inotify, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("can't watch for changes, only re-reading now and then (raise fs.inotify.max_user_instances)", "error", err)
	}
	return w
}

// follow sets the watches for what exists now.
func (w *watch) follow() {
	if w.inotify == nil {
		return
	}
	above := filepath.Dir(w.path)
	for !isDir(above) && above != filepath.Dir(above) {
		above = filepath.Dir(above)
	}
	if above != w.above {
		w.drop(w.above)
		w.above = ""
		if w.add(above) {
			w.above = above
		}
	}
	info, err := os.Stat(w.path)
	if err != nil || !info.IsDir() {
		info = nil // nothing inside to watch, and scan says what is wrong
	}
	if w.inside != nil && info != nil && os.SameFile(w.inside, info) {
		return
	}
	if w.inside != nil {
		w.drop(w.path)
		w.inside = nil
	}
	if info != nil && w.add(w.path) {
		w.inside = info
	}
}

func (w *watch) add(folder string) bool {
	err := w.inotify.Add(folder)
	if err != nil && !w.warned {
		w.warned = true
		w.log.Warn("can't watch folder, only re-reading it now and then", "folder", folder, "error", err)
	}
	return err == nil
}

// drop forgets a folder. That it is gone already is the usual case.
func (w *watch) drop(folder string) {
	if folder != "" {
		_ = w.inotify.Remove(folder)
	}
}

// concerns says whether a change of name can change what is at path.
func (w *watch) concerns(name string) bool {
	above := filepath.Dir(w.path)
	switch {
	case name == w.path || filepath.Dir(name) == w.path:
		return true
	case w.above != above:
		return true // a part of the path may have appeared
	}
	return name == above || filepath.Base(name) == "..data" // an atomically swapped volume
}

func (w *watch) events() <-chan fsnotify.Event {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Events
}

func (w *watch) errors() <-chan error {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Errors
}

func (w *watch) close() {
	if w.inotify != nil {
		if err := w.inotify.Close(); err != nil {
			w.log.Warn("closing the watch failed", "error", err)
		}
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
