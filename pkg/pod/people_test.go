package pod

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestLogOf: which instance's log people see, or why none.
func TestLogOf(t *testing.T) {
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	running := &Container{ID: "b", Name: "c", State: Running, Attempt: 1}
	exited := &Container{ID: "a", Name: "c", State: Exited, ExitCode: 1, FinishedAt: now}
	created := &Container{ID: "b", Name: "c", State: Created, Attempt: 1}
	for name, c := range map[string]struct {
		memory   Memory
		policy   v1.RestartPolicy
		refused  bool
		previous bool
		want     string
	}{
		"Running":         {memory: Memory{Known: running, Last: exited, Instance: Instance{ID: "b", PostStart: HookDone}}, want: "b"},
		"Before":          {memory: Memory{Known: running, Last: exited, Instance: Instance{ID: "b", PostStart: HookDone}}, previous: true, want: "a"},
		"NoneBefore":      {memory: Memory{Known: running}, previous: true, want: `previous terminated container "c" in pod "p" not found`},
		"HookRuns":        {memory: Memory{Known: running, Instance: Instance{ID: "b"}}, want: "b"},
		"Ended":           {memory: Memory{Known: exited}, policy: v1.RestartPolicyNever, want: "a"},
		"EndedNoneBefore": {memory: Memory{Known: exited}, policy: v1.RestartPolicyNever, previous: true, want: `previous terminated container "c" in pod "p" not found`},
		"BacksOff":        {memory: Memory{Known: exited, Backoff: Backoff{Delay: time.Minute}}, want: "a"},
		"BacksOffBefore":  {memory: Memory{Known: exited, Backoff: Backoff{Delay: time.Minute}}, previous: true, want: "a"},
		"NextIsMade":      {memory: Memory{Known: created, Last: exited}, want: "a"},
		"FirstIsMade":     {memory: Memory{Known: created}, want: `container "c" in pod "p" is waiting to start: ContainerCreating`},
		"Nothing":         {want: `container "c" in pod "p" is waiting to start: ContainerCreating`},
		"PullFails":       {memory: Memory{Failure: &Failure{Reason: "ErrImagePull"}}, want: `container "c" in pod "p" is waiting to start: image can't be pulled`},
		"PullBacksOff": {memory: Memory{Failure: &Failure{Reason: "ErrImagePull", Tries: 2, Retry: now.Add(time.Minute)}},
			want: `container "c" in pod "p" is waiting to start: trying and failing to pull image`},
		"Refused": {refused: true, want: `container "c" in pod "p" is not available`},
	} {
		p := Pod{Spec: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n"},
			Spec: v1.PodSpec{RestartPolicy: c.policy, Containers: []v1.Container{{Name: "c"}}}},
			Containers: map[string]Memory{"c": c.memory}, Verdict: Verdict{State: Granted}}
		if c.policy == "" {
			p.Spec.Spec.RestartPolicy = v1.RestartPolicyAlways
		}
		if c.refused {
			p.Verdict.State = Refused
		}
		got := ""
		if k, err := LogOf(p, Node{RuntimeName: "r"}, now, "c", c.previous); err != nil {
			got = err.Error()
		} else {
			got = k.ID
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
