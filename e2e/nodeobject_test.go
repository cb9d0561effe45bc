package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

func (j *joined) lease() (*coordinationv1.Lease, error) {
	return j.client.CoordinationV1().Leases(v1.NamespaceNodeLease).Get(j.t.Context(), j.Node, metav1.GetOptions{})
}

func condition(n *v1.Node, kind v1.NodeConditionType) v1.NodeCondition {
	if n != nil {
		for _, c := range n.Status.Conditions {
			if c.Type == kind {
				return c
			}
		}
	}
	return v1.NodeCondition{}
}

// nodeEvents are the reasons of the events about the node.
func (j *joined) nodeEvents() []string {
	j.t.Helper()
	list, err := j.client.CoreV1().Events("default").List(j.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=Node,involvedObject.name=" + j.Node})
	j.must(err)
	var out []string
	for _, e := range list.Items {
		out = append(out, e.Reason)
	}
	return out
}

// TestNodeJoins: a node that was never there is one of the cluster, with a lease,
// what its machine and runtime are, and events.
func TestNodeJoins(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.Config = map[string]any{"registerWithTaints": []v1.Taint{{Key: "dedicated", Value: "test", Effect: v1.TaintEffectPreferNoSchedule}}}
	j.Args = []string{"--node-labels=example.com/rack=r1", "--provider-id=lab://" + j.Node}
	began := time.Now()
	n := j.join()
	t.Logf("Ready %v after the agent's start", time.Since(began).Round(time.Millisecond))

	if n.Labels["example.com/rack"] != "r1" || n.Labels[v1.LabelHostname] != j.Node || n.Spec.ProviderID != "lab://"+j.Node {
		t.Errorf("labels %v, provider %s", n.Labels, n.Spec.ProviderID)
	}
	if !slices.ContainsFunc(n.Spec.Taints, func(taint v1.Taint) bool { return taint.Key == "dedicated" }) {
		t.Errorf("taints: %v", n.Spec.Taints)
	}
	if want := []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: j.Network.Address}, {Type: v1.NodeHostName, Address: j.Node}}; !slices.Equal(n.Status.Addresses, want) {
		t.Errorf("addresses: %v, want %v", n.Status.Addresses, want)
	}
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage, v1.ResourcePods} {
		capacity, allocatable := n.Status.Capacity[name], n.Status.Allocatable[name]
		if capacity.IsZero() || allocatable.IsZero() || allocatable.Cmp(capacity) > 0 {
			t.Errorf("%s: capacity %v, allocatable %v", name, &capacity, &allocatable)
		}
	}
	info := n.Status.NodeInfo
	if !strings.HasPrefix(info.ContainerRuntimeVersion, "containerd://") || info.KernelVersion == "" || info.BootID == "" || info.OSImage == "" || !strings.Contains(info.KubeletVersion, "nodeagent") {
		t.Errorf("nodeInfo: %+v", info)
	}
	if !slices.ContainsFunc(n.Status.RuntimeHandlers, func(h v1.NodeRuntimeHandler) bool { return h.Name == "runc" }) {
		t.Errorf("runtimeHandlers: %v", n.Status.RuntimeHandlers)
	}
	j.waitNode("has images", func(n *v1.Node) bool { return n != nil && len(n.Status.Images) > 0 })
	j.eventually("the lease is held", 30*time.Second, func() error {
		l, err := j.lease()
		if err == nil && (len(l.OwnerReferences) != 1 || l.OwnerReferences[0].UID != n.UID) {
			err = fmt.Errorf("owned by %v", l.OwnerReferences)
		}
		return err
	})
	for _, reason := range []string{"Starting", "NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"} {
		j.eventually("event "+reason, 30*time.Second, func() error {
			if events := j.nodeEvents(); !slices.Contains(events, reason) {
				return fmt.Errorf("events: %v", events)
			}
			return nil
		})
	}
	j.refusedNothing()
}

// TestNodeWithoutNetwork: a node whose network is not configured says so with the
// runtime's words, and is Ready within seconds when it is.
func TestNodeWithoutNetwork(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	lists, err := filepath.Glob(filepath.Join(j.Runtime.NetDir(), "*"))
	j.must(err)
	kept := map[string][]byte{}
	for _, name := range lists {
		data, err := os.ReadFile(name)
		j.must(err)
		kept[name] = data
		j.must(os.Remove(name))
	}
	j.must(j.Agent.Start())
	n := j.waitNode("says that its network is missing", func(n *v1.Node) bool {
		return strings.Contains(condition(n, v1.NodeReady).Message, "NetworkReady=false")
	})
	ready := condition(n, v1.NodeReady)
	want := "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"
	if ready.Status != v1.ConditionFalse || ready.Reason != "KubeletNotReady" || ready.Message != want {
		t.Errorf("Ready is %s, %s: %s; want %s", ready.Status, ready.Reason, ready.Message, want)
	}
	for name, data := range kept {
		j.must(os.WriteFile(name, data, 0o644))
	}
	began := time.Now()
	j.waitNode("is Ready", nodeReady)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("Ready %v after the network was", took)
	}
}

// TestNodeIsRegisteredAgain: a Node that is deleted while the agent runs is there
// again at once, with a lease of its own.
func TestNodeIsRegisteredAgain(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	old := j.join()
	j.must(j.client.CoreV1().Nodes().Delete(t.Context(), j.Node, metav1.DeleteOptions{}))
	n := j.waitNode("is back", func(n *v1.Node) bool { return n != nil && n.UID != old.UID && nodeReady(n) })
	j.eventually("the lease is the new Node's", 30*time.Second, func() error {
		l, err := j.lease()
		if err == nil && (len(l.OwnerReferences) != 1 || l.OwnerReferences[0].UID != n.UID) {
			err = fmt.Errorf("owned by %v", l.OwnerReferences)
		}
		return err
	})
	j.refusedNothing()
}

// TestNodeIsNotRegistered: with registerNode false the agent makes no Node, and
// reports as soon as somebody made it.
func TestNodeIsNotRegistered(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.Config = map[string]any{"registerNode": false}
	j.must(j.Agent.Start())
	asked := func(r lab.Request) bool {
		return r.User == "system:node:"+j.Node && strings.HasPrefix(r.Resource, "nodes")
	}
	j.eventually("the agent looks for its Node", 30*time.Second, func() error {
		if all, err := j.plane.Requests(asked); err != nil || len(all) == 0 {
			return fmt.Errorf("no request yet (%v)", err)
		}
		return nil
	})
	_, err := j.client.CoreV1().Nodes().Create(t.Context(), &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: j.Node}}, metav1.CreateOptions{})
	j.must(err) // it is not there
	j.waitNode("is Ready", nodeReady)
	if _, err := j.lease(); err != nil {
		j.eventually("the lease is held", 30*time.Second, func() error { _, err := j.lease(); return err })
	}
}

// TestLeaseOverFrozenPath: after a time in which the way to the apiserver silently
// swallowed everything, lease and status go on within 15 seconds.
func TestLeaseOverFrozenPath(t *testing.T) {
	t.Parallel()
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	j.eventually("the lease is held", 30*time.Second, func() error { _, err := j.lease(); return err })
	j.must(j.plane.BlackHole(j.Lab, true))
	time.Sleep(30 * time.Second) // the agent must have written into the hole
	before, err := j.lease()
	j.must(err)
	if age := time.Since(before.Spec.RenewTime.Time); age < 15*time.Second {
		t.Fatalf("the lease was renewed %v ago: nothing is swallowed", age)
	}
	j.must(j.plane.BlackHole(j.Lab, false))
	back := time.Now()
	j.eventually("the lease is renewed", 30*time.Second, func() error {
		l, err := j.lease()
		if err == nil && !l.Spec.RenewTime.After(back) {
			err = fmt.Errorf("renewed at %v", l.Spec.RenewTime)
		}
		return err
	})
	took := time.Since(back)
	t.Logf("renewed %v after the path was back", took.Round(10*time.Millisecond))
	if took > 15*time.Second {
		t.Errorf("renewed %v after the path was back", took)
	}
	j.waitNode("is Ready", nodeReady)
}
