//go:build peer

package e2e

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPeerNode: but for its version, and what is not built yet, the Node that the
// agent makes is the kubelet's, and a swap of the two alters nothing else.
func TestPeerNode(t *testing.T) {
	j := joinPeer(t)
	kubelet := j.Binary
	j.join()
	settled := func(n *v1.Node) bool { return nodeReady(n) && len(n.Status.Images) > 0 && len(n.Spec.Taints) == 0 }
	theirs := saidOf(j.waitNode("is settled", settled))
	must := func(err error) {
		t.Helper()
		j.must(err)
	}
	must(j.Agent.Kill())
	must(j.client.CoreV1().Nodes().Delete(t.Context(), j.Node, metav1.DeleteOptions{}))
	j.Binary = binary
	must(j.Agent.Start())
	ours := saidOf(j.waitNode("is settled", settled))
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("the kubelet's Node (-) and the agent's (+):\n%s", diff)
	}
	// Back and forth, over the same object.
	for _, program := range []string{kubelet, binary} {
		must(j.Agent.Kill())
		j.Binary = program
		must(j.Agent.Start())
		isKubelet := func(n *v1.Node) bool { return !strings.Contains(n.Status.NodeInfo.KubeletVersion, "nodeagent") }
		n := j.waitNode("is the other program's", func(n *v1.Node) bool { return settled(n) && isKubelet(n) == (program == kubelet) })
		if diff := cmp.Diff(theirs, saidOf(n)); diff != "" {
			t.Errorf("after a swap to %s:\n%s", program, diff)
		}
	}
}

// saidOf is what a node's agent says of it, but for times and its version.
func saidOf(n *v1.Node) *v1.Node {
	out := &v1.Node{}
	out.Labels, out.Annotations, out.Spec = n.Labels, n.Annotations, n.Spec
	out.Status = *n.Status.DeepCopy()
	delete(out.Annotations, "node.alpha.kubernetes.io/ttl") // the controllers'
	out.Status.NodeInfo.KubeletVersion = ""
	out.Status.DeclaredFeatures = nil // those that are built
	for i := range out.Status.Conditions {
		out.Status.Conditions[i].LastHeartbeatTime, out.Status.Conditions[i].LastTransitionTime = metav1.Time{}, metav1.Time{}
	}
	return out
}
