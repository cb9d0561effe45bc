package status

import (
	"fmt"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// component is who events come from, by the name that clients know (behaviour
// row 1.23).
const component = "kubelet"

// Events makes Kubernetes events of what people are told about pods. They are
// sent beside all else, on connections of their own: a flood of them delays
// nothing and is thinned out by client-go.
type Events struct {
	record.EventRecorder
	client      kubernetes.Interface
	broadcaster record.EventBroadcaster

	mu   sync.Mutex
	told map[types.UID][]pod.Note // as sent last
}

// NewEvents makes events of the node's pods; Start has them sent with client.
func NewEvents(client kubernetes.Interface, node string) *Events {
	b := record.NewBroadcaster()
	return &Events{
		EventRecorder: b.NewRecorder(scheme.Scheme, v1.EventSource{Component: component, Host: node}),
		client:        client, broadcaster: b, told: map[types.UID][]pod.Note{},
	}
}

// Start begins to send: what was told before that goes to nobody. What is not
// sent when stop is called is lost.
func (e *Events) Start() (stop func()) {
	watch := e.broadcaster.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: e.client.CoreV1().Events("")})
	return func() {
		watch.Stop()
		e.broadcaster.Shutdown()
	}
}

// Tell makes events of the pod's notes that are new, or were said again.
func (e *Events) Tell(p pod.Pod) {
	e.mu.Lock()
	before := e.told[p.UID()]
	same := len(before) == len(p.Notes) && (len(before) == 0 || &before[0] == &p.Notes[0])
	if !same {
		e.told[p.UID()] = p.Notes
	}
	e.mu.Unlock()
	if same {
		return
	}
	counts := make(map[int]int, len(before))
	for _, n := range before {
		counts[n.Seq] = n.Count
	}
	for _, n := range p.Notes {
		if n.Count > counts[n.Seq] {
			kind := v1.EventTypeNormal
			if n.Warning {
				kind = v1.EventTypeWarning
			}
			e.Event(reference(p.Spec, n.Container), kind, n.Reason, n.Message)
		}
	}
}

// Forget frees what is kept of the pod.
func (e *Events) Forget(uid types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.told, uid)
}

// reference names the pod, or one of its containers.
func reference(p *v1.Pod, container string) *v1.ObjectReference {
	return &v1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: p.Namespace, Name: p.Name, UID: p.UID,
		ResourceVersion: p.ResourceVersion, FieldPath: fieldPath(p, container)}
}

// fieldPath says where the container stands in the pod's spec.
func fieldPath(p *v1.Pod, container string) string {
	if container == "" {
		return ""
	}
	for i := range p.Spec.InitContainers {
		if p.Spec.InitContainers[i].Name == container {
			return fmt.Sprintf("spec.initContainers{%s}", container)
		}
	}
	for i := range p.Spec.EphemeralContainers {
		if p.Spec.EphemeralContainers[i].Name == container {
			return fmt.Sprintf("spec.ephemeralContainers{%s}", container)
		}
	}
	return fmt.Sprintf("spec.containers{%s}", container)
}
