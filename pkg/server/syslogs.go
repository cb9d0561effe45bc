package server

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// logsDir is what /logs/ shows.
const logsDir = "/var/log"

// addLogs serves the machine's log files (behaviour row 1.20-15).
func (s *Server) addLogs(mux *http.ServeMux) {
	if !*s.options.Config.EnableSystemLogHandler {
		mux.HandleFunc("/logs/", disabled("logs endpoint is disabled."))
		return
	}
	mux.Handle("GET /logs/", fileLogs(logsDir))
}

// fileLogs shows the files of a folder and lists its folders, under /logs/.
func fileLogs(dir string) http.Handler {
	files := http.StripPrefix("/logs/", http.FileServerFS(logFiles(dir)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Programs write what they like into their logs: a browser must not run it.
		w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		files.ServeHTTP(w, r)
	})
}

// logFiles are the files and folders below a folder. Links are followed as far
// as they stay in it: those of container logs are absolute. What is neither file
// nor folder is not opened, as that might never return.
type logFiles string

// Open is for http.FileServerFS.
func (dir logFiles) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	// The folder itself may be a link.
	top, err := filepath.EvalSymlinks(string(dir))
	if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(filepath.Join(top, filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	below, err := filepath.Rel(top, real)
	if err != nil || !filepath.IsLocal(below) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	root, err := os.OpenRoot(top)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// What was resolved may be another thing by now; the root lets nothing out.
	f, err := root.OpenFile(below, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = fmt.Errorf("%s is neither file nor folder: %w", name, fs.ErrPermission)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}
