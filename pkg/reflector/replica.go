package reflector

import (
	"cmp"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Replica is a Store for few objects of one namespace, or of none: whoever asked
// for them is told all of them whenever one changes.
type Replica[T metav1.Object] struct {
	objects map[string]T // by name
	trim    func(T) T
	tell    func([]T)
}

// NewReplica makes a replica for one Reflector. trim gives what is kept of an
// object; tell gets all there are, by name.
func NewReplica[T metav1.Object](trim func(T) T, tell func([]T)) *Replica[T] {
	return &Replica[T]{objects: map[string]T{}, trim: trim, tell: tell}
}

// Add implements cache.ReflectorStore.
func (r *Replica[T]) Add(o any) error { return r.Update(o) }

// Update implements cache.ReflectorStore.
func (r *Replica[T]) Update(o any) error {
	return r.change(func() { r.put(o) })
}

// Delete implements cache.ReflectorStore.
func (r *Replica[T]) Delete(o any) error {
	return r.change(func() { delete(r.objects, o.(T).GetName()) })
}

// Replace implements cache.ReflectorStore.
func (r *Replica[T]) Replace(all []any, _ string) error {
	return r.change(func() {
		clear(r.objects)
		for _, o := range all {
			r.put(o)
		}
	})
}

// Resync implements cache.ReflectorStore.
func (r *Replica[T]) Resync() error { return nil }

// Transformer has a list be trimmed while it is streamed.
func (r *Replica[T]) Transformer() cache.TransformFunc {
	return func(o any) (any, error) { return r.trim(o.(T)), nil }
}

func (r *Replica[T]) put(o any) {
	object := r.trim(o.(T))
	r.objects[object.GetName()] = object
}

func (r *Replica[T]) change(make func()) error {
	make()
	r.tell(slices.SortedFunc(maps.Values(r.objects), func(a, b T) int { return cmp.Compare(a.GetName(), b.GetName()) }))
	return nil
}
