package status

import (
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// isMirror says whether the pod is the image of a static one (behaviour row
// 1.1-11).
func isMirror(p *v1.Pod) bool {
	_, ok := p.Annotations[v1.MirrorPodAnnotationKey]
	return ok
}

// mirrors says whether the apiserver's pod is the image of this static pod.
func mirrors(there *v1.Pod, p *pod.Pod) bool {
	return isMirror(there) && there.Annotations[v1.MirrorPodAnnotationKey] == p.Spec.Annotations[pod.HashAnnotation]
}

// shown is the static pod, of those of one name, that the image is of or is to
// be of: one that is ending keeps its image until it is gone.
func shown(here []*pod.Pod, there *v1.Pod) *pod.Pod {
	var wanted *pod.Pod
	for _, p := range here {
		if there != nil && mirrors(there, p) {
			return p
		}
		if p.Stop == nil || !p.Stop.Unwanted {
			wanted = p
		}
	}
	return wanted
}

// image is the pod that shows a static one at the apiserver: its spec, labels
// and annotations, owned by the node.
func image(p *pod.Pod, node *v1.Node) *v1.Pod {
	spec := p.Wish()
	m := &v1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: spec.Name, Namespace: spec.Namespace, Labels: spec.Labels, Annotations: maps.Clone(spec.Annotations)},
		Spec:       spec.Spec,
	}
	m.Annotations[v1.MirrorPodAnnotationKey] = spec.Annotations[pod.HashAnnotation]
	m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: new(true)}}
	return m
}

// planStatic says what is to be done about the image of the static pods of one
// name (behaviour rows 1.1-11 to 1.1-13). orphan says that an image of which no
// static pod is known may go.
func planStatic(here []*pod.Pod, n pod.Node, node *v1.Node, there *v1.Pod, orphan bool, since, now time.Time) step {
	p := shown(here, there)
	switch {
	case there == nil && (p == nil || node == nil || node.UID == "" || node.DeletionTimestamp != nil):
		return step{}
	case there == nil:
		return step{verb: create, due: now, urgent: true, pod: image(p, node)}
	case len(here) == 0 && !orphan, held(there):
		return step{}
	case p == nil || there.DeletionTimestamp != nil || !mirrors(there, p):
		return step{verb: remove, due: now, urgent: true}
	}
	s := plan(*p, n, there, since, now)
	if s.verb == remove {
		return step{}
	}
	return s
}
