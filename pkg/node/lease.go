package node

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// keepLease renews the node's lease, which says that the node is alive, whatever
// becomes of its status (behaviour row 1.17-6). It does what
// component-helpers' lease controller does, but bounds each call, waits for the
// Node instead of trying again later, and tells of a failure once.
func (r *Reporter) keepLease(ctx context.Context) error {
	trouble := trouble{log: r.Log, what: "node lease is not renewed"}
	var held *coordinationv1.Lease // as last written; nil: ask
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		looked := false // only, because the Node changed
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-due.C:
		case <-r.renew:
			looked = true
		}
		n := r.Node()
		if n == nil {
			held = nil // goes with its Node, whose coming is told
			continue
		}
		if looked && (trouble.wait > 0 || held != nil && ownedBy(held, n)) {
			continue
		}
		lease, err := r.renewLease(ctx, held, n)
		if held = lease; err != nil {
			due.Reset(trouble.failed(ctx, err))
			continue
		}
		trouble.over()
		due.Reset(jittered(r.Cadence.Lease / 4))
	}
}

// renewLease makes the lease new. Without the one held it asks for it first, and
// creates it if there is none.
func (r *Reporter) renewLease(ctx context.Context, held *coordinationv1.Lease, n *v1.Node) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	leases := r.Heartbeat.CoordinationV1().Leases(v1.NamespaceNodeLease)
	if held == nil {
		found, err := leases.Get(ctx, r.Settings.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			made, err := leases.Create(ctx, r.lease(&coordinationv1.Lease{}, n), metav1.CreateOptions{})
			if err != nil {
				return nil, fmt.Errorf("create lease of node %s: %w", r.Settings.Name, err)
			}
			return made, nil
		}
		if err != nil {
			return nil, fmt.Errorf("get lease of node %s: %w", r.Settings.Name, err)
		}
		held = found
	}
	renewed, err := leases.Update(ctx, r.lease(held, n), metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("renew lease of node %s: %w", r.Settings.Name, err)
	}
	return renewed, nil
}

// lease is the old one made new, and the Node's own: it goes with the Node.
func (r *Reporter) lease(old *coordinationv1.Lease, n *v1.Node) *coordinationv1.Lease {
	l := old.DeepCopy()
	l.Name, l.Namespace = r.Settings.Name, v1.NamespaceNodeLease
	if !ownedBy(l, n) {
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}
	}
	l.Spec.HolderIdentity = ptr.To(r.Settings.Name)
	l.Spec.LeaseDurationSeconds = ptr.To(int32(r.Cadence.Lease / time.Second))
	l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
	return l
}

func ownedBy(l *coordinationv1.Lease, n *v1.Node) bool {
	return len(l.OwnerReferences) == 1 && l.OwnerReferences[0].UID == n.UID
}
