package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Preempting is the reason of a pod that waits for others to make room, and of
// those who are ended for it (behaviour row 1.2-15).
const Preempting = "Preempting"

// Rank says which pods come before which.
type Rank struct {
	// Critical is of a static pod, and of one with a system priority.
	Critical bool
	// Priority is nil of a pod that no apiserver has given one.
	Priority *int32
	Class    v1.PodQOSClass
}

func rankOf(p *v1.Pod) Rank {
	return Rank{Critical: pod.IsCritical(p), Priority: p.Spec.Priority, Class: pod.QoS(p)}
}

// above says whether a pod of rank o may be ended for one of rank r.
func (r Rank) above(o Rank) bool {
	return r.Critical && !o.Critical || r.Priority != nil && o.Priority != nil && *r.Priority > *o.Priority
}

// Victims are the pods that have to end before the pod may begin, none if it
// does not wait for any.
func Victims(l Ledger, uid types.UID) []types.UID { return l.Room[uid] }

// Leaves says whether the pod is to end for another's sake.
func Leaves(l Ledger, uid types.UID) bool { return slices.Contains(l.leaving(), uid) }

// yielded is the verdict on a pod that was let in: it may have to wait for others.
func (l Ledger) yielded(c Claim, v pod.Verdict) pod.Verdict {
	first := l.Room[c.UID]
	if v.State != pod.Granted || len(first) == 0 {
		return v
	}
	names := make([]string, 0, len(first))
	for _, uid := range first {
		names = append(names, l.Grants[uid].Pod)
	}
	slices.Sort(names)
	return pod.Verdict{State: pod.Waiting, Reason: Preempting, Message: "there is room once these have ended: " + strings.Join(names, ", ")}
}

// leaving are those who are to end for another's sake.
func (l Ledger) leaving() (out []types.UID) {
	for _, uids := range l.Room {
		out = append(out, uids...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// without is the ledger after the end of some.
func (l Ledger) without(gone []types.UID) Ledger {
	if len(gone) > 0 {
		l.Grants = maps.Clone(l.Grants)
		for _, uid := range gone {
			delete(l.Grants, uid)
		}
	}
	return l
}

// roomFor notes whose end a pod waits for.
func roomFor(room map[types.UID][]types.UID, uid types.UID, first []types.UID) map[types.UID][]types.UID {
	next := make(map[types.UID][]types.UID, len(room)+1)
	maps.Copy(next, room)
	next[uid] = first
	return next
}

// vacate notes that a pod has ended, and says who need not wait any longer.
func vacate(room map[types.UID][]types.UID, gone types.UID) (map[types.UID][]types.UID, []types.UID) {
	if len(room) == 0 {
		return room, nil
	}
	left := map[types.UID][]types.UID{}
	var next []types.UID
	for uid, first := range room {
		first = slices.DeleteFunc(slices.Clone(first), func(u types.UID) bool { return u == gone })
		switch {
		case uid == gone:
		case len(first) == 0:
			next = append(next, uid)
		default:
			left[uid] = first
		}
	}
	slices.Sort(next)
	return left, next
}

// candidate is a pod that may have to make room.
type candidate struct {
	uid types.UID
	Grant
}

// victims are whom to end so that the pod has what it is short of: as few
// guaranteed pods as can be, then as few burstable ones, then best-effort ones,
// and of each kind those whose requests come nearest to what is missing. why
// says that even all of them would not do.
func (l Ledger) victims(c Claim, short []shortage) (victims []types.UID, why string) {
	if len(short) == 0 {
		return nil, ""
	}
	classes := map[v1.PodQOSClass][]candidate{}
	for _, uid := range slices.Sorted(maps.Keys(l.Grants)) {
		if g := l.Grants[uid]; c.Rank.above(g.Rank) {
			classes[g.Rank.Class] = append(classes[g.Rank.Class], candidate{uid, g})
		}
	}
	guaranteed, burstable, besteffort := classes[v1.PodQOSGuaranteed], classes[v1.PodQOSBurstable], classes[v1.PodQOSBestEffort]
	wanted := needed{}
	for _, s := range short {
		wanted = append(wanted, amountOf{s.name, s.missing()})
	}
	if left := wanted.less(besteffort, burstable, guaranteed); len(left) > 0 {
		return nil, "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: " +
			"no set of running pods found to reclaim resources: " + left.String()
	}
	guaranteed = nearest(guaranteed, wanted.less(besteffort, burstable))
	burstable = nearest(burstable, wanted.less(besteffort, guaranteed))
	besteffort = nearest(besteffort, wanted.less(burstable, guaranteed))
	for _, v := range slices.Concat(besteffort, burstable, guaranteed) {
		victims = append(victims, v.uid)
	}
	return victims, ""
}

// nearest takes, again and again, the pod that leaves least of what is needed
// open; of two alike the smaller, then the one of less priority.
func nearest(from []candidate, n needed) (taken []candidate) {
	from = slices.Clone(from)
	for len(n) > 0 && len(from) > 0 {
		best := slices.MinFunc(from, func(a, b candidate) int {
			return cmp.Or(
				cmp.Compare(n.distance(a), n.distance(b)),
				cmp.Compare(a.amount(v1.ResourceMemory), b.amount(v1.ResourceMemory)),
				cmp.Compare(a.amount(v1.ResourceCPU), b.amount(v1.ResourceCPU)),
				cmp.Compare(priority(a.Rank), priority(b.Rank)),
				cmp.Compare(a.uid, b.uid))
		})
		taken = append(taken, best)
		from = slices.DeleteFunc(from, func(o candidate) bool { return o.uid == best.uid })
		n = n.less([]candidate{best})
	}
	return taken
}

// amount is how much of the resource the pod's end leaves free.
func (c candidate) amount(name v1.ResourceName) int64 {
	if name == v1.ResourcePods {
		return 1
	}
	return amount(name, c.Requests[name])
}

func priority(r Rank) int32 {
	if r.Priority == nil {
		return 0
	}
	return *r.Priority
}

// needed is what has to become free, each more than 0.
type needed []amountOf

type amountOf struct {
	name v1.ResourceName
	n    int64
}

// less is what is still needed once those pods have ended.
func (n needed) less(ended ...[]candidate) (left needed) {
	for _, of := range n {
		for _, c := range slices.Concat(ended...) {
			of.n -= c.amount(of.name)
		}
		if of.n > 0 {
			left = append(left, of)
		}
	}
	return left
}

// distance is how far the pod's requests are from what is needed: for each
// resource the square of the share that stays open.
func (n needed) distance(c candidate) (sum float64) {
	for _, of := range n {
		if open := float64(of.n - c.amount(of.name)); open > 0 {
			share := open / float64(of.n)
			sum += share * share
		}
	}
	return sum
}

func (n needed) String() string {
	var b strings.Builder
	for _, of := range n {
		fmt.Fprintf(&b, "(res: %v, q: %d), ", of.name, of.n)
	}
	return "[" + b.String() + "]"
}
