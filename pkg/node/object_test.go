package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func facts() Facts {
	return Facts{
		Settings:  Settings{Name: "n1", Register: true, Attach: true, MaxImages: 50},
		Machine:   Machine{Capacity: list("cpu=2", "memory=4Gi", "pods=110", "ephemeral-storage=10Gi", "hugepages-2Mi=0"), Allocatable: list("cpu=1", "memory=3Gi", "pods=110", "ephemeral-storage=9Gi", "hugepages-2Mi=0"), Port: 10250},
		Runtime:   up(),
		Addresses: []string{"192.0.2.1"},
	}
}

// What the condition Ready says, by how the runtime is.
func TestReadyCondition(t *testing.T) {
	network := "NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"
	ready, notReady := "True KubeletReady: kubelet is posting ready status", "False KubeletNotReady: "
	for _, c := range []struct {
		name     string
		state    RuntimeState
		wasReady bool
		capacity v1.ResourceList
		want     string
	}{
		{"all is well", up(), false, nil, ready},
		{"not asked yet", RuntimeState{Error: RuntimeUnknown, Since: noon}, false, nil, notReady + "container runtime status check may not have completed yet"},
		{"not asked yet by an agent that was restarted", RuntimeState{Error: RuntimeUnknown, Since: noon}, true, nil, ready},
		{"no network", RuntimeState{Network: network}, false, nil, notReady + "container runtime network not ready: " + network},
		{"network lost", RuntimeState{Network: network}, true, nil, notReady + "container runtime network not ready: " + network},
		{"runtime says no", RuntimeState{NotReady: "RuntimeReady=false reason:R message:M"}, true, nil, notReady + "container runtime not ready: RuntimeReady=false reason:R message:M"},
		{"both", RuntimeState{NotReady: "RuntimeReady=false reason:R message:M", Network: network}, true, nil,
			notReady + "[container runtime not ready: RuntimeReady=false reason:R message:M, container runtime network not ready: " + network + "]"},
		{"runtime restarts", RuntimeState{Error: "gone", Since: noon.Add(-29 * time.Second)}, true, nil, ready},
		{"runtime is gone", RuntimeState{Error: "gone", Since: noon.Add(-30 * time.Second)}, true, nil, notReady + "container runtime is down"},
		{"runtime is gone, and the node was not ready", RuntimeState{Error: "gone", Since: noon}, false, nil, notReady + "container runtime is down"},
		{"no capacity", up(), true, list("cpu=1", "pods=1"), notReady + "missing node capacity for resources: memory, ephemeral-storage"},
	} {
		capacity := c.capacity
		if capacity == nil {
			capacity = facts().Capacity
		}
		var old []v1.NodeCondition
		if c.wasReady {
			old = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}
		}
		all := conditions(old, c.state, capacity, noon)
		i := slices.IndexFunc(all, func(k v1.NodeCondition) bool { return k.Type == v1.NodeReady })
		if got := fmt.Sprintf("%s %s: %s", all[i].Status, all[i].Reason, all[i].Message); got != c.want {
			t.Errorf("%s: %s\nwant: %s", c.name, got, c.want)
		}
	}
}

// Conditions come in the usual order, keep their places and those of others, and
// the time of the last transition unless the status changed.
func TestConditions(t *testing.T) {
	names := func(all []v1.NodeCondition) (out []string) {
		for _, c := range all {
			out = append(out, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
		}
		return out
	}
	first := conditions(nil, up(), facts().Capacity, noon)
	if want := []string{"MemoryPressure=False KubeletHasSufficientMemory", "DiskPressure=False KubeletHasNoDiskPressure",
		"PIDPressure=False KubeletHasSufficientPID", "Ready=True KubeletReady"}; !slices.Equal(names(first), want) {
		t.Errorf("got %q\nwant %q", names(first), want)
	}
	others := append([]v1.NodeCondition{{Type: "NetworkUnavailable", Status: v1.ConditionFalse, Reason: "RouteCreated"}}, first...)
	others[1].Status = v1.ConditionUnknown
	later := noon.Add(time.Hour)
	second := conditions(others, RuntimeState{Network: "no"}, facts().Capacity, later)
	if got := names(second); len(got) != 5 || got[0] != "NetworkUnavailable=False RouteCreated" || got[4] != "Ready=False KubeletNotReady" {
		t.Errorf("got %q", got)
	}
	for i, want := range []time.Time{{}, later, noon, noon, later} {
		if got := second[i].LastTransitionTime.Time; !got.Equal(want) {
			t.Errorf("%s: changed at %v, want %v", second[i].Type, got, want)
		}
		if i > 0 && !second[i].LastHeartbeatTime.Time.Equal(later) {
			t.Errorf("%s: seen at %v", second[i].Type, second[i].LastHeartbeatTime)
		}
	}
	if got, want := changes(others, second), []string{"NodeHasSufficientMemory", "NodeNotReady"}; !slices.Equal(got, want) {
		t.Errorf("events: %q, want %q", got, want)
	}
	if got := changes(nil, conditions(nil, RuntimeState{Network: "no"}, facts().Capacity, noon)); slices.Contains(got, "NodeNotReady") {
		t.Errorf("a new node that is not ready yet: %q", got)
	}
}

// What a cloud's controller finds out stays; what it needs is told.
func TestCloudNode(t *testing.T) {
	f := facts()
	f.External, f.IPs, f.Addresses = true, []string{"192.0.2.1", "2001:db8::1"}, []string{"192.0.2.1", "2001:db8::1"}
	n := newNode(f, noon)
	if got := n.Annotations["alpha.kubernetes.io/provided-node-ip"]; got != "192.0.2.1,2001:db8::1" {
		t.Errorf("provided addresses: %q", got)
	}
	if got := n.Spec.Taints; len(got) != 1 || got[0].ToString() != "node.cloudprovider.kubernetes.io/uninitialized=true:NoSchedule" {
		t.Errorf("taints: %v", got)
	}
	if len(n.Status.Addresses) != 3 {
		t.Errorf("addresses: %v", n.Status.Addresses)
	}
	n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeExternalIP, Address: "203.0.113.1"}}
	if got := updated(n, f, noon).Status.Addresses; len(got) != 1 || got[0].Address != "203.0.113.1" {
		t.Errorf("the cloud's addresses became %v", got)
	}
	f.IPs, f.Addresses = nil, []string{}
	if got := newNode(f, noon); len(got.Status.Addresses) != 1 || got.Status.Addresses[0].Type != v1.NodeHostName || len(got.Annotations) != 1 {
		t.Errorf("without an address: %v, %v", got.Status.Addresses, got.Annotations)
	}
	f.External = false
	if got := updated(n, f, noon).Annotations["alpha.kubernetes.io/provided-node-ip"]; got != "" {
		t.Errorf("without a cloud the annotation stays: %q", got)
	}
}

// A Node that an earlier agent left gets what is this node's, and keeps the rest.
func TestReconciled(t *testing.T) {
	f := facts()
	f.Settings.Labels = map[string]string{v1.LabelTopologyZone: "b", "example.com/rack": "r2"}
	f.Settings.Taints = []v1.Taint{{Key: "new", Effect: v1.TaintEffectNoSchedule}}
	old := &v1.Node{}
	old.Name = "n1"
	old.Labels = map[string]string{v1.LabelHostname: "other", v1.LabelTopologyZone: "a", "example.com/rack": "r1", "mine": "x"}
	old.Spec.Taints = []v1.Taint{{Key: "old", Effect: v1.TaintEffectNoSchedule}}
	old.Status.Capacity = list("cpu=8", "hugepages-1Gi=1Gi", "hugepages-2Mi=4Mi", "example.com/gpu=2")
	old.Status.Allocatable = list("cpu=8", "hugepages-1Gi=1Gi", "hugepages-2Mi=4Mi", "example.com/gpu=2", "example.com/gone=1")
	old.Status.VolumesInUse = []v1.UniqueVolumeName{"v"}
	n := updated(reconciled(old, f), f, noon)
	for key, want := range map[string]string{v1.LabelHostname: "n1", v1.LabelTopologyZone: "b", "example.com/rack": "r1", "mine": "x", v1.LabelOSStable: "linux"} {
		if n.Labels[key] != want {
			t.Errorf("label %s: %q, want %q", key, n.Labels[key], want)
		}
	}
	if n.Annotations["volumes.kubernetes.io/controller-managed-attach-detach"] != "true" {
		t.Errorf("annotations: %v", n.Annotations)
	}
	if len(n.Spec.Taints) != 1 || n.Spec.Taints[0].Key != "old" || len(n.Status.VolumesInUse) != 1 {
		t.Errorf("taints %v, volumes %v", n.Spec.Taints, n.Status.VolumesInUse)
	}
	for name, want := range map[v1.ResourceName]string{"cpu": "2/1", "hugepages-1Gi": "none/none", "hugepages-2Mi": "0/0", "example.com/gpu": "0/0", "example.com/gone": "none/none"} {
		show := func(l v1.ResourceList) string {
			if q, ok := l[name]; ok {
				return q.String()
			}
			return "none"
		}
		if got := show(n.Status.Capacity) + "/" + show(n.Status.Allocatable); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	// Resources that are made known while the agent runs stay.
	n.Status.Capacity["example.com/dongle"] = list("example.com/dongle=4")["example.com/dongle"]
	if q := updated(n, f, noon).Status.Allocatable["example.com/dongle"]; q.Value() != 4 {
		t.Errorf("a resource of others: %v allocatable", &q)
	}
}

// The largest images, few names of each, in an order that is always the same.
func TestShownImages(t *testing.T) {
	var all []v1.ContainerImage
	for i := range 60 {
		all = append(all, v1.ContainerImage{SizeBytes: int64(i / 2), Names: []string{fmt.Sprint("b", i), "2", "3", "4", "5", "6"}})
	}
	got := shownImages(all, 50)
	if len(got) != 50 || got[0].SizeBytes != 29 || got[0].Names[0] != "b58" || got[1].Names[0] != "b59" || len(got[0].Names) != 5 {
		t.Errorf("%d images, first %v", len(got), got[0])
	}
	if got := shownImages(all, -1); len(got) != 60 {
		t.Errorf("without a limit: %d", len(got))
	}
	if got := shownImages(nil, 50); got == nil {
		t.Error("no images is not the same as not known")
	}
}

// What the runtime hasn't said yet, and what others write, stays.
func TestUnknownStays(t *testing.T) {
	n := newNode(facts(), noon)
	n.Status.Images = []v1.ContainerImage{{Names: []string{"a"}}}
	n.Status.RuntimeHandlers = []v1.NodeRuntimeHandler{{Name: "runc"}}
	n.Status.Config = &v1.NodeConfigStatus{}
	f := facts()
	f.Runtime, f.Addresses = RuntimeState{Error: RuntimeUnknown, Since: noon}, nil
	got := updated(n, f, noon)
	if differ(n, got) {
		t.Errorf("a restarted agent that knows nothing yet wrote\n%+v\nover\n%+v", got.Status, n.Status)
	}
}

// The patch says only what changed, replaces addresses as a whole, and cannot
// reach another Node.
func TestPatch(t *testing.T) {
	from := newNode(facts(), noon)
	from.UID = "u1"
	f := facts()
	f.Addresses = []string{"192.0.2.7", "2001:db8::7"}
	f.Runtime.Network = "no"
	data, err := patch(from, updated(from, f, noon.Add(time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	var parts struct {
		Metadata map[string]any
		Spec     map[string]any
		Status   map[string]any
	}
	if err := json.Unmarshal(data, &parts); err != nil {
		t.Fatal(err)
	}
	if len(parts.Metadata) != 1 || parts.Metadata["uid"] != "u1" || parts.Spec != nil {
		t.Errorf("patch: %s", data)
	}
	for name := range parts.Status {
		if !slices.Contains([]string{"$setElementOrder/conditions", "addresses", "conditions"}, name) {
			t.Errorf("status.%s: %v", name, parts.Status[name])
		}
	}
	// Fields that this agent doesn't know survive.
	known, err := json.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Replace(string(known), `"status":{`, `"status":{"future":{"a":1},`, 1)
	out, err := strategicpatch.StrategicMergePatch([]byte(old), data, v1.Node{})
	if err != nil {
		t.Fatal(err)
	}
	var n v1.Node
	if err := json.Unmarshal(out, &n); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), `"future":{"a":1}`) {
		t.Errorf("a field of the future is lost: %s", out)
	}
	if got := fmt.Sprint(n.Status.Addresses); got != "[{InternalIP 192.0.2.7} {InternalIP 2001:db8::7} {Hostname n1}]" {
		t.Errorf("addresses: %s", got)
	}
	if c := n.Status.Conditions[3]; c.Type != v1.NodeReady || c.Status != v1.ConditionFalse || !c.LastHeartbeatTime.Equal(new(metav1.NewTime(noon.Add(time.Minute)))) {
		t.Errorf("Ready: %+v", c)
	}
}
