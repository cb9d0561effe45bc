package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Both runtimes run a pod with an address of its own, restart under it, and
// leave nothing of it; New's clean-up checks that nothing of the lab is left.
func TestRuntimeRunsPod(t *testing.T) {
	for _, version := range []string{Containerd2, Containerd16} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			l := New(t, Options{Version: version})
			before := l.Snapshot()
			pod := l.barePod(t, "first")
			if err := l.CRI.RunPod(ctx, pod); err != nil {
				t.Fatal(err)
			}
			if leaks := l.Snapshot(); len(leaks) <= len(before) {
				t.Errorf("a running pod shows nothing new: %v", leaks)
			}
			if err := l.Runtime.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := l.Runtime.Start(ctx); err != nil {
				t.Fatal(err)
			}
			containers, err := l.CRI.Containers(ctx, pod.UID)
			if err != nil || len(containers) != 1 || containers[0].State.String() != "CONTAINER_RUNNING" {
				t.Fatalf("after the runtime's restart: %v, %v; want one running container", containers, err)
			}
			if err := l.CRI.StopPod(ctx, pod, 5); err != nil {
				t.Fatal(err)
			}
			// The parent cgroup is the agent's to remove, and here is none.
			if err := removeCgroup(l.CgroupRoot); err != nil {
				t.Error(err)
			}
			if leaks := l.Leaks(before); len(leaks) > 0 {
				t.Errorf("left by the pod:\n%s", strings.Join(leaks, "\n"))
			}
		})
	}
}

// A lab that ends with pods running takes them down.
func TestCloseTakesPodsDown(t *testing.T) {
	t.Parallel()
	l := New(t, Options{})
	if err := l.CRI.RunPod(t.Context(), l.barePod(t, "left")); err != nil {
		t.Fatal(err)
	}
}

func (l *Lab) barePod(t *testing.T, name string) *BarePod {
	t.Helper()
	logs := l.Path("logs", name)
	if err := os.MkdirAll(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	return &BarePod{Name: name, Namespace: "default", UID: "uid-" + name, LogDir: logs, CgroupParent: l.CgroupRoot + "/" + name}
}

// A registry with credentials is pulled from through the runtime, by both
// its names, and refuses who has none.
func TestRegistry(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := New(t, Options{})
	r, err := l.Registry(RegistryOptions{User: "u", Password: "p", Alias: "registry.test"})
	if err != nil {
		t.Fatal(err)
	}
	image, err := NewImage(v1.Config{}, []File{{Name: "hello", Mode: 0o644, Data: []byte("hello")}})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := r.Push(ctx, "some/app:1", image)
	if err != nil {
		t.Fatal(err)
	}
	pull := func(ref, password string) error {
		_, err := l.CRI.Images.PullImage(ctx, &cri.PullImageRequest{
			Image: &cri.ImageSpec{Image: ref},
			Auth:  &cri.AuthConfig{Username: "u", Password: password},
		})
		return err
	}
	if err := pull(ref, "wrong"); err == nil {
		t.Error("pull with a wrong password succeeds")
	}
	for _, ref := range []string{ref, "registry.test/some/app:1"} {
		if err := pull(ref, "p"); err != nil {
			t.Errorf("pull %s: %v", ref, err)
		}
	}
	if got := r.Pulls("some/app"); got != 2 {
		t.Errorf("registry counts %d pulls, want 2", got)
	}
}

// The agent is followed through its signals; its process runs in the lab's
// network, which has the node's address and no other way out.
func TestAgentProcess(t *testing.T) {
	t.Parallel()
	l := New(t, Options{})
	a, err := l.Agent("")
	if err != nil {
		t.Fatal(err)
	}
	script := l.Path("agent.sh")
	text := "#!/bin/sh\ntrap 'exit 3' TERM\nip -o addr >" + l.Path("addr") + "\nwhile :; do sleep 0.05; done\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	a.Binary = script
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	err = poll(t.Context(), func() error {
		data, err := os.ReadFile(l.Path("addr"))
		if err == nil && !strings.Contains(string(data), NodeAddress) {
			err = errors.New("no node address yet")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Pause(), a.Resume()); err != nil {
		t.Error(err)
	}
	if err := a.Stop(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("agent ended with %v, want exit status 3", err)
	}
	if err := errors.Join(a.Start(), a.Kill()); err != nil {
		t.Error(err)
	}
	if pid := a.Pid(); pid != 0 {
		t.Errorf("a killed agent has pid %d", pid)
	}
}

// What is left is told: a process, a mount and a cgroup of the lab's show as
// leaks as long as they are there.
func TestLeaksTells(t *testing.T) {
	t.Parallel()
	l := New(t, Options{})
	before := l.Snapshot()
	mark := l.Path("mark")
	if err := os.Mkdir(mark, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", mark, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	cgroups, err := cgroupMounts()
	if err != nil || len(cgroups) == 0 {
		t.Fatalf("cgroup mounts: %v, %v", cgroups, err)
	}
	cgroup := filepath.Join(cgroups[0], l.CgroupRoot)
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "60")
	sleep.Env = []string{labEnv + "=" + l.ID}
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	leaks := l.Leaks(before)
	want := []string{"cgroup " + cgroup, "mount " + mark, fmt.Sprintf("process %d sleep 60", sleep.Process.Pid)}
	if !slices.Equal(leaks, want) {
		t.Errorf("leaks %q, want %q", leaks, want)
	}
	if err := errors.Join(unix.Unmount(mark, 0), os.Remove(cgroup), sleep.Process.Kill()); err != nil {
		t.Error(err)
	}
	sleep.Wait() // killed
	if leaks := l.Leaks(before); len(leaks) > 0 {
		t.Errorf("leaks %q after all is gone", leaks)
	}
}

// A frozen shim and a frozen containerd don't hinder the end.
func TestCloseTakesFrozenDown(t *testing.T) {
	t.Parallel()
	l := New(t, Options{Version: Containerd16})
	pod := l.barePod(t, "frozen")
	if err := l.CRI.RunPod(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	shim, err := l.Runtime.ShimPid(pod.Sandbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(signalProcess(shim, syscall.SIGSTOP), l.Runtime.Pause()); err != nil {
		t.Fatal(err)
	}
}

// A lab whose process was killed is taken down by the next one's.
func TestSweep(t *testing.T) {
	t.Parallel()
	if os.Getenv("LAB_TO_LEAVE") != "" {
		l := New(t, Options{})
		if err := l.CRI.RunPod(t.Context(), l.barePod(t, "left")); err != nil {
			t.Fatal(err)
		}
		fmt.Println("folder:", l.Dir)
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	child := exec.Command(os.Args[0], "-test.run=^TestSweep$")
	child.Env = append(os.Environ(), "LAB_TO_LEAVE=1")
	out, err := child.Output()
	_, rest, _ := strings.Cut(string(out), "folder: ")
	dir := strings.TrimSpace(rest)
	if err == nil || dir == "" {
		t.Fatalf("child left no lab: %v, %s", err, out)
	}
	sweep(t)
	id := strings.Split(filepath.Base(dir), "-")[1]
	left := &Lab{ID: id, Dir: dir, CgroupRoot: "/" + cgroupPrefix + id, Network: &Network{Name: "lab-" + id}}
	if facts := left.facts(); len(facts) > 0 {
		t.Errorf("after the sweep: %v", facts)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("folder %s: %v, want none", dir, err)
	}
}
