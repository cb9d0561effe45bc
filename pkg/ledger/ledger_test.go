package ledger

import (
	"fmt"
	"reflect"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

func resources(cpu, memory string) v1.ResourceList {
	return v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}
}

// small is a node of 2 cpus, 1 GiB and three pods, with one pod on it.
func small() Ledger {
	l := Ledger{Allocatable: resources("2", "1Gi")}
	l.Allocatable[v1.ResourcePods] = resource.MustParse("3")
	l.Allocatable[v1.ResourceEphemeralStorage] = resource.MustParse("10Gi")
	return Enter(l, Claim{UID: "u0", Requests: resources("500m", "512Mi"),
		Ports: []Port{{Protocol: v1.ProtocolTCP, Number: 80}, {IP: "10.0.0.1", Protocol: v1.ProtocolTCP, Number: 90}}})
}

func TestAdmit(t *testing.T) {
	tcp := func(ip string, n int32) []Port { return []Port{{IP: ip, Protocol: v1.ProtocolTCP, Number: n}} }
	tests := []struct {
		name            string
		claim           Claim
		reason, message string // "" is granted
	}{
		{name: "nothing asked for", claim: Claim{}},
		{name: "just enough", claim: Claim{Requests: resources("1500m", "512Mi")}},
		{name: "cpu", claim: Claim{Requests: resources("1501m", "2Gi")}, reason: "OutOfcpu",
			message: "Node didn't have enough resource: cpu, requested: 1501, used: 500, capacity: 2000"},
		{name: "memory", claim: Claim{Requests: resources("1", "513Mi")}, reason: "OutOfmemory",
			message: "Node didn't have enough resource: memory, requested: 537919488, used: 536870912, capacity: 1073741824"},
		{name: "ephemeral storage", claim: Claim{Requests: v1.ResourceList{v1.ResourceEphemeralStorage: resource.MustParse("11Gi")}}, reason: "OutOfephemeral-storage",
			message: "Node didn't have enough resource: ephemeral-storage, requested: 11811160064, used: 0, capacity: 10737418240"},
		{name: "a resource the node does not know", claim: Claim{Requests: v1.ResourceList{"example.com/gpu": resource.MustParse("8")}}},
		{name: "port taken everywhere", claim: Claim{Ports: tcp("", 80)}, reason: "NodePorts",
			message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		{name: "port taken everywhere, asked for on one address", claim: Claim{Ports: tcp("10.0.0.2", 80)}, reason: "NodePorts",
			message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		{name: "port taken on one address, asked for everywhere", claim: Claim{Ports: tcp("0.0.0.0", 90)}, reason: "NodePorts",
			message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		{name: "port taken on another address", claim: Claim{Ports: tcp("10.0.0.2", 90)}},
		{name: "port of another protocol", claim: Claim{Ports: []Port{{Protocol: v1.ProtocolUDP, Number: 80}}}},
		{name: "another port", claim: Claim{Ports: tcp("", 81)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.claim.UID = "u1"
			before := small()
			after, v := Admit(before, tt.claim)
			_, granted := after.Grants["u1"]
			if granted != (tt.reason == "") || granted != (v.State == pod.Granted) {
				t.Errorf("granted %v, verdict %+v", granted, v)
			}
			if v.Reason != tt.reason || v.Message != tt.message {
				t.Errorf("refused for %q: %q", v.Reason, v.Message)
			}
			if !reflect.DeepEqual(before, small()) {
				t.Errorf("the ledger given was altered: %+v", before)
			}
		})
	}
}

func TestAdmitPods(t *testing.T) {
	l := small()
	for _, uid := range []types.UID{"u1", "u2"} {
		var v pod.Verdict
		if l, v = Admit(l, Claim{UID: uid}); v.State != pod.Granted {
			t.Fatalf("%s: %+v", uid, v)
		}
	}
	want := pod.Verdict{State: pod.Refused, Reason: "OutOfpods",
		Message: "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"}
	if _, v := Admit(l, Claim{UID: "u3"}); v != want {
		t.Errorf("a fourth pod: %+v", v)
	}
	// Who has a grant keeps it, whatever he asks for now.
	if _, v := Admit(l, Claim{UID: "u1", Requests: resources("100", "1Ti")}); v.State != pod.Granted {
		t.Errorf("a second question: %+v", v)
	}
	l, next := Release(l, Claim{UID: "u1"})
	if len(next) != 0 {
		t.Errorf("told to ask again: %v", next)
	}
	if _, v := Admit(l, Claim{UID: "u3"}); v.State != pod.Granted {
		t.Errorf("after a release: %+v", v)
	}
	// A pod that runs is entered though the node is too small for it.
	if l = Enter(l, Claim{UID: "big", Requests: resources("100", "1Ti")}); len(l.Grants) != 3 {
		t.Errorf("grants: %+v", l.Grants)
	}
}

// TestNames has pods of one full name get it in the order of their arrival.
func TestNames(t *testing.T) {
	claim := func(uid types.UID) Claim { return Claim{UID: uid, Name: "web_default"} }
	l, log := Ledger{}, ""
	ask := func(uid types.UID) {
		var v pod.Verdict
		l, v = Admit(l, claim(uid))
		log += fmt.Sprintf("%s:%d:%s ", uid, v.State, v.Message)
	}
	ask("a")
	ask("b")
	ask("c")
	ask("b") // asking twice gains nothing
	ask("other")
	l, _ = Release(l, claim("other")) // gives up its place in the queue
	var next []types.UID
	l, next = Release(l, claim("a"))
	if !reflect.DeepEqual(next, []types.UID{"b", "c"}) {
		t.Errorf("may ask again: %v", next)
	}
	ask("c") // too early
	ask("b")
	ask("c")
	want := "a:2: b:1:pod web_default with UID a has not ended yet c:1:pod web_default with UID a has not ended yet " +
		"b:1:pod web_default with UID a has not ended yet other:1:pod web_default with UID a has not ended yet " +
		"c:1:pod web_default with UID b has not ended yet b:2: c:1:pod web_default with UID b has not ended yet "
	if log != want {
		t.Errorf("answers\n%s\nwant\n%s", log, want)
	}
	if len(l.Queue) != 1 || l.Queue[0].UID != "c" {
		t.Errorf("queue: %+v", l.Queue)
	}
	if l, v := Admit(l, Claim{UID: "x", Name: "db_default"}); v.State != pod.Granted || len(l.Queue) != 1 {
		t.Errorf("another name: %+v, queue %+v", v, l.Queue)
	}
	// Should two have the name already, the one with the lesser UID is named.
	l = Enter(Enter(Ledger{}, claim("z")), claim("y"))
	if _, v := Admit(l, claim("w")); v.Message != "pod web_default with UID y has not ended yet" {
		t.Errorf("two holders: %+v", v)
	}
}

func TestClaimOf(t *testing.T) {
	always := v1.ContainerRestartPolicyAlways
	port := func(host int32) v1.Container {
		return v1.Container{Ports: []v1.ContainerPort{{HostPort: host, HostIP: "10.0.0.1", Protocol: v1.ProtocolUDP}, {ContainerPort: 5}},
			Resources: v1.ResourceRequirements{Requests: resources("100m", "1Mi")}}
	}
	sidecar, initial := port(2), port(3)
	sidecar.RestartPolicy = &always
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"},
		Spec: v1.PodSpec{Containers: []v1.Container{port(1)}, InitContainers: []v1.Container{sidecar, initial}}}
	c := ClaimOf(p)
	if c.Name != "" || c.UID != "u" {
		t.Errorf("a pod from the apiserver: %+v", c)
	}
	want := []Port{{"10.0.0.1", v1.ProtocolUDP, 1}, {"10.0.0.1", v1.ProtocolUDP, 2}}
	if !reflect.DeepEqual(c.Ports, want) {
		t.Errorf("ports %+v", c.Ports)
	}
	if got := c.Requests.Cpu().MilliValue(); got != 200 {
		t.Errorf("cpu %dm, want that of main and sidecar", got)
	}
	p.Annotations = map[string]string{pod.SourceAnnotation: "file"}
	if c := ClaimOf(p); c.Name != "p_ns" {
		t.Errorf("a static pod: %+v", c)
	}
	if len(p.Spec.Containers) != 1 {
		t.Error("the pod was altered")
	}
}
