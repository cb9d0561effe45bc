package cri

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// environment is the container's variables in the order of its spec, a later
// one of the same name in the place of the first (behaviour rows 1.7-1 to
// 1.7-6).
func environment(p *v1.Pod, c *v1.Container, podIPs []string, o PodOptions) ([]*runtimeapi.KeyValue, map[string]string, error) {
	for i, from := range c.EnvFrom {
		switch {
		case from.ConfigMapRef != nil:
			return nil, nil, fmt.Errorf("envFrom[%d]: config map %q cannot be read: config maps are not built yet", i, from.ConfigMapRef.Name)
		case from.SecretRef != nil:
			return nil, nil, fmt.Errorf("envFrom[%d]: secret %q cannot be read: secrets are not built yet", i, from.SecretRef.Name)
		}
	}
	values := map[string]string{}
	var names []string
	for _, e := range c.Env {
		value := e.Value
		switch {
		case value != "":
			value = expand(value, values)
		case e.ValueFrom != nil:
			var err error
			if value, err = valueFrom(p, c, e.ValueFrom, podIPs, o); err != nil {
				return nil, nil, fmt.Errorf("env %s: %w", e.Name, err)
			}
		}
		if _, again := values[e.Name]; !again {
			names = append(names, e.Name)
		}
		values[e.Name] = value
	}
	var out []*runtimeapi.KeyValue
	for _, name := range names {
		out = append(out, &runtimeapi.KeyValue{Key: name, Value: []byte(values[name])})
	}
	return out, values, nil
}

func valueFrom(p *v1.Pod, c *v1.Container, from *v1.EnvVarSource, podIPs []string, o PodOptions) (string, error) {
	switch {
	case from.FieldRef != nil:
		return field(p, from.FieldRef.FieldPath, podIPs, o)
	case from.ConfigMapKeyRef != nil:
		return "", fmt.Errorf("config map %q cannot be read: config maps are not built yet", from.ConfigMapKeyRef.Name)
	case from.SecretKeyRef != nil:
		return "", fmt.Errorf("secret %q cannot be read: secrets are not built yet", from.SecretKeyRef.Name)
	case from.ResourceFieldRef != nil:
		return resourceField(p, c, from.ResourceFieldRef)
	case from.FileKeyRef != nil:
		return "", fmt.Errorf("fileKeyRef %q is not built yet", from.FileKeyRef.Path)
	}
	return "", fmt.Errorf("valueFrom names no source")
}

// resourceField is a request or limit in units of the divisor, rounded up
// (behaviour row 1.7-7).
func resourceField(p *v1.Pod, c *v1.Container, from *v1.ResourceFieldSelector) (string, error) {
	if from.ContainerName != "" {
		var err error
		if c, err = containerNamed(p, from.ContainerName); err != nil {
			return "", fmt.Errorf("resourceFieldRef: %w", err)
		}
	}
	kind, name, _ := strings.Cut(from.Resource, ".")
	list, ok := map[string]v1.ResourceList{"limits": c.Resources.Limits, "requests": c.Resources.Requests}[kind]
	if !ok {
		return "", fmt.Errorf("resourceFieldRef: unsupported resource %q", from.Resource)
	}
	q, set := list[v1.ResourceName(name)]
	if !set && kind == "limits" {
		return "", fmt.Errorf("resourceFieldRef %s: the container has no such limit, and the node's allocatable in its place is not built yet", from.Resource)
	}
	unit := from.Divisor
	if unit.IsZero() {
		unit = resource.MustParse("1")
	}
	if name == string(v1.ResourceCPU) {
		return ceil(q.MilliValue(), unit.MilliValue()), nil
	}
	return ceil(q.Value(), unit.Value()), nil
}

func ceil(value, unit int64) string {
	return strconv.FormatInt(int64(math.Ceil(float64(value)/float64(unit))), 10)
}

// field is the pod's field at path (behaviour row 1.7-6).
func field(p *v1.Pod, path string, podIPs []string, o PodOptions) (string, error) {
	if key, ok := subscript(path, "metadata.labels"); ok {
		return p.Labels[key], nil
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return p.Annotations[key], nil
	}
	var hostIPs []string
	if o.HostIPs != nil && strings.HasPrefix(path, "status.hostIP") {
		hostIPs = o.HostIPs()
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
		return first(podIPs), nil
	case "status.podIPs":
		return strings.Join(podIPs, ","), nil
	case "status.hostIP":
		return first(hostIPs), nil
	case "status.hostIPs":
		return strings.Join(hostIPs, ","), nil
	}
	return "", fmt.Errorf("fieldRef: unsupported fieldPath %q", path)
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

// expand replaces $(NAME) by its value. An unknown name stays as it is, $$
// stands for one $ (behaviour row 1.7-2).
func expand(s string, values map[string]string) string {
	return expandWith(s, func(name string) string {
		if value, ok := values[name]; ok {
			return value
		}
		return "$(" + name + ")"
	})
}

func expandWith(s string, value func(name string) string) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			return out.String() + s
		}
		out.WriteString(s[:i])
		s = s[i+1:]
		end := strings.IndexByte(s, ')')
		switch {
		case s[0] == '$':
			out.WriteByte('$')
			s = s[1:]
		case s[0] == '(' && end > 0:
			out.WriteString(value(s[1:end]))
			s = s[end+1:]
		default:
			out.WriteByte('$')
		}
	}
}

func expandAll(list []string, values map[string]string) []string {
	var out []string
	for _, s := range list {
		out = append(out, expand(s, values))
	}
	return out
}
