package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestMain(m *testing.M) {
	if root := os.Getenv("NODEAGENT_TEST_CHURN"); root != "" {
		churn(root)
	}
	if dir := os.Getenv("NODEAGENT_TEST_WRITE"); dir != "" {
		writeGenerations(dir, os.Getenv("NODEAGENT_TEST_FROM"))
	}
	os.Exit(m.Run())
}

// precious is data of somebody else, outside the root.
func precious(t *testing.T) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "deep", "data")
	write(t, file, "precious")
	return dir, file
}

func TestDataBehindMountsIsNeverLost(t *testing.T) {
	for _, at := range []string{
		"volumes/kubernetes.io~empty-dir/cache",
		"volumes/kubernetes.io~empty-dir/cache/inside/it",
		"volumes/kubernetes.io~csi/pv/mount",
		"volume-subpaths/pv/main/0/below",
		"volume-subpaths/pv",
		"somewhere/else",
	} {
		t.Run(at, func(t *testing.T) {
			v, p := node(t), newPod(disk("cache"))
			mustMount(t, v, p)
			dir, file := precious(t)
			target := filepath.Join(v.pods, string(uid), at)
			if err := os.MkdirAll(target, 0o755); err != nil {
				t.Fatal(err)
			}
			bind(t, dir, target)
			hosts := filepath.Join(v.pods, string(uid), "etc-hosts")
			write(t, hosts, "kept")
			unmountErr := v.Unmount(t.Context(), uid)
			removeErr := v.RemovePod(t.Context(), uid)
			if removeErr == nil || !strings.Contains(removeErr.Error(), target) {
				t.Errorf("remove: %v, want an error that names %s", removeErr, target)
			}
			if strings.Contains(at, "cache") && (unmountErr == nil || !strings.Contains(unmountErr.Error(), target)) {
				t.Errorf("unmount: %v, want an error that names %s", unmountErr, target)
			}
			wantContent(t, file, "precious")
			wantContent(t, filepath.Join(target, "deep", "data"), "precious")
			// A refusal leaves the rest of the pod's folder as well.
			wantContent(t, hosts, "kept")
			if _, err := os.Stat(filepath.Join(v.pods, string(uid), "volumes")); err != nil {
				t.Error(err)
			}

			if err := unix.Unmount(target, 0); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(v.Unmount(t.Context(), uid), v.RemovePod(t.Context(), uid)); err != nil {
				t.Errorf("once it is unmounted: %v", err)
			}
			wantContent(t, file, "precious")
		})
	}
}

// TestWalkStopsAtMounts takes away the look at the mount table: the walk alone
// must not enter a mount, not even one of the same file system or of a file.
func TestWalkStopsAtMounts(t *testing.T) {
	dir, file := precious(t)
	for name, make := range map[string]func(target string){
		"folder": func(target string) {
			if err := os.MkdirAll(target, 0o755); err != nil {
				t.Fatal(err)
			}
			bind(t, dir, target)
		},
		"file": func(target string) {
			write(t, target, "")
			bind(t, file, target)
		},
		"same folder": func(target string) { // of the very tree that is deleted
			write(t, filepath.Join(filepath.Dir(target), "twin", "data"), "mine")
			if err := os.MkdirAll(target, 0o755); err != nil {
				t.Fatal(err)
			}
			bind(t, filepath.Join(filepath.Dir(target), "twin"), target)
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			t.Cleanup(func() { unmountAll(t, base) })
			target := filepath.Join(base, "tree", "sub", "target")
			make(target)
			if err := removeTree(t.Context(), base, "tree", everything); err == nil {
				t.Error("the walk went through")
			}
			wantContent(t, file, "precious")
		})
	}
}

func TestVolumeDataOfOtherKindsIsKept(t *testing.T) {
	v, p := node(t), newPod()
	mustMount(t, v, p)
	pod := filepath.Join(v.pods, string(uid))
	data := filepath.Join(pod, "volumes/example.com~local/pv/data")
	write(t, data, "precious")
	write(t, filepath.Join(pod, "volume-subpaths/pv/main/0"), "") // where a file was mounted
	err := v.RemovePod(t.Context(), uid)
	if err == nil || !strings.Contains(err.Error(), data) {
		t.Errorf("got %v, want an error that names %s", err, data)
	}
	wantContent(t, data, "precious")
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	if err := v.RemovePod(t.Context(), uid); err != nil {
		t.Error(err)
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	v, p := node(t), newPod(disk("cache"), memory("shm", "1Mi"))
	dir, file := precious(t)
	for _, path := range mustMount(t, v, p) {
		write(t, filepath.Join(path, "sub", "x"), "")
		for name, target := range map[string]string{"root": "/", "dir": dir, "file": file, "up": "../../../../..", "loop": "loop", "sub/dir": dir} {
			if err := os.Symlink(target, filepath.Join(path, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(v.Unmount(t.Context(), uid), v.RemovePod(t.Context(), uid)); err != nil {
		t.Error(err)
	}
	wantContent(t, file, "precious")
}

// TestLinkPutInPlaceOfTheVolume: the folder itself is exchanged for a link.
func TestLinkPutInPlaceOfTheVolume(t *testing.T) {
	v, p := node(t), newPod(disk("cache"))
	dir, file := precious(t)
	path := mustMount(t, v, p)["cache"]
	if err := os.Rename(path, path+"-moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, path); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.Unmount(t.Context(), uid), v.RemovePod(t.Context(), uid)); err != nil {
		t.Error(err)
	}
	wantContent(t, file, "precious")
}

// TestRenameRace exchanges a folder and a link to data all the time while the
// walk goes through them.
func TestRenameRace(t *testing.T) {
	dir, file := precious(t)
	base := t.TempDir()
	for round := range 50 {
		tree := filepath.Join(base, "tree")
		a, b := filepath.Join(tree, "a"), filepath.Join(tree, "b")
		for i := range 20 {
			write(t, filepath.Join(a, "deep", fmt.Sprint(i)), "")
		}
		if err := os.Symlink(dir, b); err != nil {
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
					// Fails once either is gone.
					_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
				}
			}
		}()
		var err error
		for range 100 { // a race may end a walk early; the next one goes on
			if err = removeTree(t.Context(), base, "tree", everything); err == nil {
				break
			}
		}
		close(stop)
		<-stopped
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		wantContent(t, file, "precious")
		wantGone(t, tree)
	}
}

func TestDeepAndWideTrees(t *testing.T) {
	base := t.TempDir()
	tree := filepath.Join(base, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(tree)
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 { // far beyond the longest path and the open files
		if err := unix.Mkdirat(int(dir.Fd()), strings.Repeat("d", 200), 0o700); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Openat(int(dir.Fd()), strings.Repeat("d", 200), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := dir.Close(); err != nil {
			t.Fatal(err)
		}
		dir = os.NewFile(uintptr(fd), "d")
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	limitOpenFiles(t, 256)
	for i := range 2000 {
		write(t, filepath.Join(tree, fmt.Sprint("f", i)), "")
	}
	write(t, filepath.Join(tree, ".deleting-1"), "the pod's own")
	if err := removeTree(t.Context(), base, "tree", everything); err != nil {
		t.Fatal(err)
	}
	wantGone(t, tree)
}

func limitOpenFiles(t *testing.T, n uint64) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
}

func TestWalkEndsWithItsContext(t *testing.T) {
	base := t.TempDir()
	write(t, filepath.Join(base, "tree", "file"), "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := removeTree(ctx, base, "tree", everything); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want cancelled", err)
	}
}

func TestBusyTmpfsStays(t *testing.T) {
	v, p := node(t), newPod(memory("shm", "1Mi"))
	path := mustMount(t, v, p)["shm"]
	file := filepath.Join(path, "data")
	write(t, file, "in use")
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Unmount(t.Context(), uid); !errors.Is(err, unix.EBUSY) {
		t.Errorf("got %v, want EBUSY", err)
	}
	wantContent(t, file, "in use")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := v.Unmount(t.Context(), uid); err != nil {
		t.Error(err)
	}
}

// churn is the agent in TestKilledAnywhere: it lives through pods until it is
// killed.
func churn(root string) {
	v, err := New(root, 64<<20, resolver(), nil)
	for ctx := context.Background(); err == nil; {
		p := churnPod()
		err = v.Prepare(p)
		var paths map[string]string
		if err == nil {
			paths, _, err = v.Mount(ctx, p)
		}
		for _, path := range paths {
			for i := range 10 {
				err = errors.Join(err, os.MkdirAll(filepath.Join(path, "d", fmt.Sprint(i)), 0o755), os.WriteFile(filepath.Join(path, fmt.Sprint(i)), nil, 0o644))
			}
		}
		if err == nil {
			c := &v1.Container{Name: "main", VolumeMounts: []v1.VolumeMount{{Name: "cache", SubPath: "d/new"}, {Name: "shm", SubPath: "1"}, {Name: "config", SubPath: "a"}}}
			_, err = v.BindSubPaths(ctx, p, c, paths, nil)
		}
		if err == nil {
			err = errors.Join(v.Unmount(ctx, p.UID), v.RemovePod(ctx, p.UID))
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func churnPod() *v1.Pod {
	return newPod(disk("cache"), memory("shm", "1Mi"), memory("other", ""), configMap("config"))
}

// TestKilledAnywhere kills an agent at 40 moments of its pods' lives. What is
// mounted into a pod's folder keeps its data, and the next agent goes on.
func TestKilledAnywhere(t *testing.T) {
	v := node(t)
	dir, file := precious(t)
	other := filepath.Join(v.pods, "other-pod", "volumes", "kubernetes.io~empty-dir", "cache")
	if err := os.MkdirAll(other, 0o755); err != nil {
		t.Fatal(err)
	}
	bind(t, dir, other)
	caught := 0 // kills that left something of the pod
	for i := range 40 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "NODEAGENT_TEST_CHURN="+filepath.Dir(v.pods))
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		select {
		case <-exited:
			t.Fatalf("agent failed: %s", stderr.String())
		case <-time.After(60*time.Millisecond + time.Duration(i)*1379*time.Microsecond):
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-exited
		uids, err := v.PodDirs()
		if err != nil {
			t.Fatal(err)
		}
		caught += len(uids) - 1
		for _, uid := range uids {
			err := errors.Join(v.Unmount(t.Context(), uid), v.RemovePod(t.Context(), uid))
			if (err == nil) == (uid == types.UID("other-pod")) {
				t.Fatalf("kill %d: clean up of %s: %v", i, uid, err)
			}
		}
		wantContent(t, file, "precious")
		wantGone(t, filepath.Join(v.pods, string(uid)))
	}
	t.Logf("%d of 40 kills left something", caught)
	if caught == 0 {
		t.Error("no kill came while a pod had a folder")
	}
}
