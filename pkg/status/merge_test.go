package status

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

var rewrite = flag.Bool("rewrite", false, "write the patches into testdata")

// patching is a pod whose newest news are in testdata, as the body of a patch.
type patching struct {
	spec   func(*v1.Pod) // beside what every pod here has
	before func(*life)   // of which the apiserver was told; nil: of nothing
	there  func(*v1.Pod) // what others wrote since
	life   func(*life)   // what happened since
	node   pod.Node
	none   bool // there is nothing to say
}

var patches = map[string]patching{
	"pending": {life: upTo(pod.RunSandbox)},
	"sandbox": {before: upTo(pod.RunSandbox), life: upTo(pod.Create)},
	"running": {before: upTo(pod.RunSandbox), life: upTo("")},
	"at-once": {life: upTo("")},
	"settled": {before: upTo(""), none: true},
	"unready": {
		spec:   func(p *v1.Pod) { p.Spec.Containers[0].ReadinessProbe = &v1.Probe{} },
		before: func(l *life) { l.live(""); l.probed(pod.Success) },
		life:   func(l *life) { l.probed(pod.Fail) },
	},
	// What others have written is neither changed nor named.
	"others": {before: upTo(pod.RunSandbox), life: upTo(""), there: func(p *v1.Pod) {
		p.Status.NominatedNodeName = "n2"
		p.Status.ResourceClaimStatuses = []v1.PodResourceClaimStatus{{Name: "gpu", ResourceClaimName: new("gpu-1")}}
		mesh := v1.PodCondition{Type: "mesh.example/ready", Status: v1.ConditionFalse, LastProbeTime: metav1.NewTime(time.Unix(7, 0))}
		taint := v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: "DeletionByTaintManager"}
		p.Status.Conditions = append(append([]v1.PodCondition{mesh}, p.Status.Conditions...), taint)
	}},
	"crashed": {before: upTo(""), life: func(l *life) { l.dies("c", 1); l.live(""); l.dies("c", 1) }},
	"failed":  {spec: policy(v1.RestartPolicyNever), before: upTo(""), life: func(l *life) { l.dies("c", 3); l.live("") }},
	"deleted": {before: upTo(""), life: func(l *life) { l.ends(); l.live("") }},
	"ending":  {before: upTo(""), life: func(l *life) { l.ends(); l.live(pod.StopContainer) }, none: true},
	// Somebody called it failed while it runs: that stays, with their words, and
	// nobody calls it ready.
	"over": {before: upTo(pod.RunSandbox), life: upTo(""), there: func(p *v1.Pod) {
		p.Status.Phase, p.Status.Reason, p.Status.Message = v1.PodFailed, "NodeLost", "gone"
	}},
	"over-unknown": {before: upTo(pod.RunSandbox), none: true, there: func(p *v1.Pod) {
		p.Status.Phase, p.Status.ContainerStatuses[0].RestartCount = v1.PodSucceeded, 3
		p.Status.ContainerStatuses[0].State = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{Reason: "Completed"}}
	}},
	// What has ended for good does not come back to life.
	"illegal": {spec: policy(v1.RestartPolicyNever), before: upTo(pod.RunSandbox), life: upTo(""), there: func(p *v1.Pod) {
		p.Status.ContainerStatuses[0].State = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: 4, Reason: "Error"}}
	}},
	// The runtime has forgotten the container; the apiserver has not.
	"forgotten": {before: upTo(pod.RunSandbox), life: upTo(pod.Create), there: func(p *v1.Pod) {
		c := &p.Status.ContainerStatuses[0]
		c.RestartCount, c.ContainerID = 5, "containerd://old"
		c.State = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: 2, Reason: "Error", ContainerID: "containerd://old"}}
	}},
	"refused": {life: func(l *life) {
		l.apply(pod.Judged{At: time.Now(), Verdict: pod.Verdict{State: pod.Refused, Reason: "OutOfcpu", Message: "not enough cpu"}})
	}},
	// The node has one more address: a pod on its network has it too, behind the
	// one that it had.
	"addresses": {
		spec: func(p *v1.Pod) { p.Spec.HostNetwork = true }, before: upTo(""),
		node: pod.Node{HostIPs: []string{"fd00::9", "192.168.0.2"}, RuntimeName: "containerd"},
		there: func(p *v1.Pod) {
			p.Status.PodIP, p.Status.PodIPs = "fd00::1", []v1.PodIP{{IP: "fd00::1"}}
		},
	},
	// The apiserver was told of a newer spec already.
	"generation": {before: upTo(""), none: true, there: func(p *v1.Pod) {
		p.Status.ObservedGeneration = 4
		for i := range p.Status.Conditions {
			p.Status.Conditions[i].ObservedGeneration = 4
		}
	}},
	// Somebody overwrote what is ours.
	"drift": {before: upTo(""), there: func(p *v1.Pod) {
		p.Status.Phase, p.Status.PodIP, p.Status.PodIPs, p.Status.ContainerStatuses = v1.PodPending, "", nil, nil
		p.Status.Conditions = nil
	}},
}

func upTo(k pod.Kind) func(*life)             { return func(l *life) { l.live(k) } }
func policy(r v1.RestartPolicy) func(*v1.Pod) { return func(p *v1.Pod) { p.Spec.RestartPolicy = r } }

// TestPatches: each patch is the one in testdata, leaves fields alone that
// nobody here knows, and leaves nothing more to say.
func TestPatches(t *testing.T) {
	for name, c := range patches {
		t.Run(name, func(t *testing.T) { synctest.Test(t, c.run) })
	}
}

func (c patching) run(t *testing.T) {
	name := filepath.Join("testdata", filepath.Base(t.Name())+".json")
	there := bound("web", time.Now())
	if c.spec != nil {
		c.spec(there)
	}
	n := node
	if len(c.node.HostIPs) > 0 {
		n = c.node
	}
	l := born(there, time.Now(), nil)
	if c.before != nil {
		c.before(l)
		there.Status = merge(l.p, n, there, time.Now())
	}
	if c.there != nil {
		c.there(there)
	}
	time.Sleep(90 * time.Second)
	if c.life != nil {
		c.life(l)
	}
	next := merge(l.p, n, there, time.Now())
	if same := equality.Semantic.DeepEqual(next, there.Status); same != c.none {
		t.Fatalf("nothing to say: %v, want %v", same, c.none)
	}
	if c.none {
		return
	}
	patch, err := patchOf(there, next)
	if err != nil {
		t.Fatal(err)
	}
	after := patched(t, there, patch)
	time.Sleep(3 * time.Second)
	if again := merge(l.p, n, after, time.Now()); !equality.Semantic.DeepEqual(again, after.Status) {
		more, _ := patchOf(after, again)
		t.Errorf("after the patch there is still something to say: %s", more)
	}
	golden(t, name, patch)
}

// patched is the pod after the patch, at an apiserver of a later version.
func patched(t *testing.T, there *v1.Pod, patch []byte) *v1.Pod {
	var object map[string]any
	encoded, err := json.Marshal(there)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(encoded, &object); err != nil {
		t.Fatal(err)
	}
	object["status"].(map[string]any)["newField"] = "kept"
	encoded, _ = json.Marshal(object)
	merged, err := strategicpatch.StrategicMergePatch(encoded, patch, v1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(merged, []byte(`"newField":"kept"`)) {
		t.Errorf("an unknown field is gone: %s", merged)
	}
	after := &v1.Pod{}
	if err := json.Unmarshal(merged, after); err != nil {
		t.Fatal(err)
	}
	return after
}

func golden(t *testing.T, name string, patch []byte) {
	var got bytes.Buffer
	if err := json.Indent(&got, patch, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	if *rewrite {
		if err := os.WriteFile(name, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s\n--- want\n%s--- got\n%s", name, want, &got)
	}
}

// TestDisruption: it is told with the phase that ends the pod, not before, and
// what somebody else wrote of it is not touched otherwise.
func TestDisruption(t *testing.T) {
	now := time.Unix(1000, 5)
	ours := v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonTerminationByKubelet}
	theirs := v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: "PreemptionByScheduler", LastTransitionTime: metav1.NewTime(time.Unix(7, 0))}
	status := func(c ...v1.PodCondition) v1.PodStatus { return v1.PodStatus{Conditions: c} }
	for _, c := range []struct {
		name        string
		there, want v1.PodStatus
		ends        bool
		reason      string
	}{
		{"ends", status(), status(ours), true, ours.Reason},
		{"ends, theirs", status(theirs), status(ours), true, ours.Reason},
		{"not yet", status(), status(ours), false, ""},
		{"not yet, theirs", status(theirs), status(ours), false, theirs.Reason},
		{"only theirs", status(theirs), status(), true, theirs.Reason},
	} {
		got := mergeConditions(c.there, c.want, c.ends, now)
		switch {
		case c.reason == "" && len(got) == 0:
		case len(got) != 1 || got[0].Reason != c.reason || got[0].LastTransitionTime.IsZero():
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
