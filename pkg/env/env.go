// Package env says what the variables of a container are: those of its spec,
// with what they take from the pod, its resources, the node, and the objects
// and files that it refers to, and what $(NAME) stands for.
package env

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Objects are what variables are taken from besides the pod. Their errors are
// those of an apiserver: apierrors.IsNotFound holds for what is not there.
type Objects interface {
	ConfigMap(namespace, name string) (*v1.ConfigMap, error)
	Secret(namespace, name string) (*v1.Secret, error)
}

// Resolver finds the variables of containers on this node.
type Resolver struct {
	Objects Objects
	// HostIPs are the node's addresses, the primary first.
	HostIPs []string
	// Allocatable stands for a limit that a container doesn't have.
	Allocatable v1.ResourceList
}

// Var is one variable.
type Var struct{ Name, Value string }

// Values are the variables by name.
func Values(vars []Var) map[string]string {
	out := make(map[string]string, len(vars))
	for _, v := range vars {
		out[v.Name] = v.Value
	}
	return out
}

// Surroundings are what a container finds when it is created.
type Surroundings struct {
	PodIPs []string
	// Volumes are the host folders of the pod's volumes by their names.
	Volumes map[string]string
}

// Container is the variables of a container in the order of its spec, a later
// one of the same name in the place of the first (behaviour rows 1.7-1 to
// 1.7-8).
func (r Resolver) Container(p *v1.Pod, c *v1.Container, at Surroundings) ([]Var, error) {
	for i, from := range c.EnvFrom {
		switch {
		case from.ConfigMapRef != nil:
			return nil, fmt.Errorf("envFrom[%d]: config map %q cannot be read: config maps are not built yet", i, from.ConfigMapRef.Name)
		case from.SecretRef != nil:
			return nil, fmt.Errorf("envFrom[%d]: secret %q cannot be read: secrets are not built yet", i, from.SecretRef.Name)
		}
	}
	values := map[string]string{}
	var names []string
	for _, e := range c.Env {
		value := e.Value
		switch {
		case value != "":
			value = Expand(value, values)
		case e.ValueFrom != nil:
			var err error
			if value, err = r.valueFrom(p, c, e.ValueFrom, at); err != nil {
				return nil, fmt.Errorf("env %s: %w", e.Name, err)
			}
		}
		if _, again := values[e.Name]; !again {
			names = append(names, e.Name)
		}
		values[e.Name] = value
	}
	var out []Var
	for _, name := range names {
		out = append(out, Var{name, values[name]})
	}
	return out, nil
}

func (r Resolver) valueFrom(p *v1.Pod, c *v1.Container, from *v1.EnvVarSource, at Surroundings) (string, error) {
	switch {
	case from.FieldRef != nil:
		return r.Field(p, from.FieldRef.FieldPath, at.PodIPs)
	case from.ConfigMapKeyRef != nil:
		return "", fmt.Errorf("config map %q cannot be read: config maps are not built yet", from.ConfigMapKeyRef.Name)
	case from.SecretKeyRef != nil:
		return "", fmt.Errorf("secret %q cannot be read: secrets are not built yet", from.SecretKeyRef.Name)
	case from.ResourceFieldRef != nil:
		return r.Resource(p, c, from.ResourceFieldRef)
	case from.FileKeyRef != nil:
		return "", fmt.Errorf("fileKeyRef %q is not built yet", from.FileKeyRef.Path)
	}
	return "", fmt.Errorf("valueFrom names no source")
}

// Resource is a request or limit in units of the divisor, rounded up, of the
// container that the selector names, else of c (behaviour row 1.7-7).
func (r Resolver) Resource(p *v1.Pod, c *v1.Container, from *v1.ResourceFieldSelector) (string, error) {
	if from.ContainerName != "" {
		if c = pod.FindContainer(p, from.ContainerName); c == nil {
			return "", fmt.Errorf("resourceFieldRef: pod has no container %q", from.ContainerName)
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

// Field is the pod's field at path (behaviour row 1.7-6).
func (r Resolver) Field(p *v1.Pod, path string, podIPs []string) (string, error) {
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
		return first(podIPs), nil
	case "status.podIPs":
		return strings.Join(podIPs, ","), nil
	case "status.hostIP":
		return first(r.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(r.HostIPs, ","), nil
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

// Expand replaces $(NAME) by its value. An unknown name stays as it is, $$
// stands for one $ (behaviour row 1.7-2).
func Expand(s string, values map[string]string) string {
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

// ExpandStrictly needs a value that isn't empty for every name (behaviour row
// 1.7-9): an empty subPath would mount the whole volume.
func ExpandStrictly(s string, values map[string]string) (string, error) {
	var missing []string
	out := expandWith(s, func(name string) string {
		if values[name] == "" {
			missing = append(missing, name)
		}
		return values[name]
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("%q: missing value for %s", s, strings.Join(missing, ", "))
	}
	return out, nil
}
