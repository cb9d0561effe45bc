// Package env says what the variables of a container are: those of its spec,
// with what they take from the pod, its resources, the node, and the objects
// and files that it refers to, and what $(NAME) stands for.
package env

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
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
	// Allocatable stands for a limit that a container doesn't have.
	Allocatable v1.ResourceList
	// Services are all that the pod may be told of; an error says that they are
	// not known yet. Nil without an apiserver.
	Services func(p *v1.Pod) ([]*v1.Service, error)
	// Stale says that what is known of a volume's objects may be older than what
	// the volume shows already. Nil for never.
	Stale func(p *v1.Pod, vol *v1.Volume) bool
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
	// HostIPs are the node's addresses, the primary first.
	HostIPs []string
	// Volumes are the host folders of the pod's volumes by their names.
	Volumes map[string]string
}

// Container is the variables of a container (behaviour row 1.7-1): those of
// envFrom, then those of env, a later one of a name in the place of the first,
// then those of services that neither has set.
func (r Resolver) Container(p *v1.Pod, c *v1.Container, at Surroundings) ([]Var, error) {
	b := building{Resolver: r, pod: p, container: c, at: at, values: map[string]string{}}
	if r.Services != nil {
		services, err := r.Services(p)
		if err != nil {
			return nil, err
		}
		b.services = ServiceVars(services, p.Namespace, ptr.Deref(p.Spec.EnableServiceLinks, true))
	}
	for i := range c.EnvFrom {
		if err := b.from(&c.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	known := Values(b.services)
	for i := range c.Env {
		if err := b.add(&c.Env[i], known); err != nil {
			return nil, err
		}
	}
	for _, v := range b.services {
		if _, again := b.values[v.Name]; !again {
			b.set(v.Name, v.Value)
		}
	}
	return b.vars()
}

// building is a container's variables while they are put together.
type building struct {
	Resolver
	pod       *v1.Pod
	container *v1.Container
	at        Surroundings
	services  []Var
	names     []string // of values, in order
	values    map[string]string
	size      int            // of all values, in bytes
	found     map[string]bag // objects, so that all variables are of one moment
}

func (b *building) set(name, value string) {
	old, again := b.values[name]
	if !again {
		b.names = append(b.names, name)
	}
	b.size += len(value) - len(old)
	b.values[name] = value
}

// add takes in one variable. $(NAME) stands for those before it, then for those
// of services.
func (b *building) add(e *v1.EnvVar, services map[string]string) error {
	switch {
	case e.Value != "":
		value, err := expandWith(e.Value, maxText-b.size, func(name string) string {
			for _, values := range []map[string]string{b.values, services} {
				if value, ok := values[name]; ok {
					return value
				}
			}
			return "$(" + name + ")"
		})
		if err != nil {
			return fmt.Errorf("variables up to %s: %w", e.Name, err)
		}
		b.set(e.Name, value)
	case e.ValueFrom == nil:
		b.set(e.Name, "")
	default:
		value, err := b.valueFrom(e.ValueFrom)
		switch {
		case err == nil:
			b.set(e.Name, value)
		case !errors.Is(err, errAbsent):
			return err
		}
	}
	return nil
}

// errAbsent says that an optional source isn't there: its variable isn't either.
var errAbsent = errors.New("is optional and not there")

func (b *building) valueFrom(from *v1.EnvVarSource) (string, error) {
	switch {
	case from.FieldRef != nil:
		return Field(b.pod, from.FieldRef.FieldPath, b.at)
	case from.ResourceFieldRef != nil:
		return b.Resource(b.pod, b.container, from.ResourceFieldRef)
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		return b.key("ConfigMap", ref.Name, ref.Key, ptr.Deref(ref.Optional, false))
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		return b.key("Secret", ref.Name, ref.Key, ptr.Deref(ref.Optional, false))
	case from.FileKeyRef != nil:
		return b.fileKey(from.FileKeyRef)
	}
	return "", errors.New("valueFrom names no source")
}

// vars are the variables in order. Values that the runtime can't be told are
// refused without being shown.
func (b *building) vars() ([]Var, error) {
	if b.size > maxText {
		return nil, fmt.Errorf("variables: %w", errTooLong)
	}
	out := make([]Var, len(b.names))
	for i, name := range b.names {
		value := b.values[name]
		if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
			return nil, fmt.Errorf("variable %s: its value is not text (UTF-8 without NUL): mount it as a volume instead", name)
		}
		out[i] = Var{name, value}
	}
	return out, nil
}
