package cgroups

import v1 "k8s.io/api/core/v1"

// Dir is the folder of a cgroup, by its absolute name, in the hierarchy of a
// controller; "" when the machine has none for it. v2 has one hierarchy for all,
// whose name is "".
func (f Facts) Dir(controller, name string) string {
	mount, ok := f.mounts[controller]
	if !ok {
		return ""
	}
	return mount + name // asked thousands of times by a scrape
}

// Tiers are the cgroups that pods are in, kubepods first; none when the runtime
// puts pods where it likes.
func (t *Tree) Tiers() []string {
	if !t.opts.PerQoS {
		return nil
	}
	return []string{t.name(v1.PodQOSGuaranteed), t.name(v1.PodQOSBurstable), t.name(v1.PodQOSBestEffort)}
}
