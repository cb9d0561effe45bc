package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// cluster is what a joined bed has besides: the control plane, and how its pods
// are seen from there.
type cluster struct {
	*lab.ControlPlane
	client kubernetes.Interface

	mu    sync.Mutex
	ready map[string]chan time.Time // by pod, until it is seen Ready
	gone  map[string]chan time.Time
}

const (
	benchSpace = "bench"
	stubNode   = "stub"
)

// openCluster makes the namespace and begins to watch its pods.
func openCluster(ctx context.Context, p *lab.ControlPlane) (*cluster, error) {
	c := &cluster{ControlPlane: p, client: p.Client(), ready: map[string]chan time.Time{}, gone: map[string]chan time.Time{}}
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: benchSpace}}, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	w, err := c.client.CoreV1().Pods(benchSpace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	go func() {
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*v1.Pod); ok {
				c.see(e.Type, p)
			}
		}
	}()
	return c, c.startStub(ctx)
}

func (c *cluster) see(how apiwatch.EventType, p *v1.Pod) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if how == apiwatch.Deleted {
		deliver(c.gone, p.Name, now)
		return
	}
	for _, condition := range p.Status.Conditions {
		if condition.Type == v1.PodReady && condition.Status == v1.ConditionTrue {
			deliver(c.ready, p.Name, now)
		}
	}
}

func deliver(to map[string]chan time.Time, name string, at time.Time) {
	if ch := to[name]; ch != nil {
		ch <- at // has room for the one
		delete(to, name)
	}
}

func (c *cluster) expect(in map[string]chan time.Time, name string) chan time.Time {
	ch := make(chan time.Time, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	in[name] = ch
	return ch
}

// came waits for what was expected of a pod.
func came(ctx context.Context, ch chan time.Time, what string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case at := <-ch:
		return at, nil
	case <-ctx.Done():
		return time.Time{}, fmt.Errorf("wait until pod is %s: %w", what, ctx.Err())
	}
}

// create makes a pod for a node, through the scheduler, and says where its
// being Ready will be told.
func (c *cluster) create(ctx context.Context, name, node string) (ready chan time.Time, began time.Time, err error) {
	return c.createPod(ctx, podFor(name, node))
}

func (c *cluster) createPod(ctx context.Context, p *v1.Pod) (ready chan time.Time, began time.Time, err error) {
	ready = c.expect(c.ready, p.Name)
	began = time.Now()
	_, err = c.client.CoreV1().Pods(benchSpace).Create(ctx, p, metav1.CreateOptions{})
	return ready, began, err
}

func podFor(name, node string) *v1.Pod {
	seconds := int64(grace / time.Second)
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1.PodSpec{
			NodeSelector:                  map[string]string{v1.LabelHostname: node},
			Tolerations:                   []v1.Toleration{{Operator: v1.TolerationOpExists}},
			TerminationGracePeriodSeconds: &seconds,
			Containers: []v1.Container{{Name: containerName, Image: lab.BusyboxImage,
				Command: []string{"sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"}}},
		},
	}
}

// delete asks for the pod's deletion and says how long it took to be gone.
func (c *cluster) delete(ctx context.Context, name string) (time.Duration, error) {
	gone := c.expect(c.gone, name)
	began := time.Now()
	if err := c.client.CoreV1().Pods(benchSpace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return 0, err
	}
	at, err := came(ctx, gone, "gone")
	return at.Sub(began), err
}

// startStub adds a node whose agent only says that pods are Ready: what a start
// costs at the apiserver, the scheduler and the store alone.
func (c *cluster) startStub(ctx context.Context) error {
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: stubNode, Labels: map[string]string{v1.LabelHostname: stubNode}}}
	if _, err := c.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		return err
	}
	room := v1.ResourceList{v1.ResourcePods: resource.MustParse("1000"), v1.ResourceCPU: resource.MustParse("8"), v1.ResourceMemory: resource.MustParse("8Gi")}
	node.Status = v1.NodeStatus{Capacity: room, Allocatable: room, Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}}
	if _, err := c.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		return err
	}
	w, err := c.client.CoreV1().Pods(benchSpace).Watch(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + stubNode})
	if err != nil {
		return err
	}
	go func() {
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*v1.Pod); ok {
				go c.playAgent(ctx, e.Type, p)
			}
		}
	}()
	return nil
}

// playAgent says that a new pod is Ready, and that one to be deleted is gone.
func (c *cluster) playAgent(ctx context.Context, how apiwatch.EventType, p *v1.Pod) {
	pods := c.client.CoreV1().Pods(benchSpace)
	switch {
	case how == apiwatch.Deleted:
	case p.DeletionTimestamp != nil:
		_ = pods.Delete(ctx, p.Name, *metav1.NewDeleteOptions(0)) // it is waited for
	case p.Status.Phase == v1.PodPending:
		patch := fmt.Appendf(nil, `{"status":{"phase":"Running","startTime":%q,"conditions":[{"type":"Ready","status":"True"}]}}`, time.Now().UTC().Format(time.RFC3339))
		_, _ = pods.Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status") // being Ready is waited for
	}
}
