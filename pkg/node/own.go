package node

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/nodeagent/nodeagent/pkg/reflector"
)

// watch follows this node's own object, and no other.
func (r *Reporter) watch(ctx context.Context) error {
	nodes, own := r.Client.CoreV1().Nodes(), fields.OneTermEqualSelector(metav1.ObjectNameField, r.Settings.Name).String()
	source := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = own
			return nodes.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			o.FieldSelector = own
			return nodes.Watch(ctx, o)
		},
	}, r.Client)
	trouble := trouble{log: r.Log, what: "this node's object may not be watched"}
	watched := reflector.Reflector{ListerWatcher: source, Example: &v1.Node{}, Store: seen{r},
		Asked: func(err error) {
			switch { // of an apiserver that doesn't answer those tell who write
			case err == nil:
				trouble.over()
			case apierrors.IsForbidden(err):
				trouble.failed(ctx, err)
			}
		}}
	watched.Run(ctx)
	return ctx.Err()
}

// seen takes what the watch shows.
type seen struct{ *Reporter }

// Add implements cache.ReflectorStore.
func (s seen) Add(object any) error { return s.Update(object) }

// Update implements cache.ReflectorStore. An event that is older than what our
// own write brought back is late.
func (s seen) Update(object any) error {
	n, known := object.(*v1.Node), s.Node()
	if known != nil && known.UID == n.UID {
		if order, err := resourceversion.CompareResourceVersion(n.ResourceVersion, known.ResourceVersion); err == nil && order <= 0 {
			return nil
		}
	}
	s.take(n)
	return nil
}

// Delete implements cache.ReflectorStore.
func (s seen) Delete(object any) error {
	if n, known := object.(*v1.Node), s.Node(); known == nil || known.UID == n.UID {
		s.take(nil)
	}
	return nil
}

// Replace implements cache.ReflectorStore. A full list counts whatever its age:
// the apiserver may have been set back to an older state.
func (s seen) Replace(list []any, _ string) error {
	for _, object := range list {
		if n := object.(*v1.Node); n.Name == s.Settings.Name {
			s.take(n)
			return nil
		}
	}
	s.take(nil)
	return nil
}

// Resync implements cache.ReflectorStore.
func (s seen) Resync() error { return nil }

// callTimeout bounds each call that must not hang: a path that swallows what is
// sent is left after that time, and tried anew.
const callTimeout = 5 * time.Second
