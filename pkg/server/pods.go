package server

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Pods is who knows of the pods.
type Pods interface {
	Pods() []pod.Pod
	Node() pod.Node
}

// Runtime is what is asked of the container runtime.
type Runtime interface {
	Running(ctx context.Context) ([]cri.Instance, error)
	// Checkpoint writes a container's state into an archive.
	Checkpoint(ctx context.Context, id, archive string, timeout time.Duration) error
}

func podList() v1.PodList {
	return v1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []v1.Pod{}}
}

// pods are those of the node as they are now (behaviour row 1.20-5).
func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := podList()
	now, node := time.Now(), s.options.Pods.Node()
	for _, p := range s.options.Pods.Pods() {
		item := *p.Spec
		item.ManagedFields = nil // for the apiserver alone
		item.Status = pod.Status(p, node, now)
		list.Items = append(list.Items, item)
	}
	reply(w, list)
}

// runningPods are those that the runtime has, whoever wants them, with the
// containers that run (behaviour row 1.20-13).
func (s *Server) runningPods(w http.ResponseWriter, r *http.Request) {
	found, err := s.options.Runtime.Running(r.Context())
	if err != nil {
		refuse(w, r, http.StatusInternalServerError, err.Error())
		return
	}
	list := podList()
	slices.SortStableFunc(found, func(a, b cri.Instance) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.UID, b.UID), cmp.Compare(a.Container, b.Container))
	})
	for _, i := range found {
		if n := len(list.Items); n == 0 || list.Items[n-1].UID != i.UID {
			list.Items = append(list.Items, v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: i.Namespace, Name: i.Pod, UID: i.UID}})
		}
		spec := &list.Items[len(list.Items)-1].Spec
		spec.Containers = append(spec.Containers, v1.Container{Name: i.Container, Image: i.Image})
	}
	reply(w, list)
}
