package lab

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
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
