package pod

import (
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestStatusFields checks what the scripts don't print.
func TestStatusFields(t *testing.T) {
	at := time.Date(2030, 1, 1, 0, 0, 0, 123456789, time.UTC)
	spec := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "u1", Generation: 7}}
	spec.Spec.Containers = []v1.Container{{Name: "z", Image: "img"}, {Name: "a", Image: "img"}}
	spec.Spec.InitContainers = []v1.Container{{Name: "y", Image: "img"}, {Name: "b", Image: "img"}}
	view := View{
		Sandboxes: []Sandbox{{ID: "s", Ready: true, IPs: []string{"fd00::1", "10.0.0.1"}, CreatedAt: at}},
		Containers: []Container{
			{ID: "z2", Name: "z", SandboxID: "s", Attempt: 3, State: Running, Image: "img", ImageRef: "img@sha256:1", CreatedAt: at.Add(2), StartedAt: at},
			{ID: "z1", Name: "z", SandboxID: "s", Attempt: 2, State: Exited, ExitCode: 1, Reason: "OOMKilled", CreatedAt: at.Add(1), StartedAt: at,
				FinishedAt: at, Message: strings.Repeat("x", 3071) + "ä"},
			{ID: "z0", Name: "z", SandboxID: "s", Attempt: 1, State: Exited, CreatedAt: at, FinishedAt: at},
		},
	}
	p := New(Wanted{At: at, Spec: spec}, view, nil)
	node := Node{HostIPs: []string{"192.168.0.1", "fd00::f"}, RuntimeName: "containerd"}
	s := Status(p, node, at)

	if s.ObservedGeneration != 7 || s.Conditions[0].ObservedGeneration != 7 {
		t.Errorf("generations: %d, %d", s.ObservedGeneration, s.Conditions[0].ObservedGeneration)
	}
	whole := metav1.NewTime(at.Truncate(time.Second))
	if !s.StartTime.Equal(&whole) || !s.ContainerStatuses[1].State.Running.StartedAt.Equal(&whole) {
		t.Errorf("times are not whole seconds: %v, %v", s.StartTime, s.ContainerStatuses[1].State.Running)
	}
	if s.HostIP != "192.168.0.1" || len(s.HostIPs) != 2 || s.PodIP != "10.0.0.1" || len(s.PodIPs) != 2 || s.PodIPs[1].IP != "fd00::1" {
		t.Errorf("addresses: %v, %v", s.HostIPs, s.PodIPs)
	}
	if s.QOSClass != v1.PodQOSBestEffort {
		t.Errorf("class %q", s.QOSClass)
	}
	if got := names(s.ContainerStatuses); !slices.Equal(got, []string{"a", "z"}) {
		t.Errorf("main containers are not by name: %v", got)
	}
	if got := names(s.InitContainerStatuses); !slices.Equal(got, []string{"y", "b"}) {
		t.Errorf("init containers are not in the order of the spec: %v", got)
	}
	c := s.ContainerStatuses[1]
	if c.ContainerID != "containerd://z2" || c.ImageID != "img@sha256:1" || c.RestartCount != 3 {
		t.Errorf("container: %+v", c)
	}
	last := c.LastTerminationState.Terminated
	if last == nil || last.ContainerID != "containerd://z1" || last.Reason != "OOMKilled" {
		t.Fatalf("the state before: %+v", last)
	}
	if want := strings.Repeat("x", 3071); last.Message != want {
		t.Errorf("a quarter of 12 KiB, cut at a whole character: %d bytes, want %d", len(last.Message), len(want))
	}
	spec.Spec.HostNetwork = true
	if s := Status(p, node, at); s.PodIP != "192.168.0.1" || len(s.PodIPs) != 2 {
		t.Errorf("a pod on the host's network has the host's addresses: %v", s.PodIPs)
	}
}

func names(list []v1.ContainerStatus) (out []string) {
	for _, c := range list {
		out = append(out, c.Name)
	}
	return out
}

// TestRestartIsCountedWhenItBegins: whoever sees the count go up finds the state
// of the new instance beside it, not that it waits and how the one before ended.
func TestRestartIsCountedWhenItBegins(t *testing.T) {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	spec := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "u1"}}
	spec.Spec.Containers = []v1.Container{{Name: "a", Image: "img"}}
	next := Container{ID: "a1", Name: "a", SandboxID: "s", Attempt: 1, Image: "img", CreatedAt: at.Add(1)}
	for state, want := range map[State]int32{Created: 0, Running: 1} {
		if next.State = state; state == Running {
			next.StartedAt = at.Add(2)
		}
		p := New(Wanted{At: at, Spec: spec}, View{
			Sandboxes: []Sandbox{{ID: "s", Ready: true, CreatedAt: at}},
			Containers: []Container{next,
				{ID: "a0", Name: "a", SandboxID: "s", State: Exited, ExitCode: 1, CreatedAt: at, StartedAt: at, FinishedAt: at}},
		}, nil)
		if c := Status(p, Node{}, at).ContainerStatuses[0]; c.RestartCount != want {
			t.Errorf("state %v: %d restarts, want %d: %+v", state, c.RestartCount, want, c)
		}
	}
}
