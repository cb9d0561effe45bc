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
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const uid = types.UID("6a3b1c0e-9b1f-4a51-8f53-0d4c1a1f7f10")

// node is a fresh agent root; whatever a test leaves mounted in it is unmounted.
func node(t *testing.T) *Volumes {
	t.Helper()
	root := t.TempDir()
	t.Cleanup(func() { unmountAll(t, root) })
	v, err := New(root, 64<<20, resolver(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func unmountAll(t *testing.T, dir string) {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	for i := range mounts {
		if err := unix.Unmount(mounts[len(mounts)-1-i].Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			t.Error(err)
		}
	}
}

func newPod(volumes ...v1.Volume) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: uid},
		Spec:       v1.PodSpec{Volumes: volumes, Containers: []v1.Container{{Name: "main"}}},
	}
	for _, vol := range volumes {
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, v1.VolumeMount{Name: vol.Name, MountPath: "/" + vol.Name})
	}
	return p
}

func disk(name string) v1.Volume {
	return v1.Volume{Name: name, VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}
}

func memory(name, size string) v1.Volume {
	vol := disk(name)
	vol.EmptyDir.Medium = v1.StorageMediumMemory
	if size != "" {
		q := resource.MustParse(size)
		vol.EmptyDir.SizeLimit = &q
	}
	return vol
}

func host(path string, t v1.HostPathType) v1.Volume {
	return v1.Volume{Name: "host", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: path, Type: &t}}}
}

func mustMount(t *testing.T, v *Volumes, p *v1.Pod) map[string]string {
	t.Helper()
	if err := v.Prepare(p); err != nil {
		t.Fatal(err)
	}
	paths, _, err := v.Mount(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func bind(t *testing.T, from, to string) {
	t.Helper()
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
}

func wantGone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", path, err)
	}
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s: got %q, %v; want %q", path, got, err, want)
	}
}

func wantUnmounted(t *testing.T, dir string) {
	t.Helper()
	table, err := readMounts(dir)
	if err == nil {
		err = table.refuse(dir)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestConformance is what every kind must do.
func TestConformance(t *testing.T) {
	for name, vol := range map[string]func(t *testing.T) v1.Volume{
		"emptyDir on disk":   func(*testing.T) v1.Volume { return disk("vol") },
		"emptyDir in memory": func(*testing.T) v1.Volume { return memory("vol", "1Mi") },
		"hostPath":           func(t *testing.T) v1.Volume { return host(t.TempDir(), v1.HostPathDirectory) },
		"configMap":          func(*testing.T) v1.Volume { return configMap("vol") },
		"secret":             func(*testing.T) v1.Volume { return secret("vol") },
		"downwardAPI":        func(*testing.T) v1.Volume { return downward("vol") },
		"projected":          func(*testing.T) v1.Volume { return projected("vol") },
	} {
		t.Run(name, func(t *testing.T) { conform(t, vol(t)) })
	}
}

func conform(t *testing.T, vol v1.Volume) {
	v, p := node(t), newPod(vol)
	ctx := t.Context()
	if err := v.Unmount(ctx, uid); err != nil {
		t.Errorf("unmount before the first mount: %v", err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := v.Mount(canceled, p); !errors.Is(err, context.Canceled) {
		t.Errorf("mount when cancelled: %v", err)
	}
	first := mustMount(t, v, p)
	path := first[vol.Name]
	write(t, filepath.Join(path, "data"), "mine")
	if d := cmp.Diff(first, mustMount(t, v, p)); d != "" {
		t.Errorf("second mount: %s", d)
	}
	restarted, err := New(filepath.Dir(v.pods), 64<<20, resolver(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(first, mustMount(t, restarted, p)); d != "" {
		t.Errorf("mount after a restart: %s", d)
	}
	wantContent(t, filepath.Join(path, "data"), "mine")
	for range 2 {
		if err := v.Unmount(ctx, uid); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}
	wantUnmounted(t, v.pods)
	if strings.HasPrefix(path, v.pods) {
		wantGone(t, path)
	} else {
		wantContent(t, filepath.Join(path, "data"), "mine")
	}
	mustMount(t, v, p)
	if err := v.Unmount(ctx, uid); err != nil {
		t.Errorf("unmount after a second life: %v", err)
	}
	for range 2 {
		if err := v.RemovePod(ctx, uid); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	wantGone(t, filepath.Join(v.pods, string(uid)))
}

func TestEmptyDirLayoutAndModes(t *testing.T) {
	v := node(t)
	p := newPod(disk("cache"), memory("shm", ""))
	group := int64(4711)
	p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: &group}
	paths := mustMount(t, v, p)
	dir := filepath.Join(v.pods, string(uid))
	want := map[string]string{
		"cache": filepath.Join(dir, "volumes/kubernetes.io~empty-dir/cache"),
		"shm":   filepath.Join(dir, "volumes/kubernetes.io~empty-dir/shm"),
	}
	if d := cmp.Diff(want, paths); d != "" {
		t.Error(d)
	}
	for path, want := range map[string]fs.FileMode{
		dir:                              0o750,
		filepath.Join(dir, "volumes"):    0o750,
		filepath.Join(dir, "plugins"):    0o750,
		filepath.Join(dir, "containers"): 0o750,
		paths["cache"]:                   0o777 | fs.ModeSetgid,
		paths["shm"]:                     0o777 | fs.ModeSetgid | fs.ModeSticky,
		filepath.Join(dir, "plugins/kubernetes.io~empty-dir/cache/ready"): 0o640,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode() &^ fs.ModeDir; got != want {
			t.Errorf("%s: mode %v, want %v", path, got, want)
		}
	}
	for _, path := range paths {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || int64(st.Gid) != group {
			t.Errorf("%s: group %d, %v; want %d", path, st.Gid, err, group)
		}
	}
	// A mode that a container set stays when the agent starts again.
	if err := os.Chmod(paths["cache"], 0o700); err != nil {
		t.Fatal(err)
	}
	mustMount(t, v, p)
	if info, err := os.Stat(paths["cache"]); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v after mounting again; want 0700", info.Mode(), err)
	}
}

func TestMemorySize(t *testing.T) {
	e := &emptyDir{memory: 64 << 20}
	limited := newPod(memory("m", ""))
	limited.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceMemory: resource.MustParse("16Mi")}
	for _, c := range []struct {
		name string
		pod  *v1.Pod
		vol  v1.Volume
		want int64
	}{
		{"the node's", newPod(), memory("m", ""), 64 << 20},
		{"the volume's", newPod(), memory("m", "8Mi"), 8 << 20},
		{"a volume above the node", newPod(), memory("m", "1Gi"), 64 << 20},
		{"the pod's", limited, memory("m", ""), 16 << 20},
		{"the volume's below the pod's", limited, memory("m", "8Mi"), 8 << 20},
	} {
		if got := e.size(c.pod, c.vol.EmptyDir.SizeLimit); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
	v := node(t)
	var st unix.Statfs_t
	if err := unix.Statfs(mustMount(t, v, newPod(memory("m", "8Mi")))["m"], &st); err != nil {
		t.Fatal(err)
	}
	if size := int64(st.Blocks) * st.Bsize; st.Type != unix.TMPFS_MAGIC || size != 8<<20 {
		t.Errorf("type %x of %d bytes, want tmpfs of %d", st.Type, size, 8<<20)
	}
}

func TestMountErrorsNameVolumeAndField(t *testing.T) {
	v := node(t)
	huge := disk("huge")
	huge.EmptyDir.Medium = "HugePages-2Mi"
	disk2 := disk("odd")
	disk2.EmptyDir.Medium = "Paper"
	nfs := v1.Volume{Name: "files", VolumeSource: v1.VolumeSource{NFS: &v1.NFSVolumeSource{}}}
	unused := v1.Volume{Name: "unused", VolumeSource: v1.VolumeSource{NFS: &v1.NFSVolumeSource{}}}
	bad := disk("../escape")
	p := newPod(disk("fine"), huge, nfs, bad, disk2, host("/etc/../etc", v1.HostPathDirectory))
	p.Spec.Volumes = append(p.Spec.Volumes, unused)
	if err := v.Prepare(p); err != nil {
		t.Fatal(err)
	}
	_, _, err := v.Mount(t.Context(), p)
	if err == nil {
		t.Fatal("mounted")
	}
	for _, want := range []string{
		`volume "huge" of pod default/web: spec.volumes[1].emptyDir: medium "HugePages-2Mi": no container requests hugepages-2Mi`,
		`volume "files" of pod default/web: spec.volumes[2].nfs: this kind of volume is not built yet; there are configMap, downwardAPI, emptyDir, hostPath, projected, secret`,
		`volume "../escape" of pod default/web: spec.volumes[3].emptyDir: name`,
		`volume "odd" of pod default/web: spec.volumes[4].emptyDir: medium "Paper"`,
		`volume "host" of pod default/web: spec.volumes[5].hostPath: path "/etc/../etc"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %s in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "unused") {
		t.Errorf("a volume that no container mentions is tried: %v", err)
	}
}

func TestUIDsCannotLeaveTheFolder(t *testing.T) {
	v := node(t)
	outside := filepath.Join(filepath.Dir(v.pods), "outside", "data")
	write(t, outside, "precious")
	for _, uid := range []types.UID{"", ".", "..", "../outside", "a/../../outside", "a\x00"} {
		p := newPod(disk("x"))
		p.UID = uid
		_, _, mountErr := v.Mount(t.Context(), p)
		for verb, err := range map[string]error{"Prepare": v.Prepare(p), "Mount": mountErr, "Unmount": v.Unmount(t.Context(), uid), "RemovePod": v.RemovePod(t.Context(), uid)} {
			if err == nil {
				t.Errorf("%s of UID %q succeeded", verb, uid)
			}
		}
	}
	wantContent(t, outside, "precious")
}

func TestPodDirs(t *testing.T) {
	v := node(t)
	if uids, err := v.PodDirs(); err != nil || len(uids) > 0 {
		t.Errorf("fresh node: %v, %v", uids, err)
	}
	mustMount(t, v, newPod(disk("x")))
	write(t, filepath.Join(v.pods, "a file"), "")
	if err := os.Mkdir(filepath.Join(v.pods, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	uids, err := v.PodDirs()
	if d := cmp.Diff([]types.UID{uid}, uids); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}

func TestHostPathTypes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "")
	socket := filepath.Join(dir, "socket")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	block := filepath.Join(dir, "block") // made, never opened
	if err := unix.Mknod(block, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	for _, c := range []struct {
		path string
		typ  v1.HostPathType
		want string
	}{
		{missing, v1.HostPathUnset, ""},
		{dir, v1.HostPathDirectory, ""},
		{file, v1.HostPathDirectory, "hostPath type check failed: " + file + " is not a directory"},
		{missing, v1.HostPathDirectory, "is not a directory"},
		{file, v1.HostPathFile, ""},
		{dir, v1.HostPathFile, "is not a file"},
		{missing, v1.HostPathFile, "is not a file"},
		{socket, v1.HostPathSocket, ""},
		{file, v1.HostPathSocket, "is not a socket file"},
		{"/dev/null", v1.HostPathCharDev, ""},
		{block, v1.HostPathCharDev, "is not a character device"},
		{block, v1.HostPathBlockDev, ""},
		{"/dev/null", v1.HostPathBlockDev, "is not a block device"},
		{missing, v1.HostPathBlockDev, "is not a block device"},
		{file, v1.HostPathDirectoryOrCreate, "is not a directory"},
		{dir, v1.HostPathFileOrCreate, "is not a file"},
		{filepath.Join(dir, "new/dir"), v1.HostPathDirectoryOrCreate, ""},
		{filepath.Join(dir, "new/dir"), v1.HostPathDirectory, ""},
		{filepath.Join(dir, "new/file"), v1.HostPathFileOrCreate, ""},
		{filepath.Join(dir, "new/file"), v1.HostPathFile, ""},
		{filepath.Join(dir, "no/folder"), v1.HostPathFileOrCreate, "no such file"},
		{"relative", v1.HostPathUnset, "want an absolute one"},
		{dir, "Pipe", `type "Pipe"`},
	} {
		paths, _, err := node(t).Mount(t.Context(), newPod(host(c.path, c.typ)))
		switch {
		case c.want == "" && (err != nil || paths["host"] != c.path):
			t.Errorf("%s %q: %v, %v", c.path, c.typ, paths, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s %q: got %v, want %s", c.path, c.typ, err, c.want)
		}
	}
}

// TestDeadMountHarmsNobodyElse mounts a FUSE file system that nobody serves.
func TestDeadMountHarmsNobodyElse(t *testing.T) {
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
	v := node(t)
	for range 3 { // later tries wait with the first, instead of adding to it
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, _, err = v.Mount(ctx, newPod(host(filepath.Join(dead, "x"), v1.HostPathFile)))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), dead) {
			t.Errorf("got %v, want deadline exceeded for %s", err, dead)
		}
	}
	mustMount(t, v, newPod(disk("fine"), host("/dev", v1.HostPathDirectory)))
}
