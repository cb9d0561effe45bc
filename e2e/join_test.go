package e2e

import (
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestJoins: the agent joins a cluster and runs what a Deployment wants, with no
// right but a node's.
func TestJoins(t *testing.T) {
	t.Parallel()
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	j.kubectl("create", "deployment", "web", "--image="+lab.BusyboxImage, "--", "sleep", "100000")
	j.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	pods := j.kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName} {.items[*].status.phase}")
	if want := j.Node + " " + string(v1.PodRunning); pods != want {
		t.Errorf("the Deployment's pods: %q, want %q", pods, want)
	}
	for _, line := range j.forbidden() {
		t.Errorf("forbidden: %s", line)
	}
}
