package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/singleflight"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// hostPath is a path of the host as it is, after a check of what is there
// (behaviour row 1.12-5).
type hostPath struct {
	// checks that run. One on a dead mount may never return: it holds its own
	// goroutine, and tries after it wait for the same one.
	checks singleflight.Group
}

// Mount checks the path, and makes it if its type says so.
func (h *hostPath) Mount(ctx context.Context, _ *v1.Pod, vol *v1.Volume) (standing, error) {
	path := vol.HostPath.Path
	if !filepath.IsAbs(path) {
		return standing{}, fmt.Errorf("path %q: want an absolute one", path)
	}
	if slices.Contains(strings.Split(path, "/"), "..") {
		return standing{}, fmt.Errorf("path %q: must not contain '..'", path)
	}
	want := v1.HostPathUnset
	if vol.HostPath.Type != nil {
		want = *vol.HostPath.Type
	}
	if want == v1.HostPathUnset {
		return standing{path: path}, nil
	}
	done := h.checks.DoChan(string(want)+path, func() (any, error) { return nil, checkType(path, want) })
	select {
	case r := <-done:
		if r.Err != nil {
			return standing{}, r.Err
		}
		return standing{path: path}, nil
	case <-ctx.Done():
		return standing{}, fmt.Errorf("hostPath type check of %s does not end: %w; is it on a dead mount?", path, ctx.Err())
	}
}

// Folder implements kind: nothing is on disk.
func (h *hostPath) Folder() string { return "" }

// Remove has nothing to do: the path is the host's.
func (h *hostPath) Remove(context.Context, types.UID, string) error { return nil }

func checkType(path string, want v1.HostPathType) error {
	info, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return fmt.Errorf("hostPath type check failed: %w", err)
	}
	var mode fs.FileMode
	if !missing {
		mode = info.Mode()
	}
	ok, what := false, ""
	switch want {
	case v1.HostPathDirectoryOrCreate:
		if missing {
			return os.MkdirAll(path, 0o755)
		}
		ok, what = mode.IsDir(), "directory"
	case v1.HostPathDirectory:
		ok, what = !missing && mode.IsDir(), "directory"
	case v1.HostPathFileOrCreate:
		if missing {
			return makeFile(path)
		}
		ok, what = mode.IsRegular(), "file"
	case v1.HostPathFile:
		ok, what = !missing && mode.IsRegular(), "file"
	case v1.HostPathSocket:
		ok, what = mode&fs.ModeSocket != 0, "socket file"
	case v1.HostPathCharDev:
		ok, what = mode&fs.ModeCharDevice != 0, "character device"
	case v1.HostPathBlockDev:
		ok, what = mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0, "block device"
	default:
		return fmt.Errorf("type %q: want one of Directory, DirectoryOrCreate, File, FileOrCreate, Socket, CharDevice, BlockDevice", want)
	}
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", path, what)
	}
	return nil
}

func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
