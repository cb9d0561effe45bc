// Package status is what goes to the apiserver about pods: their status, their
// events, the images of static pods, and their deletion once they have ended.
package status

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// workers is how many writes are under way at once.
const workers = 8

// Options are what a Writer is made of.
type Options struct {
	Client kubernetes.Interface
	// Node is the newest view of the node.
	Node func() pod.Node
	Log  *slog.Logger
}

// Writer keeps what the apiserver says of the pods true.
type Writer struct {
	Options
	queue workqueue.TypedRateLimitingInterface[types.UID]

	mu   sync.Mutex
	pods map[types.UID]*known
}

// known is one pod as the agent and as the apiserver have it; nil where one
// has none.
type known struct {
	here  *pod.Pod
	there *v1.Pod
}

// New makes a writer; Run starts it.
func New(o Options) *Writer {
	return &Writer{Options: o, pods: map[types.UID]*known{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](50*time.Millisecond, 10*time.Second))}
}

// Tell gives the newest value of a pod. It never blocks.
func (w *Writer) Tell(p pod.Pod) { w.note(p.UID(), func(k *known) { k.here = &p }) }

// Forget says that the agent has the pod no more.
func (w *Writer) Forget(uid types.UID) { w.note(uid, func(k *known) { k.here = nil }) }

// Seen gives the newest copy of a pod that the apiserver has.
func (w *Writer) Seen(p *v1.Pod) { w.note(p.UID, func(k *known) { k.there = p }) }

// Gone says that the apiserver has the pod no more.
func (w *Writer) Gone(p *v1.Pod) { w.note(p.UID, func(k *known) { k.there = nil }) }

func (w *Writer) note(uid types.UID, change func(*known)) {
	w.mu.Lock()
	k := w.pods[uid]
	if k == nil {
		k = &known{}
		w.pods[uid] = k
	}
	change(k)
	if k.here == nil && k.there == nil {
		delete(w.pods, uid)
	}
	w.mu.Unlock()
	w.queue.Add(uid)
}

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for w.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	w.queue.ShutDown()
	work.Wait()
	return ctx.Err()
}

func (w *Writer) next(ctx context.Context) bool {
	uid, end := w.queue.Get()
	if end {
		return false
	}
	defer w.queue.Done(uid)
	w.mu.Lock()
	k := w.pods[uid]
	var here *pod.Pod
	var there *v1.Pod
	if k != nil {
		here, there = k.here, k.there
	}
	w.mu.Unlock()
	if here == nil || there == nil {
		return true
	}
	if err := w.write(ctx, *here, there); err != nil && ctx.Err() == nil {
		w.Log.Warn("status was not written; trying again", "pod", there.Namespace+"/"+there.Name, "error", err)
		w.queue.AddRateLimited(uid)
		return true
	}
	w.queue.Forget(uid)
	return true
}

// write brings the apiserver's copy to what is true, and deletes it when the
// pod is to go and nothing is left of it.
func (w *Writer) write(ctx context.Context, p pod.Pod, there *v1.Pod) error {
	pods := w.Client.CoreV1().Pods(there.Namespace)
	want := merge(there.Status, pod.Status(p, w.Node(), time.Now()))
	if !equality.Semantic.DeepEqual(want, there.Status) {
		patch, err := patchOf(there, want)
		if err != nil {
			return err
		}
		newest, err := pods.Patch(ctx, there.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		if apierrors.IsNotFound(err) {
			return nil // Gone says so
		}
		if err != nil {
			return fmt.Errorf("patch status: %w", err)
		}
		w.Seen(newest)
		there = newest
	}
	if there.DeletionTimestamp == nil || !pod.IsTerminal(there.Status.Phase) || !p.Reclaimed() {
		return nil
	}
	err := pods.Delete(ctx, there.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(string(there.UID))})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// patchOf is the difference between what the apiserver has and what is wanted.
func patchOf(there *v1.Pod, want v1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(v1.Pod{Status: there.Status})
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	after, err := json.Marshal(v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: there.UID}, Status: want})
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("compare status: %w", err)
	}
	return patch, nil
}

// merge is the status to be written over the one that is there: the conditions
// of others stay, and times of those that did not change.
func merge(there, want v1.PodStatus) v1.PodStatus {
	now := metav1.Now().Rfc3339Copy()
	had := map[v1.PodConditionType]v1.PodCondition{}
	var conditions []v1.PodCondition
	for _, c := range there.Conditions {
		had[c.Type] = c
	}
	for _, c := range want.Conditions {
		c.LastTransitionTime = now
		if old, ok := had[c.Type]; ok && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		conditions = append(conditions, c)
	}
	for _, c := range there.Conditions {
		if !pod.OwnsCondition(c.Type) {
			conditions = append(conditions, c)
		}
	}
	want.Conditions = conditions
	if there.StartTime != nil {
		want.StartTime = there.StartTime
	}
	if there.QOSClass != "" {
		want.QOSClass = there.QOSClass
	}
	want.NominatedNodeName, want.ResourceClaimStatuses, want.ExtendedResourceClaimStatus = there.NominatedNodeName, there.ResourceClaimStatuses, there.ExtendedResourceClaimStatus
	return want
}
