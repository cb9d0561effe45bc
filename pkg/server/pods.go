package server

import (
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// pods are those of the node as they are now (behaviour row 1.20-5).
func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := v1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []v1.Pod{}}
	now, node := time.Now(), s.options.Pods.Node()
	for _, p := range s.options.Pods.Pods() {
		item := *p.Spec
		item.Status = pod.Status(p, node, now)
		list.Items = append(list.Items, item)
	}
	reply(w, list)
}
