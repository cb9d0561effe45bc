package env

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Resource is a request or limit in units of the divisor, rounded up, of the
// container that the selector names, else of c (behaviour row 1.7-7). In place
// of a limit of cpu, memory or ephemeral-storage that isn't there stands the
// pod's, else what the node has for pods.
func (r Resolver) Resource(p *v1.Pod, c *v1.Container, from *v1.ResourceFieldSelector) (string, error) {
	if from.ContainerName != "" {
		if c = pod.FindContainer(p, from.ContainerName); c == nil {
			return "", fmt.Errorf("container %s not found", from.ContainerName)
		}
	}
	if c == nil {
		return "", fmt.Errorf("resourceFieldRef %s names no container", from.Resource)
	}
	kind, text, _ := strings.Cut(from.Resource, ".")
	name := v1.ResourceName(text)
	list, ok := map[string]v1.ResourceList{"limits": c.Resources.Limits, "requests": c.Resources.Requests}[kind]
	native := name == v1.ResourceCPU || name == v1.ResourceMemory || name == v1.ResourceEphemeralStorage
	if !ok || !native && !strings.HasPrefix(text, v1.ResourceHugePagesPrefix) {
		return "", fmt.Errorf("unsupported container resource : %s", from.Resource)
	}
	q := list[name]
	if kind == "limits" && native && q.IsZero() {
		q = r.limitOf(p, name)
	}
	unit := from.Divisor
	if unit.IsZero() {
		unit = resource.MustParse("1")
	}
	if name == v1.ResourceCPU {
		return ceil(q.MilliValue(), unit.MilliValue()), nil
	}
	return ceil(q.Value(), unit.Value()), nil
}

// limitOf is what bounds a container without a limit of its own.
func (r Resolver) limitOf(p *v1.Pod, name v1.ResourceName) resource.Quantity {
	if p.Spec.Resources != nil && resourcehelper.IsSupportedPodLevelResource(name) {
		if q := p.Spec.Resources.Limits[name]; !q.IsZero() {
			return q
		}
	}
	return r.Allocatable[name]
}

func ceil(value, unit int64) string {
	return strconv.FormatInt(int64(math.Ceil(float64(value)/float64(unit))), 10)
}

// Field is the pod's field at path (behaviour row 1.7-6). A pod in the host's
// network has the node's addresses.
func Field(p *v1.Pod, path string, at Surroundings) (string, error) {
	if key, ok := subscript(path, "metadata.labels"); ok {
		return p.Labels[key], nil
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return p.Annotations[key], nil
	}
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "metadata.labels":
		return lines(p.Labels), nil
	case "metadata.annotations":
		return lines(p.Annotations), nil
	case "spec.nodeName":
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.podIP":
		return first(at.podIPs(p)), nil
	case "status.podIPs":
		return strings.Join(at.podIPs(p), ","), nil
	case "status.hostIP":
		return first(at.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(at.HostIPs, ","), nil
	}
	return "", fmt.Errorf("fieldRef: unsupported fieldPath %q", path)
}

// podIPs are the pod's first address of each family, that of the node's primary
// address before the other.
func (at Surroundings) podIPs(p *v1.Pod) []string {
	given := at.PodIPs
	if p.Spec.HostNetwork && len(given) == 0 {
		given = at.HostIPs
	}
	primary := is4(first(at.HostIPs)) || len(at.HostIPs) == 0
	var out []string
	for _, family := range []bool{primary, !primary} {
		for _, text := range given {
			if ip, err := netip.ParseAddr(text); err == nil && ip.Unmap().Is4() == family {
				out = append(out, ip.Unmap().String())
				break
			}
		}
	}
	return out
}

func is4(text string) bool {
	ip, err := netip.ParseAddr(text)
	return err == nil && ip.Unmap().Is4()
}

// subscript is x for path of the form name['x'].
func subscript(path, name string) (string, bool) {
	rest, ok := strings.CutPrefix(path, name+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

func lines(m map[string]string) string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, key+"="+strconv.Quote(m[key]))
	}
	return strings.Join(out, "\n")
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
