package status

import (
	"context"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// TestEvents: each note becomes an event once, one that is said again counts.
func TestEvents(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := fake.NewClientset()
	sent, err := client.CoreV1().Events("shop").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e := NewEvents(client, "node-1")
	defer e.Start()()
	p := pod.Pod{Spec: &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "u"},
		Spec:       v1.PodSpec{InitContainers: []v1.Container{{Name: "i"}}, Containers: []v1.Container{{Name: "c"}}},
	}}
	created := pod.Note{Seq: 1, Reason: "Created", Message: "Container created", Container: "i", Count: 1}
	unhealthy := pod.Note{Seq: 2, Warning: true, Reason: "Unhealthy", Message: "no", Container: "c", Count: 1}
	for _, notes := range [][]pod.Note{nil, {created}, {created}, {created, unhealthy}} {
		p.Notes = notes
		e.Tell(p)
	}
	unhealthy.Count = 2
	p.Notes = []pod.Note{created, unhealthy}
	e.Tell(p)

	want := []struct {
		how          watch.EventType
		reason, path string
		kind         string
		count        int32
	}{
		{watch.Added, "Created", "spec.initContainers{i}", v1.EventTypeNormal, 1},
		{watch.Added, "Unhealthy", "spec.containers{c}", v1.EventTypeWarning, 1},
		{watch.Modified, "Unhealthy", "spec.containers{c}", v1.EventTypeWarning, 2},
	}
	for _, w := range want {
		select {
		case got := <-sent.ResultChan():
			ev := got.Object.(*v1.Event)
			if got.Type != w.how || ev.Reason != w.reason || ev.InvolvedObject.FieldPath != w.path || ev.Type != w.kind || ev.Count != w.count ||
				ev.InvolvedObject.UID != "u" || ev.Source != (v1.EventSource{Component: "kubelet", Host: "node-1"}) {
				t.Errorf("%s %+v, want %+v", got.Type, ev, w)
			}
		case <-ctx.Done():
			t.Fatalf("no event %s", w.reason)
		}
	}
	e.Forget("u")
	if len(e.told) != 0 {
		t.Error("something is kept of a pod that is gone")
	}
}
