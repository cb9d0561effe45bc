package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// writes are what this node has asked to be changed about a pod so far.
func (j *joined) writes(name string) []lab.Request {
	j.t.Helper()
	// A request is in the log a moment after its answer.
	<-time.After(300 * time.Millisecond)
	found, err := j.plane.Requests(func(r lab.Request) bool {
		return r.User == "system:node:"+j.Node && r.Write() && (r.Resource == "pods/status" || r.Resource == "pods") && r.Name == name
	})
	j.must(err)
	return found
}

func (j *joined) list(requests []lab.Request) {
	j.t.Helper()
	for _, r := range requests {
		j.t.Logf("%s %d %s %s %s", r.Time.Format("05.000"), r.Code, r.Verb, r.URI, r.Body)
	}
}

// TestClusterStatus: how the apiserver is told of pods.
func TestClusterStatus(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	for name, test := range map[string]func(*joined){
		"FewWrites":     fewWrites,
		"Burst":         fewWritesInBurst,
		"ForceDeletion": forceDeletion,
		"Drift":         drift,
		"Mirror":        mirror,
		"Restarted":     quietRestarts,
	} {
		t.Run(name, func(t *testing.T) {
			test(j.in(t))
		})
	}
}

// fewWrites: a start is told in two writes at most, a deletion in one and the
// deletion itself; and nothing is written while nothing changes.
func fewWrites(j *joined) {
	j.create(sleeper("few"))
	j.waitReady("few")
	<-time.After(3 * time.Second)
	started := j.writes("few")
	if len(started) > 2 || len(started) == 0 {
		j.list(started)
		j.t.Errorf("%d writes for a start", len(started))
	}
	j.kubectl("delete", "pod", "few", "--wait=false")
	j.waitGone("few")
	all := j.writes("few")
	if ended := len(all) - len(started); ended > 3 {
		j.list(all[len(started):])
		j.t.Errorf("%d writes for an end", ended)
	}
	for _, r := range all {
		if r.Code >= 300 {
			j.t.Errorf("refused: %d %s %s %s", r.Code, r.Verb, r.URI, r.Body)
		}
	}
	if last := all[len(all)-1]; last.Verb != "delete" {
		j.t.Errorf("the last word is %s %s", last.Verb, last.URI)
	}
}

// fewWritesInBurst: no more are needed when many pods start at once.
func fewWritesInBurst(j *joined) {
	const pods = 12
	var all string
	for i := range pods {
		all += sleeper(fmt.Sprintf("burst%d", i)) + "\n---\n"
	}
	j.create(all)
	for i := range pods {
		j.waitReady(fmt.Sprintf("burst%d", i))
	}
	<-time.After(2 * time.Second)
	for i := range pods {
		if w := j.writes(fmt.Sprintf("burst%d", i)); len(w) > 2 {
			j.list(w)
			j.t.Errorf("burst%d: %d writes", i, len(w))
		}
	}
}

// forceDeletion: nothing is left of a pod that vanished.
func forceDeletion(j *joined) {
	j.create(sleeper("forced"))
	p := j.waitReady("forced")
	j.kubectl("delete", "pod", "forced", "--force", "--grace-period=0")
	j.waitGone("forced")
	j.gone("forced", string(p.UID))
	before := len(j.writes("forced"))
	<-time.After(time.Second)
	if after := j.writes("forced"); len(after) != before {
		j.list(after)
		j.t.Errorf("%d writes about a pod that is gone", len(after)-before)
	}
}

// drift: what somebody else makes of our fields is set right when it is seen,
// what is theirs stays.
func drift(j *joined) {
	j.create(sleeper("drift"))
	j.waitReady("drift")
	patch := `{"status":{"phase":"Pending","containerStatuses":[],"conditions":[{"type":"Ready","status":"False"},{"type":"example.com/theirs","status":"True"}]}}`
	j.kubectl("patch", "pod", "drift", "--subresource=status", "-p", patch)
	p := j.waitPod("drift", "is set right", func(p *v1.Pod) bool {
		return podReady(p) && p.Status.Phase == v1.PodRunning && len(p.Status.ContainerStatuses) == 1
	})
	var theirs bool
	for _, c := range p.Status.Conditions {
		theirs = theirs || c.Type == "example.com/theirs"
	}
	if !theirs {
		j.t.Errorf("another's condition is gone: %+v", p.Status.Conditions)
	}
}

// mirror: a static pod has an image with its status, which comes back when it is
// deleted, is replaced with another definition, and goes with the pod, also if the agent
// was not there.
func mirror(j *joined) {
	manifest := func(label string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: shown, namespace: " + j.ns + ", labels: {v: " + label + "}}\nspec:\n" +
			"  containers:\n  - {name: main, image: " + lab.BusyboxImage + ", command: [sh, -c, \"trap exit TERM; sleep 100000 & wait\"]}\n"
	}
	name := "shown-" + j.Node
	j.apply("shown", manifest("one"))
	p := j.waitReady(name)
	n, err := j.client.CoreV1().Nodes().Get(j.t.Context(), j.Node, metav1.GetOptions{})
	j.must(err)
	if o := p.OwnerReferences; len(o) != 1 || o[0].UID != n.UID || p.Annotations[v1.MirrorPodAnnotationKey] == "" {
		j.t.Errorf("metadata: %+v", p.ObjectMeta)
	}
	j.kubectl("delete", "pod", name, "--wait=false")
	again := j.waitPod(name, "is there again", func(now *v1.Pod) bool { return podReady(now) && now.UID != p.UID })
	if again.Status.ContainerStatuses[0].ContainerID != p.Status.ContainerStatuses[0].ContainerID {
		j.t.Error("the static pod was started anew")
	}
	j.apply("shown", manifest("two"))
	j.waitPod(name, "is of the new definition", func(p *v1.Pod) bool { return podReady(p) && p.Labels["v"] == "two" })
	j.remove("shown")
	j.waitGone(name)

	j.apply("shown", manifest("three"))
	j.waitReady(name)
	j.must(j.Agent.Kill())
	j.remove("shown")
	j.must(j.Agent.Start())
	j.waitGone(name)
}

// quietRestarts: an agent that is killed again and again writes nothing about a
// ready pod.
func quietRestarts(j *joined) {
	j.create(sleeper("probed", "    readinessProbe: {exec: {command: [\"true\"]}, periodSeconds: 1}"))
	p := j.waitReady("probed")
	before := len(j.writes("probed"))
	for range 5 {
		j.must(j.Agent.Kill())
		j.must(j.Agent.Start())
		j.eventually("the agent has the pod", 30*time.Second, func() error {
			if j.pod("probed") == nil {
				return fmt.Errorf("it does not")
			}
			return nil
		})
		<-time.After(1500 * time.Millisecond)
	}
	after := j.writes("probed")
	for _, r := range after[before:] {
		var patch v1.Pod
		j.must(json.Unmarshal(r.Body, &patch))
		j.t.Errorf("written: %s", r.Body)
	}
	if now := j.waitReady("probed"); now.Status.ContainerStatuses[0].ContainerID != p.Status.ContainerStatuses[0].ContainerID {
		j.t.Error("the container was restarted")
	}
}

// TestClusterOutage: pods go on while the apiserver is away, and soon after its
// return it knows how they are.
func TestClusterOutage(t *testing.T) {
	t.Parallel()
	p, err := lab.StartControlPlane(t, lab.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	j := joinedBed(t, p, lab.Containerd2)
	j.join()
	const pods = 8
	ids := map[string]string{}
	for i := range pods {
		j.create(sleeper(fmt.Sprintf("p%d", i)))
	}
	for i := range pods {
		name := fmt.Sprintf("p%d", i)
		ids[name] = j.instances(string(j.waitReady(name).UID))["main"]
	}
	j.must(p.StopAPIServer())
	for i := range pods / 2 {
		j.exec(ids[fmt.Sprintf("p%d", i)], "kill", "1")
	}
	<-time.After(20 * time.Second)
	j.must(p.StartAPIServer())
	back := time.Now()
	for i := range pods {
		name, restarts := fmt.Sprintf("p%d", i), int32(0)
		if i < pods/2 {
			restarts = 1
		}
		j.waitPod(name, "is told of", func(p *v1.Pod) bool {
			return podReady(p) && p.Status.ContainerStatuses[0].RestartCount == restarts
		})
	}
	if took := time.Since(back); took > 12*time.Second {
		t.Errorf("all was told %s after the apiserver's return", took)
	} else {
		t.Logf("all was told %s after the apiserver's return", took)
	}
}
