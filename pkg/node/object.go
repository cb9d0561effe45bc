package node

import (
	"cmp"
	"maps"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	kubeletapis "k8s.io/kubelet/pkg/apis"
)

// Settings say how this node is registered.
type Settings struct {
	Name   string
	Labels map[string]string // beside the default ones
	Taints []v1.Taint        // given to a Node that is created, not to one that is there
	// Register creates the Node if there is none. Without it the status is
	// written once somebody else has made it.
	Register   bool
	ProviderID string
	// External says that a cloud's controller completes the Node.
	External bool
	// IPs are those that the operator gave, if any.
	IPs []string
	// Attach says that volumes are attached by the cluster's controllers, not
	// by this node (enableControllerAttachDetach).
	Attach    bool
	MaxImages int32 // shown; negative for all
}

// Machine is what doesn't change while the agent runs.
type Machine struct {
	Capacity, Allocatable v1.ResourceList
	Port                  int32 // of the agent's API
	// Info is all but the runtime's version.
	Info     v1.NodeSystemInfo
	Features []string // declared, sorted
}

// RuntimeState is how the container runtime is.
type RuntimeState struct {
	// Error is why the runtime doesn't answer, empty when it does, and Since when
	// that began: the node stays Ready through a restart of the runtime.
	Error string
	Since time.Time
	// NotReady and Network are empty when the runtime's conditions RuntimeReady
	// and NetworkReady hold, else those conditions in words.
	NotReady, Network string
	// Name and Version are empty until the runtime has answered once.
	Name, Version string
	Handlers      []v1.NodeRuntimeHandler // sorted by name
	Features      *v1.NodeFeatures        // nil if the runtime doesn't say
	// Session is another number for each runtime that was connected to.
	Session int
}

// Facts are all that the Node object says.
type Facts struct {
	Settings
	Machine
	Runtime   RuntimeState
	Addresses []string            // nil: not known
	Images    []v1.ContainerImage // nil: not known
}

// The labels and annotations that other components look for.
const (
	attachAnnotation     = "volumes.kubernetes.io/controller-managed-attach-detach"
	providedIPAnnotation = "alpha.kubernetes.io/provided-node-ip"
	uninitializedTaint   = "node.cloudprovider.kubernetes.io/uninitialized"
)

// newNode is the object that registers the node.
func newNode(f Facts, now time.Time) *v1.Node {
	n := &v1.Node{}
	n.Name = f.Name
	n.Labels = Labels(f.Settings)
	n.Annotations = map[string]string{}
	setAttach(n, f)
	n.Spec.ProviderID = f.ProviderID
	n.Spec.Taints = Taints(f.Settings)
	return updated(n, f, now)
}

// Labels are those that the node registers with.
func Labels(s Settings) map[string]string {
	labels := defaultLabels(s)
	maps.Copy(labels, s.Labels)
	return labels
}

// Taints are those that the node registers with.
func Taints(s Settings) []v1.Taint {
	taints := slices.Clone(s.Taints)
	if s.External {
		taints = append(taints, v1.Taint{Key: uninitializedTaint, Value: "true", Effect: v1.TaintEffectNoSchedule})
	}
	return taints
}

func defaultLabels(s Settings) map[string]string {
	return map[string]string{
		v1.LabelHostname: s.Name,
		v1.LabelOSStable: goruntime.GOOS, kubeletapis.LabelOS: goruntime.GOOS,
		v1.LabelArchStable: goruntime.GOARCH, kubeletapis.LabelArch: goruntime.GOARCH,
	}
}

// reconciled is a Node that was there when the agent came, with labels,
// annotations and resources set right that an earlier agent may have left
// otherwise (behaviour row 1.17-1). Taints and other labels are those who look
// after the cluster's.
func reconciled(old *v1.Node, f Facts) *v1.Node {
	n := old.DeepCopy()
	labels := defaultLabels(f.Settings)
	for key, value := range f.Labels {
		if slices.Contains(kubeletapis.KubeletLabels(), key) {
			labels[key] = value
		}
	}
	for key, value := range labels {
		setKey(&n.Labels, key, value)
	}
	setAttach(n, f)
	for _, list := range []v1.ResourceList{n.Status.Capacity, n.Status.Allocatable} {
		for name := range list {
			_, have := f.Capacity[name]
			switch {
			case have:
			case strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix):
				delete(list, name)
			case extended(name): // of devices, which nobody serves any more
				list[name] = *resource.NewQuantity(0, resource.DecimalSI)
			}
		}
	}
	return n
}

// setAttach says who attaches volumes.
func setAttach(n *v1.Node, f Facts) {
	if f.Attach {
		setKey(&n.Annotations, attachAnnotation, "true")
	} else {
		delete(n.Annotations, attachAnnotation)
	}
}

// setKey sets or, if the value is empty, removes a key.
func setKey(m *map[string]string, key, value string) {
	if value == "" {
		delete(*m, key)
		return
	}
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}

// extended says whether a resource is neither Kubernetes' own nor a quota.
func extended(name v1.ResourceName) bool {
	domain, _, ok := strings.Cut(string(name), "/")
	return ok && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io") && !strings.HasPrefix(string(name), "requests.")
}

// updated is the Node with all that this node knows better. What it doesn't know
// stays: others write there too.
func updated(old *v1.Node, f Facts, now time.Time) *v1.Node {
	n := old.DeepCopy()
	setKey(&n.Labels, v1.LabelOSStable, goruntime.GOOS)
	setKey(&n.Labels, v1.LabelArchStable, goruntime.GOARCH)
	provided := ""
	if f.External {
		provided = strings.Join(f.IPs, ",")
	}
	setKey(&n.Annotations, providedIPAnnotation, provided)

	s := &n.Status
	s.Addresses = addresses(s.Addresses, f)
	setResources(s, f)
	runtimeVersion := s.NodeInfo.ContainerRuntimeVersion
	s.NodeInfo = f.Info
	s.NodeInfo.ContainerRuntimeVersion = runtimeVersion
	s.DaemonEndpoints.KubeletEndpoint.Port = f.Port
	s.DeclaredFeatures = f.Machine.Features
	if f.Images != nil {
		s.Images = f.Images
	}
	if f.Runtime.Name != "" {
		s.NodeInfo.ContainerRuntimeVersion = f.Runtime.Name + "://" + f.Runtime.Version
		s.RuntimeHandlers, s.Features = f.Runtime.Handlers, f.Runtime.Features
	}
	s.Conditions = conditions(s.Conditions, f.Runtime, s.Capacity, now)
	return n
}

// addresses are those that this node has. Those that a cloud's controller has
// found stay.
func addresses(old []v1.NodeAddress, f Facts) []v1.NodeAddress {
	if f.External && len(old) > 0 || f.Addresses == nil {
		return old
	}
	var out []v1.NodeAddress
	for _, ip := range f.Addresses {
		out = append(out, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip})
	}
	return append(out, v1.NodeAddress{Type: v1.NodeHostName, Address: f.Name})
}

// setResources keeps resources that others made known.
func setResources(s *v1.NodeStatus, f Facts) {
	if s.Capacity == nil {
		s.Capacity = v1.ResourceList{}
	}
	if s.Allocatable == nil {
		s.Allocatable = v1.ResourceList{}
	}
	maps.Copy(s.Capacity, f.Capacity)
	for name := range s.Allocatable {
		if _, ok := s.Capacity[name]; !ok && extended(name) {
			delete(s.Allocatable, name)
		}
	}
	maps.Copy(s.Allocatable, s.Capacity)
	maps.Copy(s.Allocatable, f.Allocatable)
}

// maxNames is how many names an image has in a Node.
const maxNames = 5

// shownImages are the largest, each with a few of its names.
func shownImages(all []v1.ContainerImage, count int32) []v1.ContainerImage {
	out := make([]v1.ContainerImage, 0, len(all))
	for _, image := range all {
		out = append(out, v1.ContainerImage{SizeBytes: image.SizeBytes, Names: image.Names[:min(len(image.Names), maxNames)]})
	}
	slices.SortStableFunc(out, func(a, b v1.ContainerImage) int {
		return cmp.Or(cmp.Compare(b.SizeBytes, a.SizeBytes), slices.Compare(a.Names, b.Names))
	})
	if count >= 0 && len(out) > int(count) {
		out = out[:count]
	}
	return out
}

// differ says whether there is something to tell but the time.
func differ(a, b *v1.Node) bool {
	timeless := func(n *v1.Node) *v1.Node {
		n = n.DeepCopy()
		for i := range n.Status.Conditions {
			n.Status.Conditions[i].LastHeartbeatTime.Reset()
		}
		return n
	}
	a, b = timeless(a), timeless(b)
	return !equality.Semantic.DeepEqual(a.Status, b.Status) ||
		!equality.Semantic.DeepEqual(a.Labels, b.Labels) || !equality.Semantic.DeepEqual(a.Annotations, b.Annotations)
}
