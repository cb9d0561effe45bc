package pod

import v1 "k8s.io/api/core/v1"

// IDs is a range of the host's user and group IDs, which a pod's own user
// namespace shows from 0 on. The zero value is none.
type IDs struct{ First, Length uint32 }

// Overlaps says whether an ID is in both.
func (i IDs) Overlaps(o IDs) bool {
	return uint64(i.First) < uint64(o.First)+uint64(o.Length) && uint64(o.First) < uint64(i.First)+uint64(i.Length)
}

// OwnUsers says whether the pod asks for a user namespace of its own.
func OwnUsers(p *v1.Pod) bool { return p.Spec.HostUsers != nil && !*p.Spec.HostUsers }

// SecurityContexts are those of all containers that have one, in the order of
// the spec.
func SecurityContexts(p *v1.Pod) []*v1.SecurityContext {
	var out []*v1.SecurityContext
	for _, m := range members(p) {
		if m.SecurityContext != nil {
			out = append(out, m.SecurityContext)
		}
	}
	return out
}
