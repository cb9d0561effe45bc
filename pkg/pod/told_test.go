package pod

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTold: what the runtime has forgotten and no record says is taken from what
// the apiserver was told before.
func TestTold(t *testing.T) {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	exited := func(code int32) *v1.ContainerStateTerminated {
		return &v1.ContainerStateTerminated{ExitCode: code, Reason: "Completed", ContainerID: "containerd://a1",
			StartedAt: metav1.NewTime(at), FinishedAt: metav1.NewTime(at)}
	}
	ran := v1.ContainerStatus{Name: "a", ContainerID: "containerd://a1", RestartCount: 4}
	running, ended, waiting, made := ran, ran, ran, ran
	running.State.Running = &v1.ContainerStateRunning{}
	ended.State.Terminated = exited(0)
	waiting.State.Waiting, waiting.LastTerminationState.Terminated = &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}, exited(2)
	made.State.Waiting, made.RestartCount = &v1.ContainerStateWaiting{Reason: "ContainerCreating"}, 0

	for _, c := range []struct {
		name     string
		policy   v1.RestartPolicy
		told     v1.ContainerStatus
		phase    v1.PodPhase
		code     int32
		restarts int32
	}{
		{"a job that had ended", v1.RestartPolicyNever, ended, v1.PodSucceeded, 0, 4},
		{"a job that was running is not run twice", v1.RestartPolicyNever, running, v1.PodFailed, lostCode, 4},
		{"a job that was never run", v1.RestartPolicyNever, made, v1.PodPending, -1, 0},
		{"a service that was running", v1.RestartPolicyAlways, running, v1.PodRunning, lostCode, 4},
		{"a service that waited for its restart", v1.RestartPolicyAlways, waiting, v1.PodRunning, 2, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}, Spec: v1.PodSpec{RestartPolicy: c.policy,
				Containers: []v1.Container{{Name: "a", Image: "img"}}}}
			told := Told(v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{c.told}})
			p := New(Wanted{At: at, Spec: spec, Told: told}, View{}, nil)
			mem := p.Containers["a"]
			if p.Phase != c.phase || mem.Restarts != c.restarts {
				t.Errorf("phase %s with %d restarts, want %s with %d", p.Phase, mem.Restarts, c.phase, c.restarts)
			}
			if c.code >= 0 && (mem.Known == nil || mem.Known.ExitCode != c.code) || c.code < 0 && mem.Known != nil {
				t.Errorf("known: %+v", mem.Known)
			}
		})
	}
}

// TestToldReady: an instance that was called ready stays so until its probe
// says otherwise, though no record was written.
func TestToldReady(t *testing.T) {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	spec := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}, Spec: v1.PodSpec{
		Containers: []v1.Container{{Name: "a", Image: "img", ReadinessProbe: &v1.Probe{}, StartupProbe: &v1.Probe{}}}}}
	told := func(id string) *v1.PodStatus {
		return Told(v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{{Name: "a", ContainerID: "containerd://" + id, Ready: true, Started: new(true),
			State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}}}})
	}
	view := View{Sandboxes: []Sandbox{{ID: "s", Ready: true, IPs: []string{"10.0.0.1"}}},
		Containers: []Container{{ID: "a1", Name: "a", SandboxID: "s", State: Running, StartedAt: at}}}
	for id, want := range map[string]bool{"a1": true, "a0": false} {
		s := Status(New(Wanted{At: at, Spec: spec, Told: told(id)}, view, nil), Node{}, at).ContainerStatuses[0]
		if s.Ready != want || *s.Started != want {
			t.Errorf("instance %s was told ready: %+v", id, s)
		}
	}
}
