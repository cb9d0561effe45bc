package pod

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// statusMounts are the container's volume mounts (behaviour row 1.3-26). Whether
// one is read-only all the way down is what the runtime did; before it did
// anything, what the spec insists on.
func (m member) statusMounts(k *Container) []v1.VolumeMountStatus {
	var out []v1.VolumeMountStatus
	for _, vm := range m.VolumeMounts {
		s := v1.VolumeMountStatus{Name: vm.Name, MountPath: vm.MountPath, ReadOnly: vm.ReadOnly}
		if vm.ReadOnly {
			mode := v1.RecursiveReadOnlyDisabled
			insists := vm.RecursiveReadOnly != nil && *vm.RecursiveReadOnly == v1.RecursiveReadOnlyEnabled
			if insists || k != nil && slices.Contains(k.RecursiveReadOnly, "/"+strings.TrimPrefix(vm.MountPath, "/")) {
				mode = v1.RecursiveReadOnlyEnabled
			}
			s.RecursiveReadOnly = &mode
		}
		out = append(out, s)
	}
	return out
}
