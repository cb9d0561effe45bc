package server

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/timeline"
)

type timelinePod struct{ pod.Pod }

func (o timelinePod) Pods() []pod.Pod                                      { return []pod.Pod{o.Pod} }
func (o timelinePod) Node() pod.Node                                       { return pod.Node{} }
func (o timelinePod) Await(context.Context, types.UID, func(pod.Pod) bool) {}

// GET /debug/timeline gives the pods that are asked for to who may use the proxy.
func TestTimeline(t *testing.T) {
	spec := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "u1"}}
	s := &Server{options: Options{Pods: timelinePod{pod.New(pod.Wanted{At: time.Now(), Spec: spec}, pod.View{}, nil)}}}
	for query, want := range map[string]int{"": 1, "?pod=default/web": 1, "?pod=web": 1, "?pod=other": 0} {
		w := httptest.NewRecorder()
		s.timeline(w, httptest.NewRequest("GET", "/debug/timeline"+query, nil))
		var got timeline.Answer
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Pods) != want {
			t.Errorf("%q: %d %s, %v", query, w.Code, w.Body, err)
		}
	}
	if need := subresources("/debug/timeline"); !slices.Equal(need, []string{"proxy"}) {
		t.Errorf("it needs one of %v", need)
	}
}
