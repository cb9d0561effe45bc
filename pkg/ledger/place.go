package ledger

import (
	"maps"
	"strings"

	"github.com/go-logr/logr"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	scheduling "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Node is this node as pods choose among nodes: what its Node object says, or
// without one, what it would register with.
type Node struct {
	Name   string
	Labels map[string]string
	Taints []v1.Taint
	// Features are its declared features (Node.status.declaredFeatures).
	Features []string
}

// os is what nodes of this agent run, whatever their labels say.
const os = v1.Linux

// Place is where a pod may run.
type Place struct {
	Node        string // spec.nodeName
	Selector    map[string]string
	Affinity    *v1.Affinity
	Tolerations []v1.Toleration
	// Anywhere says that taints do not concern it: a static pod's.
	Anywhere bool
	// OSLabel is its own label kubernetes.io/os, OS its spec.os.name.
	OSLabel, OS string
}

func placeOf(p *v1.Pod) Place {
	place := Place{Node: p.Spec.NodeName, Selector: p.Spec.NodeSelector, Affinity: p.Spec.Affinity,
		Tolerations: p.Spec.Tolerations, Anywhere: pod.IsStatic(p), OSLabel: p.Labels[v1.LabelOSStable]}
	if p.Spec.OS != nil {
		place.OS = string(p.Spec.OS.Name)
	}
	return place
}

// judgeOS refuses pods of another operating system (behaviour row 1.2-5).
func (l Ledger) judgeOS(c Claim) pod.Verdict {
	switch {
	case c.Place.OSLabel != "" && c.Place.OSLabel != string(os):
		return refused("PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label")
	case c.Place.OS != "" && c.Place.OS != string(os):
		return refused("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
	}
	return pod.Verdict{}
}

// judgeAffinity checks nodeSelector and required node affinity (behaviour row
// 1.2-4). An expression that cannot be read matches nothing.
func (l Ledger) judgeAffinity(c Claim) pod.Verdict {
	labels := maps.Clone(l.Node.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[v1.LabelOSStable] = string(os)
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: l.Node.Name, Labels: labels}}
	wants := nodeaffinity.GetRequiredNodeAffinity(&v1.Pod{Spec: v1.PodSpec{NodeSelector: c.Place.Selector, Affinity: c.Place.Affinity}})
	if ok, err := wants.Match(node); err != nil || !ok {
		return refused(NodeAffinity, "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")
	}
	return pod.Verdict{}
}

// NodeAffinity is the reason of a pod whose node selector or affinity this node
// does not match, by the labels that the ledger knows.
const NodeAffinity = "NodeAffinity"

func (l Ledger) judgeName(c Claim) pod.Verdict {
	if c.Place.Node != "" && c.Place.Node != l.Node.Name {
		return refused("NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name")
	}
	return pod.Verdict{}
}

// judgeTaints refuses pods that would be evicted at once; what keeps them from
// being scheduled here is the scheduler's.
func (l Ledger) judgeTaints(c Claim) pod.Verdict {
	if c.Place.Anywhere {
		return pod.Verdict{}
	}
	evicts := func(t *v1.Taint) bool { return t.Effect == v1.TaintEffectNoExecute }
	if _, bad := scheduling.FindMatchingUntoleratedTaint(logr.Discard(), l.Node.Taints, c.Place.Tolerations, evicts, false); bad {
		return refused("TaintToleration", "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate")
	}
	return pod.Verdict{}
}

// judgeFeatures refuses a pod that needs what this node does not declare
// (behaviour row 1.2-13).
func (l Ledger) judgeFeatures(c Claim) pod.Verdict {
	has := map[string]bool{}
	for _, f := range l.Node.Features {
		has[f] = true
	}
	var missing []string
	for _, f := range c.Needs.Features {
		if !has[f] {
			missing = append(missing, f)
		}
	}
	if len(missing) > 0 {
		return refused("PodFeatureUnsupported", "Pod requires node features that are not available: %s", strings.Join(missing, ", "))
	}
	return pod.Verdict{}
}
