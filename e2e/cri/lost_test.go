package cri

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/cri"
)

// TestRemovesWhatContainerdLost has containerd lose a task: no agent speaks to
// it, and CRI calls alone cannot remove what it lost. (containerd 1.6 loses
// tasks too, but far more seldom.)
func TestRemovesWhatContainerdLost(t *testing.T) {
	l := lab.New(t, lab.Options{})
	p := &lab.BarePod{Name: "p", Namespace: "default", UID: "u", LogDir: l.Dir, CgroupParent: l.CgroupRoot}
	if err := l.CRI.RunPod(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	o := &loser{t: t, CRI: l.CRI, pod: p, delay: 30 * time.Millisecond}
	id := o.lose()
	refused := func(err error) {
		if err == nil || !strings.Contains(err.Error(), "cannot delete running task "+id) {
			t.Error("plain CRI calls removed it, or could not for another reason:", err)
		}
	}
	_, err := l.CRI.Runtime.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id})
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.CRI.Runtime.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id})
	refused(err)
	refused(l.CRI.RemoveSandbox(t.Context(), p.Sandbox))
	c, err := cri.Dial(cri.Options{Endpoint: l.Runtime.Endpoint(), LinksDir: l.Path("links"), RequestTimeout: 30 * time.Second,
		Pods: cri.PodOptions{RootDir: l.Path("root"), LogsDir: l.Path("logs")}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.RemoveSandbox(t.Context(), p.Sandbox); err != nil {
		t.Error("the sandbox stays:", err)
	}
	left, err := l.CRI.Sandboxes(t.Context(), "")
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// loser gives up starts at the moment at which containerd loses tasks, which
// it finds by trying: it comes closer by what became of the last one.
type loser struct {
	*lab.CRI
	t     *testing.T
	pod   *lab.BarePod
	delay time.Duration
	tries int
}

// lose returns a container whose task containerd lost.
func (l *loser) lose() string {
	l.t.Helper()
	for l.tries < 1000 {
		l.tries++
		s := l.giveUp()
		switch {
		case strings.Contains(s.Message, "failed to get task pid"):
			l.t.Logf("lost at try %d, given up after %v", l.tries, l.delay)
			l.settle()
			return s.Id
		case strings.Contains(s.Message, "failed to create containerd task"):
			l.delay += l.delay / 20
		case s.State != runtimeapi.ContainerState_CONTAINER_CREATED:
			l.delay -= l.delay / 20
		}
	}
	l.t.Fatal("containerd loses no tasks any more: pkg/cri/lost.go can go")
	return ""
}

// settle waits until no start is under way any more: those that were given up
// at another bad moment take containerd many seconds, and keep the sandbox.
func (l *loser) settle() {
	l.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
		all, err := l.Containers(l.t.Context(), "")
		if err != nil {
			l.t.Fatal(err)
		}
		if !slices.ContainsFunc(all, func(c *runtimeapi.Container) bool { return c.State == runtimeapi.ContainerState_CONTAINER_CREATED }) {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatal("a start that was given up a minute ago is still under way")
		}
	}
}

// giveUp starts a new container, gives that up after the delay, and returns
// what the runtime makes of it.
func (l *loser) giveUp() *runtimeapi.ContainerStatus {
	l.t.Helper()
	made, err := l.Runtime.CreateContainer(l.t.Context(), l.pod.Create(fmt.Sprint("c", l.tries)))
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(l.t.Context())
	defer cancel()
	time.AfterFunc(l.delay, cancel)
	l.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: made.ContainerId}) // its status says how it ended
	for range 50 {
		r, err := l.Runtime.ContainerStatus(l.t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: made.ContainerId})
		if err != nil {
			l.t.Fatal(err)
		}
		if r.Status.State != runtimeapi.ContainerState_CONTAINER_CREATED {
			return r.Status
		}
		<-time.After(10 * time.Millisecond)
	}
	return &runtimeapi.ContainerStatus{Id: made.ContainerId}
}
