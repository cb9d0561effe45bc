package ledger

import (
	"reflect"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// of is a pod of one container with a memory limit above its request.
func of(uid types.UID, cpu, memory string) *v1.Pod {
	p := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "main"}}}}
	p.UID = uid
	p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: resources(cpu, memory),
		Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("8Gi")}}
	return p
}

func TestResize(t *testing.T) {
	guaranteed := of("a", "1", "256Mi")
	guaranteed.Spec.Containers[0].Resources.Limits = resources("1", "256Mi")
	limitless := of("a", "1", "256Mi")
	limitless.Spec.Containers[0].Resources.Limits = nil
	disk := of("a", "1", "256Mi")
	disk.Spec.Containers[0].Resources.Requests[v1.ResourceEphemeralStorage] = resource.MustParse("1Gi")
	level := of("a", "1", "256Mi")
	level.Spec.Resources = &v1.ResourceRequirements{Requests: resources("1", "256Mi")}
	for _, tt := range []struct {
		name, reason, message string
		desired               *v1.Pod
		swap                  bool
	}{
		{name: "more, and there is room", desired: of("a", "1500m", "512Mi")},
		{name: "less", desired: of("a", "100m", "1Mi")},
		{name: "the same", desired: of("a", "1", "256Mi")},
		{name: "more than is left", desired: of("a", "1501m", "256Mi"), reason: "Deferred",
			message: "Node didn't have enough resource: cpu, requested: 1501, used: 500, capacity: 2000"},
		{name: "more memory than is left", desired: of("a", "1", "513Mi"), reason: "Deferred",
			message: "Node didn't have enough resource: memory, requested: 537919488, used: 536870912, capacity: 1073741824"},
		{name: "more than there is", desired: of("a", "2001m", "256Mi"), reason: "Infeasible",
			message: "Node didn't have enough capacity: cpu, requested: 2001, capacity: 2000"},
		{name: "another class", desired: guaranteed, reason: "Infeasible", message: "Pod QOS Class may not change as a result of resizing"},
		{name: "no limit any more", desired: limitless, reason: "Infeasible", message: "container main: resource limits cannot be removed: memory"},
		{name: "another resource", desired: disk, reason: "Infeasible", message: "container main: only cpu and memory resources are mutable"},
		{name: "resources of the pod", desired: level, reason: "Infeasible", message: "pod-level resources cannot be added or removed"},
		{name: "memory where it may swap", desired: of("a", "1", "128Mi"), swap: true, reason: "Infeasible",
			message: "In-place resize of containers with swap is not supported."},
		{name: "cpu where it may swap", desired: of("a", "1500m", "256Mi"), swap: true},
	} {
		allocated := of("a", "1", "256Mi")
		before := Enter(small(), ClaimOf(allocated))
		before.Host.Swap = tt.swap
		after, v := Resize(before, ResizingOf(allocated, tt.desired, time.Time{}))
		if v.Reason != tt.reason || v.Message != tt.message || (v.State == pod.Granted) != (tt.reason == "") {
			t.Errorf("%s: %+v", tt.name, v)
		}
		if waits := len(after.Pending) == 1; waits != (v.State == pod.Waiting) {
			t.Errorf("%s: pending %+v", tt.name, after.Pending)
		}
		before.Host.Swap = false
		if !reflect.DeepEqual(before, Enter(small(), ClaimOf(allocated))) {
			t.Errorf("%s: the ledger given was altered", tt.name)
		}
	}
}

// TestRoomIsKept: until what a pod gives up is on disk, nobody else gets it.
func TestRoomIsKept(t *testing.T) {
	l := Enter(Ledger{Allocatable: resources("2", "1Gi")}, ClaimOf(of("a", "2", "1Mi")))
	l, _ = Resize(l, ResizingOf(of("a", "2", "1Mi"), of("a", "1", "2Mi"), time.Time{}))
	if _, v := Admit(l, ClaimOf(of("b", "1", "1Mi"))); v.State != pod.Refused {
		t.Errorf("while the grant is written: %+v", v)
	}
	l = Resized(l, ClaimOf(of("a", "1", "2Mi")))
	if _, v := Admit(l, ClaimOf(of("b", "1", "1Mi"))); v.State != pod.Granted {
		t.Errorf("after that: %+v", v)
	}
}

// TestDeferredInOrder: when there is room for one, the foremost is served,
// whoever asks first.
func TestDeferredInOrder(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	base := Enter(Ledger{Allocatable: resources("1", "16Gi")}, ClaimOf(of("full", "600m", "1Mi")))
	critical := of("critical", "600m", "1Mi")
	critical.Spec.Priority = new(int32)
	*critical.Spec.Priority = 10
	whole := of("whole", "600m", "1Mi")
	whole.Spec.Containers[0].Resources.Limits = resources("600m", "1Mi")
	for _, tt := range []struct {
		name string
		wait []Resizing // in the order in which they ask
		want []types.UID
	}{
		{"age", []Resizing{{Claim: ClaimOf(of("young", "600m", "1Mi")), Increases: true, Since: at(2)}, {Claim: ClaimOf(of("old", "600m", "1Mi")), Increases: true, Since: at(1)}}, []types.UID{"old"}},
		{"priority", []Resizing{{Claim: ClaimOf(of("old", "600m", "1Mi")), Increases: true, Since: at(1)}, {Claim: ClaimOf(critical), Increases: true, Since: at(2)}}, []types.UID{"critical"}},
		{"class", []Resizing{{Claim: ClaimOf(of("old", "600m", "1Mi")), Increases: true, Since: at(1)}, {Claim: ClaimOf(whole), Increases: true, Since: at(2)}}, []types.UID{"whole"}},
		{"one that fits behind one that does not", []Resizing{{Claim: ClaimOf(of("large", "950m", "1Mi")), Increases: true, Since: at(1)}, {Claim: ClaimOf(of("other", "600m", "1Mi")), Increases: true, Since: at(2)}}, []types.UID{"other"}},
	} {
		l := base
		for _, r := range tt.wait {
			l = Enter(l, Claim{UID: r.UID, Requests: resources("100m", "1Mi")})
		}
		for _, r := range tt.wait {
			var v pod.Verdict
			if l, v = Resize(l, r); v.State != pod.Waiting {
				t.Errorf("%s: %s is not deferred: %+v", tt.name, r.UID, v)
			}
		}
		if due := Due(l); len(due) > 0 {
			t.Errorf("%s: due before there is room: %v", tt.name, due)
		}
		l, _ = Release(l, ClaimOf(of("full", "600m", "1Mi")))
		if due := Due(l); !reflect.DeepEqual(due, tt.want) {
			t.Errorf("%s: due %v, want %v", tt.name, due, tt.want)
		}
		for _, r := range tt.wait {
			if _, v := Resize(l, r); (v.State == pod.Granted) != (r.UID == tt.want[0]) {
				t.Errorf("%s: %s asks: %+v", tt.name, r.UID, v)
			}
		}
	}
}
