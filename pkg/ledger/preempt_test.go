package ledger

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// ranked is the claim of a pod of that class and priority.
func ranked(uid types.UID, class v1.PodQOSClass, priority int32, cpu, memory string) Claim {
	return Claim{UID: uid, Pod: "ns/" + string(uid), Requests: resources(cpu, memory),
		Rank: Rank{Class: class, Priority: &priority, Critical: priority >= pod.SystemCritical}}
}

// TestVictims: whom a critical pod's arrival ends.
func TestVictims(t *testing.T) {
	const g, b, e = v1.PodQOSGuaranteed, v1.PodQOSBurstable, v1.PodQOSBestEffort
	for _, tt := range []struct {
		name    string
		pods    []Claim
		cpu     string // that the critical pod asks for, of 2
		memory  string // of 1Gi
		victims string
	}{
		{"the one that is large enough and no larger", []Claim{ranked("s", b, 0, "200m", "1Mi"), ranked("m", b, 0, "500m", "1Mi"), ranked("l", b, 0, "1", "1Mi")}, "700m", "1Mi", "m"},
		{"burstable before guaranteed", []Claim{ranked("g", g, 0, "500m", "1Mi"), ranked("b", b, 0, "1500m", "1Mi")}, "500m", "1Mi", "b"},
		{"guaranteed only where burstable do not do", []Claim{ranked("g", g, 0, "1", "1Mi"), ranked("b", b, 0, "1", "1Mi")}, "1500m", "1Mi", "b g"},
		{"nobody of its own rank", []Claim{ranked("c", b, pod.SystemCritical, "1", "1Mi"), ranked("b", b, 0, "1", "1Mi")}, "1", "1Mi", "b"},
		{"two resources, one pod that has both", []Claim{ranked("cpu", b, 0, "1", "1Mi"), ranked("memory", b, 0, "1m", "512Mi"), ranked("both", b, 0, "900m", "511Mi")}, "900m", "400Mi", "both"},
		{"as few as can be", []Claim{ranked("a", b, 0, "300m", "1Mi"), ranked("b", b, 0, "800m", "1Mi"), ranked("c", b, 0, "900m", "1Mi")}, "1", "1Mi", "c a"},
		{"the lesser priority of two alike", []Claim{ranked("a", b, 7, "1", "1Mi"), ranked("b", b, 3, "1", "1Mi")}, "1", "1Mi", "b"},
		{"nobody, for nothing", []Claim{ranked("a", b, 0, "1", "1Mi")}, "1", "1Mi", ""},
		{"a place where there are too many", []Claim{ranked("a", e, 0, "0", "0"), ranked("b", b, 0, "1m", "1Mi"), ranked("c", g, 0, "1m", "1Mi"), ranked("d", g, 0, "1m", "1Mi")}, "1m", "1Mi", "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := Ledger{Allocatable: resources("2", "1Gi")}
			l.Allocatable[v1.ResourcePods] = resource.MustParse("4")
			for _, c := range tt.pods {
				l = Enter(l, c)
			}
			l, v := Admit(l, ranked("critical", b, pod.SystemCritical, tt.cpu, tt.memory))
			got := strings.Trim(fmt.Sprint(Victims(l, "critical")), "[]")
			if got != tt.victims || (v.State == pod.Waiting) != (tt.victims != "") || (v.State == pod.Granted) == (tt.victims != "") {
				t.Errorf("victims %q, want %q; verdict %+v", got, tt.victims, v)
			}
		})
	}
}

// TestMakeRoom: the pod waits until its victims are gone; meanwhile nobody takes
// what they leave, and nobody is refused for what they still hold.
func TestMakeRoom(t *testing.T) {
	const b = v1.PodQOSBurstable
	l := Ledger{Allocatable: resources("2", "1Gi")}
	for _, uid := range []types.UID{"v1", "v2"} {
		l = Enter(l, ranked(uid, b, 0, "1", "1Mi"))
	}
	critical := ranked("critical", b, pod.SystemCritical, "1500m", "1Mi")
	l, v := Admit(l, critical)
	if v.State != pod.Waiting || v.Reason != "Preempting" || v.Message != "there is room once these have ended: ns/v1, ns/v2" {
		t.Errorf("verdict %+v", v)
	}
	if again, v := Admit(l, critical); v.State != pod.Waiting || len(again.Room) != 1 {
		t.Errorf("asked again: %+v", v)
	}
	if _, v := Admit(l, ranked("late", b, 0, "600m", "1Mi")); v.Message != "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000" {
		t.Errorf("a pod for which there is no room then: %+v", v)
	}
	l, v = Admit(l, ranked("small", b, 0, "400m", "1Mi"))
	if v.State != pod.Waiting {
		t.Errorf("a pod for which there is room then: %+v", v)
	}
	if !Leaves(l, "v1") || Leaves(l, "small") {
		t.Errorf("leaving: %v", l.leaving())
	}
	l, next := Release(l, Claim{UID: "v2"})
	if len(next) != 0 {
		t.Errorf("told too early: %v", next)
	}
	l, next = Release(l, Claim{UID: "v1"})
	if !slices.Equal(next, []types.UID{"critical", "small"}) {
		t.Errorf("told to ask again: %v", next)
	}
	for _, c := range []Claim{critical, ranked("small", b, 0, "400m", "1Mi")} {
		if _, v := Admit(l, c); v.State != pod.Granted {
			t.Errorf("%s: %+v", c.UID, v)
		}
	}
	if len(l.Room) != 0 || len(l.Grants) != 2 {
		t.Errorf("left: %v, grants %v", l.Room, l.Grants)
	}
}

// TestMakeRoomInVain: the pod that others were ended for is gone before them.
func TestMakeRoomInVain(t *testing.T) {
	const b = v1.PodQOSBurstable
	l := Enter(Ledger{Allocatable: resources("2", "1Gi")}, ranked("v", b, 0, "2", "1Mi"))
	critical := ranked("critical", b, pod.SystemCritical, "1", "1Mi")
	l, _ = Admit(l, critical)
	l, next := Release(l, critical)
	if len(next) != 0 || len(l.Room) != 0 || len(l.Grants) != 1 {
		t.Errorf("next %v, room %v, grants %v", next, l.Room, l.Grants)
	}
}
