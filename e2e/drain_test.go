package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestDrain: what people do to a node and its pods with kubectl. The parts act
// on the node as a whole, one after another.
func TestDrain(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	for _, part := range []struct {
		name string
		test func(*joined)
	}{
		{"GetAndDescribe", getAndDescribe},
		{"Cordon", cordon},
		{"Drain", drain},
		{"TaintEvicts", taintEvicts},
		{"NothingIsForbidden", (*joined).refusedNothing},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(j.in(t)) })
	}
}

// awaitNodeEvent waits until people were told so of the node.
func (j *joined) awaitNodeEvent(reason string) {
	j.t.Helper()
	j.eventually("event "+reason, 30*time.Second, func() error {
		if events := j.nodeEvents(); !slices.Contains(events, reason) {
			return fmt.Errorf("events: %v", events)
		}
		return nil
	})
}

// noContainers fails if a container of the pod still runs.
func (j *joined) noContainers(p *v1.Pod) {
	j.t.Helper()
	if running := j.instances(string(p.UID)); len(running) > 0 {
		j.t.Errorf("%s is gone at the apiserver, and runs: %v", p.Name, running)
	}
}

// getAndDescribe: people see how the pod came to run, and what it is.
func getAndDescribe(j *joined) {
	j.create(sleeper("seen"))
	p := j.waitReady("seen")
	row := strings.Fields(j.kubectl("get", "pod", "seen", "-o", "wide", "--no-headers"))
	if len(row) < 7 || !slices.Equal(row[:4], []string{"seen", "1/1", "Running", "0"}) || row[5] != p.Status.PodIP || row[6] != j.Node {
		j.t.Errorf("get: %v", row)
	}
	j.eventually("its events tell of the start", 30*time.Second, func() error {
		text := j.kubectl("describe", "pod", "seen")
		_, events, _ := strings.Cut(text, "Events:")
		at := 0
		for _, reason := range []string{"Scheduled", "Pulled", "Created", "Started"} {
			i := strings.Index(events[at:], reason)
			if i < 0 {
				return fmt.Errorf("no %s in its place:\n%s", reason, text)
			}
			at += i
		}
		if !strings.Contains(events, "kubelet") {
			return fmt.Errorf("nobody knows whose they are:\n%s", text)
		}
		return nil
	})
	node := j.kubectl("describe", "node", j.Node)
	for _, want := range []string{"KubeletReady", "InternalIP", j.Network.Address, "containerd://", "seen"} {
		if !strings.Contains(node, want) {
			j.t.Errorf("describe node: no %s in\n%s", want, node)
		}
	}
	j.kubectl("delete", "pod", "seen") // waits for its end
	j.noContainers(p)
}

// cordon: the node tells that it takes no pods, and those that run stay.
func cordon(j *joined) {
	j.create(sleeper("stays"))
	before := j.waitReady("stays")
	j.kubectl("cordon", j.Node)
	j.awaitNodeEvent("NodeNotSchedulable")
	j.create(sleeper("waits"))
	j.waitPod("waits", "is not scheduled", func(p *v1.Pod) bool {
		return p != nil && slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool {
			return c.Type == v1.PodScheduled && c.Reason == v1.PodReasonUnschedulable
		})
	})
	j.kubectl("uncordon", j.Node)
	j.awaitNodeEvent("NodeSchedulable")
	j.waitReady("waits")
	if now := j.waitReady("stays"); now.Status.ContainerStatuses[0].ContainerID != before.Status.ContainerStatuses[0].ContainerID {
		j.t.Error("the pod that ran was started anew")
	}
	j.kubectl("delete", "pod", "stays", "waits")
}

// drain: what may go has ended when kubectl returns, by its own rules; what
// belongs to the node stays.
func drain(j *joined) {
	j.create(object("apps/v1", "Deployment", "moves", j.replicated("moves", 2, "", forever(""))))
	j.create(object("apps/v1", "DaemonSet", "belongs", "{selector: {matchLabels: {app: belongs}}, template: "+j.pinned("belongs", "", forever(""))+"}"))
	j.create(podOf("bare", `
terminationGracePeriodSeconds: 10
volumes: [{name: told, hostPath: {path: `+j.Agent.Dir+`}}]
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap 'sleep 2; echo gracefully > /told/end; exit 0' TERM; sleep 100000 & wait"]
  volumeMounts: [{name: told, mountPath: /told}]`))
	j.must(j.WritePod("static.yaml", []byte(strings.Replace(sleeper("static"), "name: static", "name: static, namespace: "+j.ns, 1))))
	j.rolledOut("deployment/moves")
	j.rolledOut("daemonset/belongs")
	bare, static := j.waitReady("bare"), j.waitReady("static-"+j.Node)
	gone, daemon := append(j.podsOf("moves"), *bare), j.podsOf("belongs")[0]

	j.kubectl("drain", j.Node, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=60s")
	for _, p := range gone {
		j.noContainers(&p)
	}
	if got := j.lines(j.Agent.Dir + "/end"); !slices.Equal(got, []string{"gracefully"}) {
		j.t.Errorf("the bare pod's last words: %v", got)
	}
	for _, p := range []*v1.Pod{&daemon, static} {
		now := j.waitReady(p.Name)
		if now.UID != p.UID || now.Status.ContainerStatuses[0].RestartCount != 0 {
			j.t.Errorf("%s did not stay", p.Name)
		}
	}
	for _, p := range j.podsOf("moves") {
		if p.Spec.NodeName != "" {
			j.t.Errorf("%s is on %s", p.Name, p.Spec.NodeName)
		}
	}
	j.kubectl("uncordon", j.Node)
	j.rolledOut("deployment/moves")
	j.must(j.RemovePod("static.yaml"))
	j.kubectl("delete", "deployment,daemonset", "--all")
	j.waitCount("moves", 0)
	j.waitCount("belongs", 0)
	j.waitGone(static.Name)
}

// taintEvicts: pods that don't tolerate a NoExecute taint end at once, those
// that do so for a time after that, others and those of the node itself stay.
func taintEvicts(j *joined) {
	tolerating := func(name, tolerations string) string {
		return spec(name, "tolerations: ["+tolerations+"]")
	}
	j.must(j.WritePod("static.yaml", []byte(strings.Replace(sleeper("static"), "name: static", "name: static, namespace: "+j.ns, 1))))
	j.create(tolerating("never", ""))
	j.create(tolerating("while", "{key: example.com/leave, operator: Exists, effect: NoExecute, tolerationSeconds: 4}"))
	j.create(tolerating("always", "{key: example.com/leave, operator: Exists, effect: NoExecute}"))
	static := j.waitReady("static-" + j.Node)
	never, while, always := j.waitReady("never"), j.waitReady("while"), j.waitReady("always")
	evicted := j.evictions("never", "while")

	began := time.Now()
	j.kubectl("taint", "node", j.Node, "example.com/leave=now:NoExecute")
	j.waitGone("never")
	j.noContainers(never)
	if took := time.Since(began); took > 15*time.Second {
		j.t.Errorf("what tolerates nothing was gone after %v", took)
	}
	j.waitGone("while")
	j.noContainers(while)
	if took := time.Since(began); took < 4*time.Second {
		j.t.Errorf("what tolerates it for 4 s was gone after %v", took)
	}
	for name, p := range evicted() {
		if !slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool {
			return c.Type == v1.DisruptionTarget && c.Status == v1.ConditionTrue && c.Reason == "DeletionByTaintManager"
		}) {
			j.t.Errorf("the last status of %s: %+v", name, p.Status)
		}
	}
	for _, p := range []*v1.Pod{always, static} {
		if now := j.waitReady(p.Name); now.UID != p.UID || now.Status.ContainerStatuses[0].RestartCount != 0 {
			j.t.Errorf("%s did not stay", p.Name)
		}
	}
	j.kubectl("taint", "node", j.Node, "example.com/leave-")
	j.must(j.RemovePod("static.yaml"))
	j.kubectl("delete", "pod", "always")
	j.waitGone(static.Name)
}

// evictions watches pods, which are to go; the function that it returns waits
// for that and has what they were last.
func (j *joined) evictions(names ...string) func() map[string]*v1.Pod {
	j.t.Helper()
	w, err := j.client.CoreV1().Pods(j.ns).Watch(j.t.Context(), metav1.ListOptions{})
	j.must(err)
	return func() map[string]*v1.Pod {
		defer w.Stop()
		last := map[string]*v1.Pod{}
		timeout := time.After(30 * time.Second)
		for len(last) < len(names) {
			select {
			case e, open := <-w.ResultChan():
				if !open {
					j.t.Fatalf("the watch ended; of %v there went %v", names, last)
				}
				if p, ok := e.Object.(*v1.Pod); ok && e.Type == watch.Deleted && slices.Contains(names, p.Name) {
					last[p.Name] = p
				}
			case <-timeout:
				j.t.Fatalf("of %v there went only %v", names, last)
			}
		}
		return last
	}
}
