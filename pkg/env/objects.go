package env

import (
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
)

// bag is what variables can be taken from: a ConfigMap's data, not its
// binaryData, or a Secret's.
type bag map[string]string

// from takes in all keys of an object, in their order (behaviour row 1.7-3).
// Every key of an object makes a name that a variable may have.
func (b *building) from(from *v1.EnvFromSource) error {
	var keys bag
	var err error
	optional := false
	switch {
	case from.ConfigMapRef != nil:
		optional = ptr.Deref(from.ConfigMapRef.Optional, false)
		keys, err = b.object("ConfigMap", from.ConfigMapRef.Name)
	case from.SecretRef != nil:
		optional = ptr.Deref(from.SecretRef.Optional, false)
		keys, err = b.object("Secret", from.SecretRef.Name)
	}
	if optional && apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		b.set(from.Prefix+key, keys[key])
	}
	return nil
}

// key is one key of an object (behaviour row 1.7-3).
func (b *building) key(kind, name, key string, optional bool) (string, error) {
	keys, err := b.object(kind, name)
	if optional && apierrors.IsNotFound(err) {
		return "", errAbsent
	}
	if err != nil {
		return "", err
	}
	value, ok := keys[key]
	switch {
	case ok:
		return value, nil
	case optional:
		return "", errAbsent
	}
	return "", fmt.Errorf("couldn't find key %s in %s %s/%s", key, kind, b.pod.Namespace, name)
}

// object is the same at each call, whatever happens to it meanwhile.
func (b *building) object(kind, name string) (bag, error) {
	if keys, ok := b.found[kind+"/"+name]; ok {
		return keys, nil
	}
	keys := bag{}
	if kind == "ConfigMap" {
		m, err := b.Objects.ConfigMap(b.pod.Namespace, name)
		if err != nil {
			return nil, err
		}
		keys = m.Data
	} else {
		s, err := b.Objects.Secret(b.pod.Namespace, name)
		if err != nil {
			return nil, err
		}
		for key, value := range s.Data {
			keys[key] = string(value)
		}
	}
	if b.found == nil {
		b.found = map[string]bag{}
	}
	b.found[kind+"/"+name] = keys
	return keys, nil
}
