package ledger

import (
	"maps"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Users are the ranges of user IDs that pods with a user namespace of their
// own get (behaviour row 1.9-9): no ID is in two pods at once.
type Users struct {
	// First is the first ID of the first range, Length how many each has, and
	// Count how many ranges there are.
	First, Length uint32
	Count         int
	// Held are the ranges by pod. One that a pod had before the agent began
	// counts, whatever its length.
	Held map[types.UID]pod.IDs
}

// grant gives the pod its range, the one that it has if there is one. ok is
// false when all are taken.
func (u Users) grant(uid types.UID) (next Users, ids pod.IDs, ok bool) {
	if ids, ok := u.Held[uid]; ok {
		return u, ids, true
	}
	for i := range u.Count {
		ids := pod.IDs{First: u.First + uint32(i)*u.Length, Length: u.Length}
		if u.taken(ids) {
			continue
		}
		held := make(map[types.UID]pod.IDs, len(u.Held)+1)
		maps.Copy(held, u.Held)
		held[uid] = ids
		u.Held = held
		return u, ids, true
	}
	return u, pod.IDs{}, false
}

func (u Users) taken(want pod.IDs) bool {
	for _, has := range u.Held {
		if want.Overlaps(has) {
			return true
		}
	}
	return false
}

func (u Users) release(uid types.UID) Users {
	if _, ok := u.Held[uid]; ok {
		u.Held = maps.Clone(u.Held)
		delete(u.Held, uid)
	}
	return u
}
