package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Resizing is a granted pod's wish for other resources.
type Resizing struct {
	Claim
	// Infeasible says why this node can never grant it, "" if it may.
	Infeasible string
	// Swaps says that it changes how much swap a container may use, on a node
	// that lets any do so.
	Swaps bool
	// Increases says that more is requested than was granted.
	Increases bool
	Since     time.Time // when it was first wanted
}

// ResizingOf is the pod's wish, from what is allocated to it, since then.
func ResizingOf(allocated, desired *v1.Pod, since time.Time) Resizing {
	r := Resizing{Claim: ClaimOf(desired), Since: since}
	r.Infeasible, r.Swaps = pod.Unresizable(allocated, desired), pod.ResizesSwap(allocated, desired)
	has := ClaimOf(allocated).Requests
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		asked := r.Requests[name]
		r.Increases = r.Increases || asked.Cmp(has[name]) > 0
	}
	return r
}

// Resize grants the wish, defers it until there is room, or refuses it. Of
// several that wait the foremost are served first. Until Resized the pod is
// granted the greater of what it had and what it asks for.
func Resize(l Ledger, r Resizing) (Ledger, pod.Verdict) {
	held, ok := l.Grants[r.UID]
	if !ok {
		return l, pod.Verdict{State: pod.Refused, Reason: v1.PodReasonInfeasible, Message: "The pod has no grant on this node"}
	}
	l.Pending = slices.DeleteFunc(slices.Clone(l.Pending), func(q Resizing) bool { return q.UID == r.UID })
	swap := ""
	if r.Swaps && l.Host.Swap {
		swap = "In-place resize of containers with swap is not supported."
	}
	if why := cmp.Or(r.Infeasible, swap, l.beyond(r.Claim)); why != "" {
		return l, pod.Verdict{State: pod.Refused, Reason: v1.PodReasonInfeasible, Message: why}
	}
	l.Pending = append(l.Pending, r)
	slices.SortStableFunc(l.Pending, foremost)
	_, verdicts := l.foresee()
	v := verdicts[r.UID]
	if v.State != pod.Granted {
		return l, pod.Verdict{State: pod.Waiting, Reason: v1.PodReasonDeferred, Message: v.Message}
	}
	l.Pending = slices.DeleteFunc(l.Pending, func(q Resizing) bool { return q.UID == r.UID })
	both := r.Claim
	both.Requests = greater(held.Requests, r.Requests)
	return Enter(l, both), v
}

// Resized makes the grant what is on disk now.
func Resized(l Ledger, c Claim) Ledger {
	if _, ok := l.Grants[c.UID]; !ok {
		return l
	}
	return Enter(l, c)
}

// Due are the pods whose deferred resize would be granted now, the foremost
// first.
func Due(l Ledger) []types.UID {
	due, _ := l.foresee()
	return due
}

// foresee is who of those that wait would be granted, each given its turn.
func (l Ledger) foresee() (due []types.UID, verdicts map[types.UID]pod.Verdict) {
	verdicts = map[types.UID]pod.Verdict{}
	for _, q := range l.Pending {
		others := l
		others.Grants = maps.Clone(l.Grants)
		delete(others.Grants, q.UID)
		short := others.shortRequests(q.Claim)
		if len(short) > 0 && q.Increases {
			verdicts[q.UID] = short[0].verdict()
			continue
		}
		// Less can always be had, though the node be too full.
		verdicts[q.UID] = pod.Verdict{State: pod.Granted}
		due = append(due, q.UID)
		l = Enter(l, q.Claim)
	}
	return due, verdicts
}

// beyond says which resource is asked for beyond all that the node has.
func (l Ledger) beyond(c Claim) string {
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		most, known := l.Allocatable[name]
		if asked := c.Requests[name]; known && asked.Cmp(most) > 0 {
			return fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, amount(name, asked), amount(name, most))
		}
	}
	return ""
}

// foremost orders those that wait: what needs no more than before, then by
// priority, class and age (behaviour row 1.3-33).
func foremost(a, b Resizing) int {
	rank := func(yes bool) int {
		if yes {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(rank(a.Increases), rank(b.Increases)),
		cmp.Compare(priority(b.Rank), priority(a.Rank)),
		cmp.Compare(rank(b.Rank.Class == v1.PodQOSGuaranteed), rank(a.Rank.Class == v1.PodQOSGuaranteed)),
		a.Since.Compare(b.Since),
		cmp.Compare(a.UID, b.UID))
}

// greater is the greater of each.
func greater(a, b v1.ResourceList) v1.ResourceList {
	out := maps.Clone(a)
	if out == nil {
		out = v1.ResourceList{}
	}
	for name, q := range b {
		if had, ok := out[name]; !ok || q.Cmp(had) > 0 {
			out[name] = q
		}
	}
	return out
}
