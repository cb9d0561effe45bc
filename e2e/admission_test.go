package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// placed is a pod that needs no scheduler to find this node.
func (j *joined) placed(name, more string) string {
	return spec(name, strings.TrimSpace("nodeName: "+j.Node+"\nautomountServiceAccountToken: false\n"+more))
}

// told waits for the pod's event of that reason.
func (j *joined) told(pod, reason, message string) {
	j.t.Helper()
	j.eventually("the event "+reason+" of "+pod, 30*time.Second, func() error {
		got := j.kubectl("get", "events", "--field-selector", "involvedObject.name="+pod+",reason="+reason, "-o", "jsonpath={.items[*].type} {.items[*].message}")
		if !strings.HasPrefix(got, "Warning ") || !strings.HasSuffix(got, message) {
			return fmt.Errorf("it says %q, want %q", got, message)
		}
		return nil
	})
}

// TestAdmission: what the node does not let in fails and says why, what it cannot
// do yet waits and says for what, and a critical pod finds room.
func TestAdmission(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	node := j.join()

	j.create(j.placed("elsewhere", "nodeSelector: {zone: nowhere}"))
	const why = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
	p := j.waitPod("elsewhere", "has failed", func(p *v1.Pod) bool { return p != nil && p.Status.Phase == v1.PodFailed })
	if s := p.Status; s.Reason != "NodeAffinity" || s.Message != "Pod was rejected: "+why || len(s.ContainerStatuses) > 0 {
		t.Errorf("refused: %s: %s; containers %v", s.Reason, s.Message, s.ContainerStatuses)
	}
	j.told("elsewhere", "NodeAffinity", why)

	j.create(podOf("claimant", fmt.Sprintf(`
nodeName: %s
automountServiceAccountToken: false
volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
containers: [{name: main, image: BUSYBOX, volumeMounts: [{name: data, mountPath: /data}]}]`, j.Node)))
	p = j.waitPod("claimant", "waits", func(p *v1.Pod) bool { return p != nil && len(p.Status.ContainerStatuses) > 0 })
	if w := p.Status.ContainerStatuses[0].State.Waiting; p.Status.Phase != v1.PodPending || w == nil || w.Reason != "ContainerCreating" {
		t.Errorf("a pod with a claim: %s, %+v", p.Status.Phase, w)
	}
	j.told("claimant", "FailedMount", "spec.volumes[0].persistentVolumeClaim: this kind of volume is not built yet")

	all := fmt.Sprintf("resources: {requests: {cpu: %q}}", node.Status.Allocatable.Cpu().String())
	j.create(podOf("greedy", fmt.Sprintf(`
nodeName: %s
automountServiceAccountToken: false
terminationGracePeriodSeconds: 2
containers: [{name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"], %s}]`, j.Node, all)))
	j.waitReady("greedy")
	j.create(podOf("critical", fmt.Sprintf(`
nodeName: %s
automountServiceAccountToken: false
priorityClassName: system-node-critical
terminationGracePeriodSeconds: 2
containers: [{name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"], %s}]`, j.Node, all)))
	j.waitReady("critical")
	p = j.waitPod("greedy", "has failed", func(p *v1.Pod) bool { return p != nil && p.Status.Phase == v1.PodFailed })
	if p.Status.Reason != "Preempting" || p.Status.Message != "Preempted in order to admit critical pod" {
		t.Errorf("the pod that made room: %s: %s", p.Status.Reason, p.Status.Message)
	}
	disrupted := false
	for _, c := range p.Status.Conditions {
		disrupted = disrupted || c.Type == v1.DisruptionTarget && c.Status == v1.ConditionTrue && c.Reason == v1.PodReasonTerminationByKubelet
	}
	if !disrupted {
		t.Errorf("its conditions: %+v", p.Status.Conditions)
	}
	j.told("greedy", "Preempting", "Preempted in order to admit critical pod")
}
