package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// logName is a container's log by its restart number, or a rotated part of it.
var logName = regexp.MustCompile(`^(\d+)\.log(\..*)?$`)

// LogFolder is the name of the pod's folder of logs, below podLogsDir (behaviour
// row 1.11-4). An error says that no folder can have it.
func LogFolder(namespace, name string, uid types.UID) (string, error) {
	folder := namespace + "_" + name + "_" + string(uid)
	if strings.ContainsAny(folder, "/\x00") {
		return "", fmt.Errorf("namespace, name or UID of pod %s/%s (%s) cannot be part of a path", namespace, name, uid)
	}
	return folder, nil
}

// logLink is the path of the link to a container's log, where log shippers
// look for it.
func (c *Client) logLink(namespace, name, container, id string) string {
	const longest = 255 - len(".log")
	link := fmt.Sprintf("%s_%s_%s-%s", name, namespace, container, id)
	return filepath.Join(c.opts.LinksDir, link[:min(len(link), longest)]+".log")
}

// makeLogFolders makes the pod's log folder and the folders above it.
func (c *Client) makeLogFolders(p *v1.Pod) error {
	folder, err := LogFolder(p.Namespace, p.Name, p.UID)
	if err != nil {
		return err
	}
	for _, dir := range []struct {
		path string
		perm os.FileMode
	}{{c.opts.Pods.LogsDir, 0o750}, {c.opts.LinksDir, 0o755}, {filepath.Join(c.opts.Pods.LogsDir, folder), 0o755}} {
		if err := os.MkdirAll(dir.path, dir.perm); err != nil {
			return fmt.Errorf("make log folder: %w", err)
		}
	}
	return nil
}

// linkLog makes the link to a started container's log. Without a log there is
// nothing to link to.
func (c *Client) linkLog(namespace, name, container, id, log string) error {
	if _, err := os.Lstat(log); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := os.Symlink(log, c.logLink(namespace, name, container, id))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("link log of container %s: %w", container, err)
	}
	return nil
}

// dropLog removes the logs of one instance once a later one has logs of its
// own: the newest logs outlive their container, for people and for the count
// of restarts (behaviour row T4). Those of an instance that neverRan would count
// one too many.
func (c *Client) dropLog(namespace, name string, uid types.UID, container string, attempt uint32, neverRan bool) error {
	folder, err := LogFolder(namespace, name, uid)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Join(c.opts.Pods.LogsDir, folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open log folder: %w", err)
	}
	defer root.Close()
	files, err := fs.ReadDir(root.FS(), container)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read log folder of container %s: %w", container, err)
	}
	if !neverRan && highestLog(files) <= int64(attempt) {
		return nil
	}
	var errs []error
	for _, f := range files {
		if n, ok := logNumber(f.Name()); ok && n == int64(attempt) {
			errs = append(errs, removed(root.Remove(filepath.Join(container, f.Name()))))
		}
	}
	return errors.Join(errs...)
}

// LoggedRestarts is the highest log number of each container of the pod, for
// restart counts whose containers the runtime has forgotten (behaviour row
// T4). A pod without logs has none.
func (c *Client) LoggedRestarts(namespace, name string, uid types.UID) map[string]int32 {
	out := map[string]int32{}
	folder, err := LogFolder(namespace, name, uid)
	if err != nil {
		return out
	}
	pod := filepath.Join(c.opts.Pods.LogsDir, folder)
	dirs, err := os.ReadDir(pod)
	if err != nil {
		return out // no folder: no logs
	}
	for _, dir := range dirs {
		files, err := os.ReadDir(filepath.Join(pod, dir.Name()))
		if err != nil {
			continue // no folder of a container
		}
		if n := highestLog(files); n >= 0 && n < 1<<31 {
			out[dir.Name()] = int32(n)
		}
	}
	return out
}

// highestLog is -1 when there is no log.
func highestLog(files []fs.DirEntry) int64 {
	highest := int64(-1)
	for _, f := range files {
		if n, ok := logNumber(f.Name()); ok && !f.IsDir() {
			highest = max(highest, n)
		}
	}
	return highest
}

func logNumber(file string) (int64, bool) {
	match := logName.FindStringSubmatch(file)
	if match == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(match[1], 10, 32)
	return n, err == nil
}

// RemoveLogs removes the log folder of a pod that is gone, and the links into
// it. The folder has two levels; anything deeper, and a mount point, makes it
// stop with an error.
func (c *Client) RemoveLogs(ctx context.Context, namespace, name string, uid types.UID) error {
	folder, err := LogFolder(namespace, name, uid)
	if err != nil || len(folder) > unix.NAME_MAX {
		return err // a folder of too long a name was never made
	}
	if err := c.removeLinks(ctx, namespace, name, filepath.Join(c.opts.Pods.LogsDir, folder)); err != nil {
		return err
	}
	logs, err := os.OpenRoot(c.opts.Pods.LogsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open folder of logs: %w", err)
	}
	defer logs.Close()
	if err := emptyFolder(logs, folder, func(pod *os.Root, entry fs.DirEntry) error {
		if !entry.IsDir() {
			return removed(pod.Remove(entry.Name()))
		}
		err := emptyFolder(pod, entry.Name(), func(cont *os.Root, file fs.DirEntry) error {
			return removed(cont.Remove(file.Name()))
		})
		return errors.Join(err, removed(pod.Remove(entry.Name())))
	}); err != nil {
		return fmt.Errorf("remove logs of pod %s/%s: %w", namespace, name, err)
	}
	if err := removed(logs.Remove(folder)); err != nil {
		return fmt.Errorf("remove log folder of pod %s/%s: %w", namespace, name, err)
	}
	return nil
}

// removeLinks removes the links that point into dir.
func (c *Client) removeLinks(ctx context.Context, namespace, name, dir string) error {
	links, err := os.ReadDir(c.opts.LinksDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read folder of log links: %w", err)
	}
	for _, link := range links {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !strings.HasPrefix(link.Name(), name+"_"+namespace+"_") {
			continue
		}
		path := filepath.Join(c.opts.LinksDir, link.Name())
		target, err := os.Readlink(path)
		if err != nil || !strings.HasPrefix(target, dir+"/") {
			continue // not a link of this pod
		}
		if err := removed(os.Remove(path)); err != nil {
			return fmt.Errorf("remove log link: %w", err)
		}
	}
	return nil
}

// emptyFolder calls remove for all that is in the folder. It goes into no
// mount point: what is mounted there is not the agent's.
func emptyFolder(parent *os.Root, folder string, remove func(*os.Root, fs.DirEntry) error) error {
	info, err := parent.Lstat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return nil // say a link that somebody put there: its name is removed, nothing behind it
	}
	dir, err := parent.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer dir.Close()
	handle, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer handle.Close()
	var st unix.Statx_t
	if err := unix.Statx(int(handle.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return fmt.Errorf("look for a mount at %s: %w", folder, err)
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return fmt.Errorf("%s is a mount point: unmount it first", folder)
	}
	entries, err := handle.ReadDir(-1)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		errs = append(errs, remove(dir, entry))
	}
	return errors.Join(errs...)
}

// removed makes the removal of what is gone a success.
func removed(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
