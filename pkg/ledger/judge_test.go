package ledger

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// labelled is a node with labels and taints, 2 cpus, a device, and a pod on it.
func labelled() Ledger {
	l := small()
	l.Allocatable["example.com/gpu"] = resource.MustParse("1")
	l.Users = Users{First: 65536, Length: 65536, Count: 9}
	l.Node = Node{Name: "n1", Labels: map[string]string{"zone": "a", v1.LabelHostname: "n1"}, Features: []string{"RestartAllContainersOnContainerExits"},
		Taints: []v1.Taint{{Key: "drain", Value: "now", Effect: v1.TaintEffectNoExecute}, {Key: "cordon", Effect: v1.TaintEffectNoSchedule}}}
	return l
}

// tolerant is a pod that labelled lets in.
func tolerant() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: "u1", Name: "web", Namespace: "default", Labels: map[string]string{}, Annotations: map[string]string{pod.SourceAnnotation: "api"}},
		Spec: v1.PodSpec{NodeName: "n1", SecurityContext: &v1.PodSecurityContext{}, Containers: []v1.Container{{Name: "main"}},
			Tolerations: []v1.Toleration{{Key: "drain", Operator: v1.TolerationOpEqual, Value: "now", Effect: v1.TaintEffectNoExecute}}},
	}
}

func requires(terms ...v1.NodeSelectorTerm) *v1.Affinity {
	return &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{NodeSelectorTerms: terms}}}
}

func expression(key string, op v1.NodeSelectorOperator, values ...string) v1.NodeSelectorTerm {
	return v1.NodeSelectorTerm{MatchExpressions: []v1.NodeSelectorRequirement{{Key: key, Operator: op, Values: values}}}
}

// TestReasons has every reason for which a pod is refused, with its message.
func TestReasons(t *testing.T) {
	const affinity = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
	const taints = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
	strict, no, critical := v1.SupplementalGroupsPolicyStrict, false, int32(pod.SystemCritical)
	asks := func(name v1.ResourceName, q string) func(*v1.Pod) {
		return func(p *v1.Pod) {
			p.Spec.Containers[0].Resources.Requests = v1.ResourceList{name: resource.MustParse(q)}
		}
	}
	for _, tt := range []struct {
		name            string
		change          func(*v1.Pod)
		reason, message string
	}{
		{"nothing", func(*v1.Pod) {}, "", ""},
		{"sysctl", func(p *v1.Pod) { p.Spec.SecurityContext.Sysctls = []v1.Sysctl{{Name: "kernel.sem", Value: "1"}} },
			"SysctlForbidden", `forbidden sysctl: "kernel.sem" not allowlisted`},
		{"label of another system", func(p *v1.Pod) { p.Labels[v1.LabelOSStable] = "windows" },
			"PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"},
		{"label of this system", func(p *v1.Pod) { p.Labels[v1.LabelOSStable] = "linux" }, "", ""},
		{"another system", func(p *v1.Pod) { p.Spec.OS = &v1.PodOS{Name: v1.Windows} },
			"PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"},
		{"this system", func(p *v1.Pod) { p.Spec.OS = &v1.PodOS{Name: v1.Linux} }, "", ""},
		{"groups", func(p *v1.Pod) { p.Spec.SecurityContext.SupplementalGroupsPolicy = &strict },
			"SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=Strict is not supported in this node"},
		{"cpu", asks(v1.ResourceCPU, "1600m"), "OutOfcpu", "Node didn't have enough resource: cpu, requested: 1600, used: 500, capacity: 2000"},
		{"memory", asks(v1.ResourceMemory, "1Gi"), "OutOfmemory", "Node didn't have enough resource: memory, requested: 1073741824, used: 536870912, capacity: 1073741824"},
		{"storage", asks(v1.ResourceEphemeralStorage, "11Gi"), "OutOfephemeral-storage",
			"Node didn't have enough resource: ephemeral-storage, requested: 11811160064, used: 0, capacity: 10737418240"},
		{"device", asks("example.com/gpu", "2"), "OutOfexample.com/gpu", "Node didn't have enough resource: example.com/gpu, requested: 2, used: 0, capacity: 1"},
		{"pages that the kernel does not have", asks("hugepages-1Gi", "1Gi"), "OutOfhugepages-1Gi",
			"Node didn't have enough resource: hugepages-1Gi, requested: 1073741824, used: 0, capacity: 0"},
		{"device of the cluster", asks("example.com/licence", "2"), "", ""},
		{"device that a claim stands for", func(p *v1.Pod) {
			asks("example.com/gpu", "2")(p)
			p.Status.ExtendedResourceClaimStatus = &v1.PodExtendedResourceClaimStatus{RequestMappings: []v1.ContainerExtendedResourceRequest{{ContainerName: "main", ResourceName: "example.com/gpu"}}}
		}, "", ""},
		{"selector", func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "b"} }, "NodeAffinity", affinity},
		{"selector that matches", func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "a", v1.LabelOSStable: "linux"} }, "", ""},
		{"affinity", func(p *v1.Pod) { p.Spec.Affinity = requires(expression("zone", v1.NodeSelectorOpNotIn, "a")) }, "NodeAffinity", affinity},
		{"affinity that matches", func(p *v1.Pod) {
			p.Spec.Affinity = requires(expression("zone", v1.NodeSelectorOpIn, "b"), expression("zone", v1.NodeSelectorOpExists))
		}, "", ""},
		{"affinity that means nothing", func(p *v1.Pod) { p.Spec.Affinity = requires(expression("zone", "Near", "b")) }, "NodeAffinity", affinity},
		{"affinity to this node", func(p *v1.Pod) {
			p.Spec.Affinity = requires(v1.NodeSelectorTerm{MatchFields: []v1.NodeSelectorRequirement{{Key: "metadata.name", Operator: v1.NodeSelectorOpIn, Values: []string{"n1"}}}})
		}, "", ""},
		{"preference", func(p *v1.Pod) {
			p.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []v1.PreferredSchedulingTerm{{Weight: 1, Preference: expression("zone", v1.NodeSelectorOpIn, "b")}}}}
		}, "", ""},
		{"another node", func(p *v1.Pod) { p.Spec.NodeName = "n2" }, "NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name"},
		{"port", func(p *v1.Pod) {
			p.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80, Protocol: v1.ProtocolTCP}}
		}, "NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		{"taint", func(p *v1.Pod) { p.Spec.Tolerations = nil }, "TaintToleration", taints},
		{"taint of another value", func(p *v1.Pod) { p.Spec.Tolerations[0].Value = "later" }, "TaintToleration", taints},
		{"every taint", func(p *v1.Pod) { p.Spec.Tolerations = []v1.Toleration{{Operator: v1.TolerationOpExists}} }, "", ""},
		{"taint and a static pod", func(p *v1.Pod) {
			p.Spec.Tolerations, p.Annotations = nil, map[string]string{pod.SourceAnnotation: "file"}
		}, "", ""},
		{"profile", func(p *v1.Pod) {
			p.Spec.SecurityContext.AppArmorProfile = &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeRuntimeDefault}
		}, "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"},
		{"feature", func(p *v1.Pod) { p.Spec.HostNetwork, p.Spec.HostUsers = true, &no }, "PodFeatureUnsupported",
			"Pod requires node features that are not available: UserNamespacesHostNetworkSupport"},
		{"feature that it has", func(p *v1.Pod) {
			p.Spec.Containers[0].RestartPolicyRules = []v1.ContainerRestartRule{{Action: v1.ContainerRestartRuleActionRestartAllContainers}}
		}, "", ""},
		{"room that nobody can make", func(p *v1.Pod) {
			asks(v1.ResourceCPU, "1600m")(p)
			p.Spec.Priority = &critical
		}, "UnexpectedAdmissionError", "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: " +
			"no set of running pods found to reclaim resources: [(res: cpu, q: 100), ]"},

		// The first of several is told.
		{"system before resources", func(p *v1.Pod) {
			asks(v1.ResourceCPU, "9")(p)
			p.Spec.OS = &v1.PodOS{Name: v1.Windows}
		}, "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"},
		{"resources before taints", func(p *v1.Pod) {
			asks("example.com/gpu", "2")(p)
			p.Spec.Tolerations = nil
		}, "OutOfexample.com/gpu", "Node didn't have enough resource: example.com/gpu, requested: 2, used: 0, capacity: 1"},
		{"taints before resources, of a critical pod", func(p *v1.Pod) {
			asks("example.com/gpu", "2")(p)
			p.Spec.Tolerations, p.Spec.Priority = nil, &critical
		}, "TaintToleration", taints},
		{"affinity before taints", func(p *v1.Pod) { p.Spec.Tolerations, p.Spec.NodeSelector = nil, map[string]string{"x": "y"} }, "NodeAffinity", affinity},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := labelled()
			l.Grants["u0"] = Grant{UID: "u0", Pod: "kube-system/first", Requests: l.Grants["u0"].Requests, Ports: l.Grants["u0"].Ports, Rank: Rank{Critical: true, Priority: &critical}}
			p := tolerant()
			tt.change(p)
			_, v := Admit(l, ClaimOf(p))
			if v.Reason != tt.reason || v.Message != tt.message || (v.State == pod.Granted) != (tt.reason == "") {
				t.Errorf("%+v, want %s: %s", v, tt.reason, tt.message)
			}
			// What runs stays, whatever has become of the node since.
			if _, v := Admit(Enter(l, ClaimOf(p)), ClaimOf(p)); v.State != pod.Granted {
				t.Errorf("a pod that runs: %+v", v)
			}
		})
	}
}

// TestReadmit: what was let in before is not judged by the node's labels and
// taints again, but what it asks for may be gone.
func TestReadmit(t *testing.T) {
	p := tolerant()
	p.Spec.Tolerations, p.Spec.NodeSelector = nil, map[string]string{"zone": "b"}
	if _, v := Readmit(labelled(), ClaimOf(p)); v.State != pod.Granted {
		t.Errorf("labels and taints have changed: %+v", v)
	}
	p.Spec.Containers[0].Resources.Requests = resources("1600m", "1Mi")
	if _, v := Readmit(labelled(), ClaimOf(p)); v.Reason != "OutOfcpu" {
		t.Errorf("another pod has its place: %+v", v)
	}
}
