package cgroups

import (
	"path"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The two cgroup drivers: who makes the cgroups.
const (
	Cgroupfs = "cgroupfs"
	Systemd  = "systemd"
)

// Name is the cgroup of a pod below cgroupRoot, as an absolute path that every
// hierarchy has in common (behaviour rows 1.15-1, 1.15-2).
func Name(root string, uid types.UID, class v1.PodQOSClass, driver string) string {
	return join(driver, append(tier(root, class), "pod"+string(uid)))
}

// classes are those that have a tier of their own.
var classes = []v1.PodQOSClass{v1.PodQOSGuaranteed, v1.PodQOSBurstable, v1.PodQOSBestEffort}

// tier is the class's place in the tree, element by element.
func tier(root string, class v1.PodQOSClass) []string {
	parts := kubepods(root)
	switch class {
	case v1.PodQOSBurstable:
		return append(parts, "burstable")
	case v1.PodQOSBestEffort:
		return append(parts, "besteffort")
	}
	return parts
}

func kubepods(root string) []string {
	var parts []string
	for _, part := range strings.Split(root, "/") {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return append(parts, "kubepods")
}

// join writes the elements as the driver does. systemd spells the way to a
// slice out in its name, with '-' between the elements, so that a '-' within an
// element becomes '_'.
func join(driver string, parts []string) string {
	if driver != Systemd {
		return "/" + path.Join(parts...)
	}
	name, prefix := "", ""
	for _, part := range parts {
		prefix += strings.ReplaceAll(part, "-", "_")
		name += "/" + prefix + ".slice"
		prefix += "-"
	}
	return name
}
