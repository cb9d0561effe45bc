package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// never is the wait for what only an event can bring.
const never = 24 * time.Hour

// see makes the Node what it should be, and says when to look again if nothing
// happens.
func (r *Reporter) see(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	if r.uncertain {
		if err := r.ask(ctx); err != nil {
			return 0, err
		}
		r.uncertain = false
	}
	r.mu.Lock()
	old, listed, slow := r.newest, r.listed, r.slow
	r.mu.Unlock()
	f := Facts{Settings: r.Settings, Machine: r.Machine, Runtime: r.Runtime(), Addresses: slow.addresses, Images: slow.images}
	if old == nil {
		if !listed || !slow.sought || !r.Settings.Register {
			return never, nil
		}
		return r.create(ctx, newNode(f, time.Now()))
	}
	r.tellSchedulable(old)
	now := time.Now()
	base := old
	if r.Settings.Register && r.reconciled != old.UID {
		base = reconciled(old, f)
	}
	wanted := updated(base, f, now)
	changed := differ(old, wanted)
	if due := r.written.Add(r.Cadence.Report + r.delay); !changed && !r.written.IsZero() && now.Before(due) {
		r.reconciled = old.UID
		return untilNext(f.Runtime, now, due), nil
	}
	r.delay = 0
	if changed || r.written.IsZero() {
		r.delay = time.Duration((rand.Float64() - 0.5) * float64(r.Cadence.Report))
	}
	if err := r.write(ctx, old, wanted); err != nil {
		return 0, err
	}
	r.reconciled, r.written = old.UID, now
	return untilNext(f.Runtime, now, now.Add(r.Cadence.Report+r.delay)), nil
}

// untilNext is how long until the next report, or until the patience with a
// runtime that is down ends.
func untilNext(runtime RuntimeState, now, due time.Time) time.Duration {
	if end := runtime.Since.Add(patience); runtime.Error != "" && end.After(now) && end.Before(due) {
		due = end
	}
	return max(0, due.Sub(now))
}

// ask gets the object itself, when what the watch shows may be old.
func (r *Reporter) ask(ctx context.Context) error {
	n, err := r.Heartbeat.CoreV1().Nodes().Get(ctx, r.Settings.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		r.take(nil)
	case err != nil:
		return fmt.Errorf("get node %s: %w", r.Settings.Name, err)
	default:
		r.take(n)
	}
	return nil
}

// create registers the node. One that is there all the same is seen, and
// reconciled, next.
func (r *Reporter) create(ctx context.Context, n *v1.Node) (time.Duration, error) {
	made, err := r.Heartbeat.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{})
	if err != nil {
		r.uncertain = true
		if apierrors.IsAlreadyExists(err) {
			return 0, nil
		}
		return 0, fmt.Errorf("register node %s: %w", n.Name, err)
	}
	r.Log.Info("node is registered", "node", n.Name)
	r.reconciled, r.written = made.UID, time.Now()
	r.delay = time.Duration((rand.Float64() - 0.5) * float64(r.Cadence.Report))
	r.take(made)
	r.tell(nil, n.Status.Conditions)
	return never, nil // what was taken is looked at
}

// write brings the Node from what was seen to what is wanted.
func (r *Reporter) write(ctx context.Context, old, wanted *v1.Node) error {
	data, err := patch(old, wanted)
	if err != nil {
		return err
	}
	written, err := r.Heartbeat.CoreV1().Nodes().Patch(ctx, old.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status")
	if err != nil {
		r.uncertain = true
		return fmt.Errorf("write status of node %s: %w", old.Name, err)
	}
	if was := old.Status.NodeInfo.BootID; was != "" && was != wanted.Status.NodeInfo.BootID && !r.rebooted {
		r.rebooted = true
		r.Events.Eventf(r.reference(), v1.EventTypeWarning, "Rebooted", "Node %s has been rebooted, boot id: %s", old.Name, wanted.Status.NodeInfo.BootID)
	}
	r.tell(old.Status.Conditions, wanted.Status.Conditions)
	return seen{r}.Update(written)
}

// tell makes the events of conditions that changed.
func (r *Reporter) tell(old, now []v1.NodeCondition) {
	for _, reason := range changes(old, now) {
		r.tellState(reason)
	}
}

// tellSchedulable makes the event of a node that was cordoned or uncordoned.
func (r *Reporter) tellSchedulable(n *v1.Node) {
	switch {
	case n.Spec.Unschedulable == r.unschedulable:
	case n.Spec.Unschedulable:
		r.tellState("NodeNotSchedulable")
	default:
		r.tellState("NodeSchedulable")
	}
	r.unschedulable = n.Spec.Unschedulable
}

func (r *Reporter) tellState(reason string) {
	r.Log.Info("node status changed", "now", reason)
	r.Events.Eventf(r.reference(), v1.EventTypeNormal, reason, "Node %s status is now: %s", r.Settings.Name, reason)
}

// reference is how events name the node. Its name stands for its UID, as all
// tools expect.
func (r *Reporter) reference() *v1.ObjectReference {
	return &v1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: r.Settings.Name, UID: types.UID(r.Settings.Name)}
}
