package e2e

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestStatusOutlivesAgent: the restart count and how the instance before ended
// are the same after the agent was killed.
func TestStatusOutlivesAgent(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("counted", podOf("counted", `
volumes: [{name: e, emptyDir: {}}]
containers:
- name: a
  image: BUSYBOX
  volumeMounts: [{name: e, mountPath: /e}]
  command: [sh, -c, "test -e /e/x || { touch /e/x; echo why > /dev/termination-log; exit 7; }; trap exit TERM; sleep 1000 & wait"]`))
	again := func(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.State.Running != nil }
	_, before := b.await("counted", "a", "runs again", again)
	b.restart()
	_, after := b.await("counted", "a", "is known again", again)
	for _, s := range []v1.ContainerStatus{before, after} {
		if last := s.LastTerminationState.Terminated; last == nil || last.ExitCode != 7 || last.Message != "why\n" {
			t.Errorf("last state %+v", last)
		}
	}
	if before.ContainerID != after.ContainerID {
		t.Errorf("instance %s became %s", before.ContainerID, after.ContainerID)
	}
}

// TestMessagesShareBound: termination messages of a pod are 12 KiB together.
func TestMessagesShareBound(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	var containers strings.Builder
	for i := range 4 {
		fmt.Fprintf(&containers, "\n- {name: c%d, image: BUSYBOX, command: [sh, -c, \"head -c 9000 /dev/zero | tr '\\\\0' x > /dev/termination-log\"]}", i)
	}
	b.apply("wordy", podOf("wordy", "restartPolicy: Never\ncontainers:"+containers.String()))
	p := b.phase("wordy", "Succeeded")
	for _, s := range p.Status.ContainerStatuses {
		if got := len(s.State.Terminated.Message); got != 12<<10/4 {
			t.Errorf("%s: %d bytes, want a quarter of 12 KiB", s.Name, got)
		}
	}
}
