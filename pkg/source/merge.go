package source

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// Merge is what all sources want together: the newest Update of each. It is a
// value; With returns another one.
type Merge struct {
	sources   []string
	latest    map[string]Update
	accepted  []arrival // oldest first
	objects   []Given   // one of each name, oldest first
	conflicts []Problem
}

// arrival is a wanted pod and the source that wants it.
type arrival struct {
	source string
	Desired
}

// claim is a full name within a source, held by one origin.
type claim struct {
	source string
	name   types.NamespacedName
}

// NewMerge expects the sources of these names.
func NewMerge(names ...string) Merge { return Merge{sources: names} }

// With takes in the newest Update of one source. Of two pods of one full name
// within a source (behaviour row 1.1-7), and of two pods of one UID, the one
// that is wanted already stays and the other is a Conflict; of two new ones, the
// first stays.
func (m Merge) With(u Update) Merge {
	next := Merge{sources: m.sources, latest: maps.Clone(m.latest)}
	if next.latest == nil {
		next.latest = map[string]Update{}
	}
	next.latest[u.Source] = u

	rank := map[claim]int{} // place in the order of those accepted before
	holder := map[claim]string{}
	for i, a := range m.accepted {
		c := claim{a.source, fullName(a.Desired)}
		rank[c], holder[c] = i, a.Origin
	}
	var before, others []arrival
	for _, name := range next.names() {
		for _, d := range next.latest[name].Pods {
			a, c := arrival{name, d}, claim{name, fullName(d)}
			if holder[c] == d.Origin {
				before = append(before, a)
			} else {
				others = append(others, a)
			}
		}
	}
	slices.SortStableFunc(before, func(a, b arrival) int {
		return rank[claim{a.source, fullName(a.Desired)}] - rank[claim{b.source, fullName(b.Desired)}]
	})
	next.accept(append(before, others...))
	next.acceptObjects(m.objects)
	return next
}

// accept takes the pods in their order, and notes what stands in the way of the
// others.
func (m *Merge) accept(candidates []arrival) {
	names := map[claim]string{}
	uids := map[types.UID]string{}
	for _, a := range candidates {
		c := claim{a.source, fullName(a.Desired)}
		conflict := Problem{Origin: a.Origin, Pod: c.name.String(), Reason: FailedValidation}
		if other, taken := names[c]; taken {
			conflict.Field = "metadata.name"
			conflict.Message = fmt.Sprintf("duplicate pod name %q, ignoring: %s has a pod of this name", a.Pod.Name, other)
			m.conflicts = append(m.conflicts, conflict)
			continue
		}
		if other, taken := uids[a.Pod.UID]; taken {
			conflict.Field = "metadata.uid"
			conflict.Message = fmt.Sprintf("duplicate pod UID %q, ignoring: %s has a pod of this UID", a.Pod.UID, other)
			m.conflicts = append(m.conflicts, conflict)
			continue
		}
		names[c], uids[a.Pod.UID] = a.Origin, a.Origin
		m.accepted = append(m.accepted, a)
	}
}

// names are all sources that have delivered, in a stable order.
func (m Merge) names() []string { return slices.Sorted(maps.Keys(m.latest)) }

// Synced says that every expected source has delivered (behaviour row 1.1-16).
func (m Merge) Synced() bool {
	for _, name := range m.sources {
		if !m.Has(name) {
			return false
		}
	}
	return true
}

// Has says that the source has delivered.
func (m Merge) Has(source string) bool {
	_, ok := m.latest[source]
	return ok
}

// Pods are all wanted pods, by the moment they were created in an apiserver if
// they were, else first, in the order they arrived.
func (m Merge) Pods() []Desired {
	pods := make([]Desired, len(m.accepted))
	for i, a := range m.accepted {
		pods[i] = a.Desired
	}
	slices.SortStableFunc(pods, func(a, b Desired) int {
		return a.Pod.CreationTimestamp.Compare(b.Pod.CreationTimestamp.Time)
	})
	return pods
}

// Held are the origins of one source that can't be used now. See Update.Held.
func (m Merge) Held(source string) []string { return m.latest[source].Held }

// Conflicts are the pods and objects that are ignored for another's sake. Unlike the
// problems of the sources nobody has logged them.
func (m Merge) Conflicts() []Problem { return m.conflicts }

// Problems are all that is wrong now: what the sources report and Conflicts.
func (m Merge) Problems() []Problem {
	var all []Problem
	for _, name := range m.names() {
		all = append(all, m.latest[name].Problems...)
	}
	return append(all, m.conflicts...)
}
