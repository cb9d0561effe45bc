//go:build peer

package e2e

import (
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// joinPeer makes a bed whose node is the real kubelet, to see what the agent
// is compared with, and that the bed is sound.
func joinPeer(t *testing.T) *joined {
	keepSysctls(t)
	j := joinedBed(t, cluster(t), lab.Containerd2)
	makeTopCgroups(t, j.CgroupRoot)
	j.Binary = filepath.Join(lab.ControlPlaneDir(), "kubelet")
	j.Args = []string{"--node-ip=" + j.Network.Address} // else it looks for a default route
	return j
}

// TestPeerJoins: the kubelet joins and runs what a Deployment wants.
func TestPeerJoins(t *testing.T) {
	j := joinPeer(t)
	j.join()
	j.kubectl("create", "deployment", "web", "--image="+lab.BusyboxImage, "--", "sleep", "100000")
	j.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	pods := j.kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName} {.items[*].status.phase}")
	if want := j.Node + " " + string(v1.PodRunning); pods != want {
		t.Errorf("the Deployment's pods: %q, want %q", pods, want)
	}
	j.refusedNothing()
}
