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
	above   spot              // the nearest existing folder above path
	inside  spot              // the folder at path
	warned  bool
}

// spot is a folder that is watched; info is nil when none is.
type spot struct {
	path string
	info os.FileInfo
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
	w.move(&w.above, above)
	w.move(&w.inside, w.path)
}

// move makes a spot watch the folder that is at path now, if there is one. What
// else may be wrong with the path, scan says.
func (w *watch) move(s *spot, path string) {
	info, err := os.Stat(path)
	exists := err == nil && info.IsDir()
	if exists && s.path == path && s.info != nil && os.SameFile(s.info, info) {
		return
	}
	if s.info != nil {
		_ = w.inotify.Remove(s.path) // it's mostly gone already
	}
	*s = spot{}
	if !exists {
		return
	}
	if err := w.inotify.Add(path); err == nil {
		*s = spot{path, info}
	} else if !w.warned {
		w.warned = true
		w.log.Warn("can't watch folder, only re-reading it now and then (raise fs.inotify.max_user_watches)", "folder", path, "error", err)
	}
}

// concerns says whether an event can change what is at path. An end of a watched
// folder is noted: its watch ended too, even if one with the same inode follows.
func (w *watch) concerns(e fsnotify.Event) bool {
	if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
		for _, s := range []*spot{&w.above, &w.inside} {
			if s.path == e.Name {
				s.info = nil
			}
		}
	}
	above := filepath.Dir(w.path)
	switch {
	case e.Name == w.path || filepath.Dir(e.Name) == w.path:
		return true
	case w.above.path != above:
		return true // a part of the path may have appeared
	}
	return e.Name == above || filepath.Base(e.Name) == "..data" // an atomically swapped volume
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
