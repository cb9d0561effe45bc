package timeline

import (
	"time"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Answer is what is said of pods at a moment.
type Answer struct {
	At   time.Time `json:"at"`
	Pods []Pod     `json:"pods"`
}

// All is what there is to say of the pods that which names: by name, by
// namespace/name or by UID; all if it is empty.
func All(pods []pod.Pod, n pod.Node, now time.Time, which string) Answer {
	a := Answer{At: now, Pods: []Pod{}}
	for _, p := range pods {
		name := p.Spec.Name
		if which == "" || which == name || which == p.Spec.Namespace+"/"+name || which == string(p.UID()) {
			a.Pods = append(a.Pods, Of(p, n, now))
		}
	}
	return a
}
