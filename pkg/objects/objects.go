// Package objects holds what pods refer to by name: ConfigMaps, Secrets and
// RuntimeClasses, and the services that their variables tell of, as the sources
// gave them or an apiserver said. It says which pods a change concerns, so that
// nobody has to look again from time to time.
package objects

import (
	"maps"
	"sync"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Object is a *v1.ConfigMap, *v1.Secret, *nodev1.RuntimeClass or *v1.Service.
// It is shared and must not be altered.
type Object interface {
	metav1.Object
	runtime.Object
}

// Key names one object.
type Key struct {
	Kind      string // ConfigMap, Secret, RuntimeClass, Service
	Namespace string // empty for a RuntimeClass
	Name      string // empty for all services of the namespace
}

// String is the name for people, as in ConfigMap default/settings.
func (k Key) String() string {
	if k.Name == "" {
		return "every " + k.Kind + " of " + k.Namespace
	}
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// The kinds of objects.
const (
	ConfigMap    = "ConfigMap"
	Secret       = "Secret"
	RuntimeClass = "RuntimeClass"
	Service      = "Service"
)

// KeyOf is the name of an object that a source gives; its Kind is empty for
// what pods don't refer to.
func KeyOf(o Object) Key {
	k := Key{Namespace: o.GetNamespace(), Name: o.GetName()}
	switch o.(type) {
	case *v1.ConfigMap:
		k.Kind = ConfigMap
	case *v1.Secret:
		k.Kind = Secret
	case *nodev1.RuntimeClass:
		k.Kind = RuntimeClass
	}
	return k
}

// Store is all objects that are known. It is safe for concurrent use.
type Store struct {
	// Remote says that an apiserver has the objects, and that only its answers
	// count: what it has not said anything of yet is not absent but unknown.
	Remote bool

	mu        sync.RWMutex
	sources   map[string]map[Key]Object
	questions map[Key]*Question
}

// Replace makes the objects all that the source gives, and returns the names of
// those that came, went or changed. Of two of one name the first counts.
func (s *Store) Replace(source string, given []Object) map[Key]bool {
	next := make(map[Key]Object, len(given))
	for _, o := range given {
		if k := KeyOf(o); k.Kind != "" && next[k] == nil {
			next[k] = o
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := map[Key]bool{}
	before := s.sources[source]
	for k, o := range next {
		if old, known := before[k]; !known || old != o && !equality.Semantic.DeepEqual(old, o) {
			changed[k] = true
		}
	}
	for k := range before {
		if next[k] == nil {
			changed[k] = true
		}
	}
	s.sources = maps.Clone(s.sources)
	if s.sources == nil {
		s.sources = map[string]map[Key]Object{}
	}
	s.sources[source] = next
	return changed
}

// find is the object of that name, from any source or from the apiserver.
func (s *Store) find(k Key) (Object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.Remote {
		found, err := s.answer(k)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			return found[0], nil
		}
	}
	for _, objects := range s.sources {
		if o := objects[k]; o != nil && !s.Remote {
			return o, nil
		}
	}
	singular := map[string]string{ConfigMap: "configmap", Secret: "secret", RuntimeClass: "runtimeclass.node.k8s.io"}
	return nil, apierrors.NewNotFound(schema.ParseGroupResource(singular[k.Kind]), k.Name)
}

func get[T Object](s *Store, k Key) (T, error) {
	o, err := s.find(k)
	if err != nil {
		var none T
		return none, err
	}
	return o.(T), nil
}

// ConfigMap of that name; an error for which apierrors.IsNotFound holds if
// there is none, an *Unread while the apiserver has not said.
func (s *Store) ConfigMap(namespace, name string) (*v1.ConfigMap, error) {
	return get[*v1.ConfigMap](s, Key{ConfigMap, namespace, name})
}

// Secret of that name; errors are as for ConfigMap.
func (s *Store) Secret(namespace, name string) (*v1.Secret, error) {
	return get[*v1.Secret](s, Key{Secret, namespace, name})
}

// RuntimeClass of that name; errors are as for ConfigMap.
func (s *Store) RuntimeClass(name string) (*nodev1.RuntimeClass, error) {
	return get[*nodev1.RuntimeClass](s, Key{Kind: RuntimeClass, Name: name})
}
