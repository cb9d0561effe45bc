package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// parted is a container that mounts those parts of the volume "vol".
func parted(subs ...string) *v1.Container {
	c := &v1.Container{Name: "main"}
	for i, sub := range subs {
		c.VolumeMounts = append(c.VolumeMounts, v1.VolumeMount{Name: "vol", MountPath: fmt.Sprint("/", i), SubPath: sub})
	}
	return c
}

func mustBind(t *testing.T, v *Volumes, p *v1.Pod, c *v1.Container, host string) map[int]string {
	t.Helper()
	got, err := v.BindSubPaths(t.Context(), p, c, map[string]string{"vol": host}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestSubPathLayout(t *testing.T) {
	v, p := node(t), newPod(disk("vol"))
	p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: new(int64(4711))}
	host := mustMount(t, v, p)["vol"]
	write(t, filepath.Join(host, "file"), "of the volume")
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	c := parted("new/deep", "", "file")
	c.VolumeMounts = append(c.VolumeMounts, v1.VolumeMount{Name: "vol", MountPath: "/x", SubPathExpr: "$(WHO)/x"})
	got, err := v.BindSubPaths(t.Context(), p, c, map[string]string{"vol": host}, map[string]string{"WHO": "me"})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(v.pods, string(uid), "volume-subpaths/vol/main")
	if d := cmp.Diff(map[int]string{0: dir + "/0", 2: dir + "/2", 3: dir + "/3"}, got); d != "" {
		t.Error(d)
	}
	wantContent(t, dir+"/2", "of the volume")
	write(t, dir+"/0/made", "inside")
	wantContent(t, filepath.Join(host, "new/deep/made"), "inside")
	for _, made := range []string{"new", "new/deep", "me/x"} {
		if info, err := os.Stat(filepath.Join(host, made)); err != nil || info.Mode() != fs.ModeDir|fs.ModeSetgid|0o777 {
			t.Errorf("%s: %v, %v; want the volume's own mode", made, info.Mode(), err)
		}
	}
	if err := errors.Join(v.Unmount(t.Context(), uid), v.RemovePod(t.Context(), uid)); err != nil {
		t.Error(err)
	}
	wantUnmounted(t, v.pods)
	wantGone(t, filepath.Join(v.pods, string(uid)))
}

// A variable in a subPathExpr may be a secret: errors don't tell what it stands
// for.
func TestSubPathErrorsShowNoVariable(t *testing.T) {
	v, p := node(t), newPod(disk("vol"))
	host := mustMount(t, v, p)["vol"]
	write(t, filepath.Join(host, "file"), "no folder")
	for expr, why := range map[string]string{"file/$(PASSWORD)": "not a directory", "$(UP)/../$(PASSWORD)": "must be relative"} {
		c := &v1.Container{Name: "main", VolumeMounts: []v1.VolumeMount{{Name: "vol", MountPath: "/x", SubPathExpr: expr}}}
		_, err := v.BindSubPaths(t.Context(), p, c, map[string]string{"vol": host}, map[string]string{"PASSWORD": "hunter2", "UP": "hunter3"})
		if err == nil || strings.Contains(err.Error(), "hunter") || !strings.Contains(err.Error(), expr) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", expr, err)
		}
	}
}

// A subPath never leads out of its volume, whatever the pod put there, and of
// what is outside the error doesn't tell whether it is there.
func TestSubPathStaysInside(t *testing.T) {
	v, p := node(t), newPod(disk("vol"))
	host := mustMount(t, v, p)["vol"]
	outside, precious := precious(t)
	write(t, filepath.Join(host, "real/deep/data"), "inside")
	for link, target := range map[string]string{
		"inside": "real", "out": "../outside", "abs": outside, "proc": "/proc/self/root", "own": filepath.Join(host, "real"),
		"up": "../../../../../../../../..", "loop": "loop", "dangling": "/nowhere/at/all",
	} {
		if err := os.Symlink(target, filepath.Join(host, link)); err != nil {
			t.Fatal(err)
		}
	}
	for sub, want := range map[string]string{
		"real/deep": "inside", "inside/deep": "inside", "./real//deep/": "inside", "own/deep": "inside",
	} {
		wantContent(t, filepath.Join(mustBind(t, v, p, parted(sub), host)[0], "data"), want)
	}
	for sub, want := range map[string]string{
		"..": "without '..'", "a/../b": "without '..'", "/real": "must be relative",
		"out": "leads out of its volume", "abs": "leads out of its volume", "abs/deep": "leads out of its volume",
		"abs/nothing": "leads out of its volume", "proc/etc": "leads out of its volume", "up": "leads out of its volume",
		"dangling": "leads out of its volume", "loop": "too many levels", "real/deep/data/x": "not a directory",
	} {
		got, err := v.BindSubPaths(t.Context(), p, parted(sub), map[string]string{"vol": host}, nil)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), `failed to prepare subPath for volumeMount "vol" of container "main": `) {
			t.Errorf("subPath %q: %v, %v; want %q", sub, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), outside) {
			t.Errorf("the error of %q tells of the host: %v", sub, err)
		}
	}
	wantContent(t, precious, "precious")
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("made outside the volume: %v, %v", left, err)
	}
	c := parted("")
	c.VolumeMounts[0].SubPathExpr = "$(NO)"
	if _, err := v.BindSubPaths(t.Context(), p, c, map[string]string{"vol": host}, nil); err == nil || !strings.Contains(err.Error(), "missing value for NO") {
		t.Errorf("an expression without a value: %v", err)
	}
	if _, err := v.BindSubPaths(t.Context(), p, parted("x"), nil, nil); err == nil || !strings.Contains(err.Error(), "not mounted") {
		t.Errorf("a volume that is not there: %v", err)
	}
}

// TestSubPathExchanged: the pod exchanges the folder and a link out of the
// volume all the time. What is bound is the folder, or there is an error.
func TestSubPathExchanged(t *testing.T) {
	v, p := node(t), newPod(disk("vol"))
	host := mustMount(t, v, p)["vol"]
	outside, _ := precious(t)
	write(t, filepath.Join(host, "a/inside"), "")
	if err := os.Symlink(outside, filepath.Join(host, "b")); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(host, "a"), unix.AT_FDCWD, filepath.Join(host, "b"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	bound, refused := 0, 0
	for range 500 {
		got, err := v.BindSubPaths(t.Context(), p, parted("a"), map[string]string{"vol": host}, nil)
		if err != nil {
			refused++
			continue
		}
		bound++
		if _, err := os.Stat(filepath.Join(got[0], "inside")); err != nil {
			t.Fatalf("something else is bound: %v", err)
		}
	}
	close(stop)
	<-stopped
	t.Logf("%d bound, %d refused", bound, refused)
	if bound == 0 || refused == 0 {
		t.Error("no race happened")
	}
}

// A container that is made again gets what the path leads to by then; what runs
// keeps what it has.
func TestSubPathIsBoundAnew(t *testing.T) {
	v, p := node(t), newPod(disk("vol"))
	host := mustMount(t, v, p)["vol"]
	write(t, filepath.Join(host, "it"), "old")
	place := mustBind(t, v, p, parted("it"), host)[0]
	write(t, filepath.Join(host, "next"), "new")
	if err := os.Rename(filepath.Join(host, "next"), filepath.Join(host, "it")); err != nil {
		t.Fatal(err)
	}
	wantContent(t, place, "old")
	for range 3 {
		mustBind(t, v, p, parted("it"), host)
		wantContent(t, place, "new")
	}
	if err := errors.Join(os.Remove(filepath.Join(host, "it")), os.Mkdir(filepath.Join(host, "it"), 0o755)); err != nil {
		t.Fatal(err)
	}
	mustBind(t, v, p, parted("it"), host)
	if info, err := os.Stat(place); err != nil || !info.IsDir() {
		t.Errorf("a file that became a folder: %v, %v", info, err)
	}
	table, err := readMounts(v.pods)
	if err != nil || len(table.mounts) != 1 {
		t.Errorf("%d mounts, %v; want one", len(table.mounts), err)
	}
}

// A key of a volume that the agent writes stays as it was bound.
func TestSubPathOfShownVolumeIsFrozen(t *testing.T) {
	v, p := node(t), newPod(configMap("vol"))
	host := mustMount(t, v, p)["vol"]
	place := mustBind(t, v, p, parted("a"), host)[0]
	if err := writeTo(t, host, payload{"a": plain("changed")}); err != nil {
		t.Fatal(err)
	}
	wantContent(t, host+"/a", "changed")
	wantContent(t, place, "a v1")
	mustBind(t, v, p, parted("a"), host)
	wantContent(t, place, "changed")
}

// What the peer, or a process that was killed, bound is undone as well, before
// anything is deleted; a mount that is nobody's subPath keeps everything.
func TestSubPathsAreUndone(t *testing.T) {
	v, p := node(t), newPod(disk("vol"), memory("shm", "1Mi"))
	host := mustMount(t, v, p)
	dir, file := precious(t)
	for _, place := range []string{"vol/main/0", "other/side/12"} {
		place = filepath.Join(v.pods, string(uid), "volume-subpaths", place)
		write(t, filepath.Join(place, "x"), "")
		if err := os.Remove(filepath.Join(place, "x")); err != nil {
			t.Fatal(err)
		}
		bind(t, dir, place)
		bind(t, dir, place) // twice
	}
	restarted, err := New(filepath.Dir(v.pods), 0, resolver(), nil)
	if err != nil {
		t.Fatal(err)
	}
	mustBind(t, restarted, p, parted("a"), host["vol"])
	c := parted("b")
	c.Name, c.VolumeMounts[0].Name = "shared", "shm"
	if _, err := v.BindSubPaths(t.Context(), p, c, host, nil); err != nil {
		t.Fatal(err)
	}
	strange := filepath.Join(v.pods, string(uid), "volume-subpaths/vol/strange")
	write(t, filepath.Join(strange, "x"), "")
	bind(t, dir, strange)
	write(t, filepath.Join(host["vol"], "data"), "kept")
	if err := restarted.Unmount(t.Context(), uid); err == nil || !strings.Contains(err.Error(), strange) {
		t.Errorf("with a strange mount: %v", err)
	}
	wantContent(t, filepath.Join(host["vol"], "data"), "kept")
	if err := errors.Join(unix.Unmount(strange, 0), os.Remove(filepath.Join(strange, "x"))); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(restarted.Unmount(t.Context(), uid), restarted.RemovePod(t.Context(), uid)); err != nil {
		t.Error(err)
	}
	wantUnmounted(t, v.pods)
	wantContent(t, file, "precious")
}

// A subPath on a FUSE file system that nobody serves is given up in time.
func TestSubPathOnDeadMount(t *testing.T) {
	dead := t.TempDir()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("dead", dead, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Close(fd), unix.Unmount(dead, unix.MNT_DETACH)); err != nil {
			t.Error(err)
		}
	})
	v, p := node(t), newPod(disk("vol"))
	for range 3 { // later tries wait with the first, instead of adding to it
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := v.BindSubPaths(ctx, p, parted("sub"), map[string]string{"vol": dead}, nil)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "dead mount") {
			t.Errorf("got %v, want that %s does not answer", err, dead)
		}
	}
	host := mustMount(t, v, p)["vol"]
	c := parted("sub")
	c.Name = "other"
	mustBind(t, v, p, c, host)
	// Nor does the container itself wait for the dead one, should another volume
	// or path be meant by now.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := v.BindSubPaths(ctx, p, parted("sub"), map[string]string{"vol": host}, nil); err != nil {
		t.Error(err)
	}
}
