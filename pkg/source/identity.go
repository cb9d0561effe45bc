package source

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Annotations that mark where a pod came from (behaviour row 1.1-6).
const (
	annotationSource = pod.SourceAnnotation
	annotationSeen   = "kubernetes.io/config.seen"
	annotationHash   = pod.HashAnnotation
)

// place is where a manifest was read and for which node: what a pod's identity
// is made of beside its content.
type place struct {
	source string // FileName or HTTPName
	origin string
	node   string
	joined bool // to an apiserver
}

// uid is 32 hexadecimal digits made of the pod as written, before defaults, and
// the place it was read from: the same content at the same place is the same
// pod, whatever its layout, and whichever version of the agent reads it.
//
// It is not the kubelet's UID of the same file, which hashes Go types that no
// published module has. A static pod that runs when the agent takes over keeps
// its UID by adoption instead: see Adopt.
func (p place) uid(pod *v1.Pod) (types.UID, error) {
	content, err := json.Marshal(pod)
	if err != nil {
		return "", fmt.Errorf("encode pod %s for its UID: %w", pod.Name, err)
	}
	h := fnv.New128a()
	h.Write(content)
	if p.source == FileName {
		fmt.Fprintf(h, "host:%sfile:%s", p.node, p.origin)
	} else {
		fmt.Fprintf(h, "url:%s", p.origin)
	}
	return types.UID(hex.EncodeToString(h.Sum(nil))), nil
}

// identify makes the decoded pod this node's: UID, name, namespace, node,
// annotations, toleration, phase (behaviour rows 1.1-6, 1.1-8, 1.1-9). It comes
// before Default, whose results must not change the UID.
func (p place) identify(pod *v1.Pod) error {
	if pod.UID == "" {
		uid, err := p.uid(pod)
		if err != nil {
			return err
		}
		pod.UID = uid
	}
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	pod.Name += "-" + strings.ToLower(p.node)
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	pod.Spec.NodeName = p.node
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[annotationHash] = string(pod.UID)
	pod.Annotations[annotationSource] = p.source
	if p.source == FileName {
		tolerateNoExecute(&pod.Spec)
	}
	// A manifest has no say in the status.
	pod.Status = v1.PodStatus{Phase: v1.PodPending}
	return nil
}

// tolerateNoExecute keeps a pod from a file on its node whatever happens to the
// node.
func tolerateNoExecute(spec *v1.PodSpec) {
	always := v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute}
	found := false
	for i := range spec.Tolerations {
		if spec.Tolerations[i].MatchToleration(&always) {
			spec.Tolerations[i] = always // without a limit in seconds
			found = true
		}
	}
	if !found {
		spec.Tolerations = append(spec.Tolerations, always)
	}
}

// Adopt returns a copy of a static pod under the UID of the instance that
// already runs, so that taking over from another agent, or a changed rule for
// UIDs, restarts nothing. The caller has compared source, full name and
// container hashes.
func Adopt(pod *v1.Pod, uid types.UID) *v1.Pod {
	adopted := pod.DeepCopy()
	adopted.UID = uid
	adopted.Annotations[annotationHash] = string(uid)
	return adopted
}

// Same says whether two static pods differ in nothing but their UIDs and the
// annotations of UID and time.
func Same(a, b *v1.Pod) bool {
	written := func(p *v1.Pod) map[string]string {
		annotations := maps.Clone(p.Annotations)
		delete(annotations, annotationHash)
		delete(annotations, annotationSeen)
		return annotations
	}
	return equality.Semantic.DeepEqual(a.Spec, b.Spec) && equality.Semantic.DeepEqual(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(written(a), written(b))
}
