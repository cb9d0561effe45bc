package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// pair are two nodes of a cluster of their own, with networks, runtimes and
// agents of their own, and a namespace whose pods may be on either.
type pair struct {
	*joined         // the first node, in the common namespace
	second  *joined // the same of the second
}

// nodeGrace is how long the nodes of a pair may be silent.
const nodeGrace = 8 * time.Second

func newPair(t *testing.T) pair {
	t.Helper()
	p, err := lab.StartControlPlane(t, lab.ControlPlaneOptions{NodeGrace: nodeGrace})
	if err != nil {
		t.Fatal(err)
	}
	both := pair{joinedBed(t, p, lab.Containerd2), joinedBed(t, p, lab.Containerd2)}
	for _, j := range []*joined{both.joined, both.second} {
		j.Config = map[string]any{"nodeLeaseDurationSeconds": 4} // so it is renewed each second
		j.join()
	}
	both.ns, both.second.ns = "both", "both"
	both.makeNamespace(nil)
	return both
}

func (p pair) in(t *testing.T) pair { return pair{p.joined.in(t), p.second.in(t)} }

// TestTwoNodes: two agents in one cluster, which know of each other by the
// apiserver alone.
func TestTwoNodes(t *testing.T) {
	p := newPair(t)
	for _, part := range []struct {
		name string
		test func(pair)
	}{
		{"PodsReachEachOther", podsReachEachOther},
		{"DeploymentSpreads", deploymentSpreads},
		{"KilledAndBack", killedAndBack},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(p.in(t)) })
	}
	t.Run("NothingIsForbidden", func(t *testing.T) {
		p.in(t).refusedNothing()
		p.in(t).second.refusedNothing()
	})
}

// podsReachEachOther: by the addresses that the apiserver has of them.
func podsReachEachOther(p pair) {
	nodes := map[string]*joined{"first": p.joined, "second": p.second}
	pods := map[string]*v1.Pod{}
	for name, j := range nodes {
		p.create(podOf(name, onNode(j)+`
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "hostname > /tmp/name; httpd -p 8080 -h /tmp; trap exit TERM; sleep 100000 & wait"]
  readinessProbe: {httpGet: {port: 8080, path: /name}, periodSeconds: 1}`))
	}
	for name := range nodes {
		pods[name] = p.waitReady(name)
	}
	for from, to := range map[string]string{"first": "second", "second": "first"} {
		got := nodes[from].inside(pods[from], "wget", "-q", "-O", "-", "http://"+pods[to].Status.PodIP+":8080/name")
		if got != to {
			p.t.Errorf("from %s, the pod at %s is %q", from, pods[to].Status.PodIP, got)
		}
	}
	p.kubectl("delete", "pod", "first", "second")
}

// deploymentSpreads: pods that will not be on one node are on two, and a third
// is on none.
func deploymentSpreads(p pair) {
	const apart = "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: apart}}}]}}, "
	p.create(object("apps/v1", "Deployment", "apart",
		"{replicas: 2, selector: {matchLabels: {app: apart}}, template: "+template("apart", apart, forever(""))+"}"))
	p.rolledOut("deployment/apart")
	where := func() (nodes []string) {
		for _, pod := range p.podsOf("apart") {
			nodes = append(nodes, pod.Spec.NodeName)
		}
		slices.Sort(nodes)
		return nodes
	}
	want := []string{p.Node, p.second.Node}
	slices.Sort(want)
	if got := where(); !slices.Equal(got, want) {
		p.t.Errorf("the pods are on %v, want %v", got, want)
	}
	p.kubectl("scale", "deployment/apart", "--replicas=3")
	p.waitCount("apart", 3)
	if got := where(); !slices.Equal(got, append([]string{""}, want...)) {
		p.t.Errorf("the pods are on %v", got)
	}
	p.kubectl("delete", "deployment", "apart")
	p.waitCount("apart", 0)
}

// killedAndBack: a node whose agent is killed is taken for lost, and what ran
// there goes elsewhere, as with any node. Its pods run on. When the agent is back
// it ends just those that have no place any more.
func killedAndBack(p pair) {
	lost := p.second
	const unreachable = "tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute%s}]"
	for _, name := range []string{"kept", "deleted", "forced"} {
		p.create(spec(name, onNode(lost)+"\n"+fmt.Sprintf(unreachable, "")))
	}
	prefer := "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [" + lost.Node + "]}]}}]}}, "
	p.create(object("apps/v1", "Deployment", "moves", "{replicas: 1, selector: {matchLabels: {app: moves}}, template: "+
		template("moves", prefer+fmt.Sprintf(unreachable, ", tolerationSeconds: 1")+", ", forever(""))+"}"))
	p.rolledOut("deployment/moves")
	before := map[string]*v1.Pod{}
	for _, name := range []string{"kept", "deleted", "forced", p.podsOf("moves")[0].Name} {
		before[name] = p.waitReady(name)
	}
	moved := p.podsOf("moves")[0]
	if moved.Spec.NodeName != lost.Node {
		p.t.Fatalf("%s is on %s", moved.Name, moved.Spec.NodeName)
	}

	p.must(lost.Agent.Kill())
	killed := time.Now()
	lost.waitNode("is taken for lost", func(n *v1.Node) bool {
		ready := condition(n, v1.NodeReady)
		return ready.Status == v1.ConditionUnknown && ready.Reason == "NodeStatusUnknown"
	})
	p.t.Logf("taken for lost %v after the agent was killed", time.Since(killed).Round(100*time.Millisecond))
	p.waitPod("kept", "is not ready", func(pod *v1.Pod) bool { return !podReady(pod) })
	p.waitPod(moved.Name, "is to end", func(pod *v1.Pod) bool { return pod != nil && pod.DeletionTimestamp != nil })
	p.rolledOut("deployment/moves")
	if now := p.podsOf("moves"); len(now) != 1 || now[0].Spec.NodeName != p.Node {
		p.t.Errorf("the Deployment has %+v", now)
	}
	p.kubectl("delete", "pod", "deleted", "--wait=false")
	p.kubectl("delete", "pod", "forced", "--force", "--grace-period=0")
	p.waitGone("forced")
	for name, pod := range before {
		if len(lost.instances(string(pod.UID))) != 1 {
			p.t.Errorf("without its agent %s does not run", name)
		}
	}

	p.must(lost.Agent.Start())
	lost.waitNode("is Ready", nodeReady)
	for _, name := range []string{moved.Name, "deleted", "forced"} {
		p.waitGone(name)
		lost.gone(name, string(before[name].UID))
	}
	kept := p.waitReady("kept")
	if s := kept.Status.ContainerStatuses[0]; s.ContainerID != before["kept"].Status.ContainerStatuses[0].ContainerID || s.RestartCount != 0 {
		p.t.Errorf("the pod that was kept: %+v", s)
	}
	for _, w := range p.warnings("kept") {
		if strings.HasPrefix(w, "FailedMount") {
			p.t.Errorf("the pod that was kept: %s", w)
		}
	}
	lost.waitNode("has no taint", func(n *v1.Node) bool { return n != nil && len(n.Spec.Taints) == 0 })
}
