package source

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/objects"
	"github.com/nodeagent/nodeagent/pkg/reflector"
)

// linger is how long an object is still watched after the last pod that
// referred to it: its successor mostly refers to it too.
const linger = time.Minute

// references keeps true, in known, what the pods of this node refer to. Each
// object is watched by its name, as an apiserver allows a node nothing else,
// once for all pods, and for as long as there are any (behaviour row 1.12-9).
// Its functions are not for concurrent use.
type references struct {
	client kubernetes.Interface
	known  *objects.Store
	// renew tells the pods concerned what has changed.
	renew func(map[objects.Key]bool)
	// answered is called when something was answered for the first time.
	answered func()

	pods    map[types.UID][]objects.Key
	watches map[objects.Key]*objectWatch
	work    sync.WaitGroup
}

// objectWatch is one object, or the services of a namespace, that is watched,
// or was read once and for all.
type objectWatch struct {
	question *objects.Question
	users    int
	unused   time.Time // since when it has no users
	ctx      context.Context
	end      context.CancelFunc
}

// final says that what was read cannot change, and is watched no more.
func (w *objectWatch) final() bool { return w.ctx.Err() != nil }

// hold has all be watched that the pod refers to now.
func (r *references) hold(ctx context.Context, p *v1.Pod, now time.Time) {
	keys := map[objects.Key]bool{}
	objects.Visit(p, func(k objects.Key) { keys[k] = true })
	before := r.pods[p.UID]
	r.pods[p.UID] = slices.Collect(maps.Keys(keys))
	for k := range keys {
		w := r.watches[k]
		// What has the name of an immutable object now may be another one.
		if w == nil || w.users == 0 && w.final() {
			w = r.watch(ctx, k)
			r.watches[k] = w
		}
		w.users++
	}
	r.leave(before, now)
}

// release says that the pod refers to nothing any more.
func (r *references) release(uid types.UID, now time.Time) {
	r.leave(r.pods[uid], now)
	delete(r.pods, uid)
}

func (r *references) leave(keys []objects.Key, now time.Time) {
	for _, k := range keys {
		w := r.watches[k]
		w.users--
		w.unused = now
	}
}

// complete says whether the apiserver has answered all that the pod refers to.
func (r *references) complete(uid types.UID) bool {
	return !slices.ContainsFunc(r.pods[uid], func(k objects.Key) bool { return !r.known.Answered(k) })
}

// sweep ends what nobody has needed for a while, and says when to look again:
// never, if the time is zero.
func (r *references) sweep(now time.Time) (next time.Time) {
	for k, w := range r.watches {
		if w.users > 0 {
			continue
		}
		if due := w.unused.Add(linger); due.After(now) && !w.final() {
			next = sooner(next, due)
			continue
		}
		w.end()
		w.question.Close()
		delete(r.watches, k)
	}
	return next
}

// sooner is the sooner of two times of which a zero one is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// watch begins to watch.
func (r *references) watch(ctx context.Context, k objects.Key) *objectWatch {
	ctx, end := context.WithCancel(ctx)
	w := &objectWatch{question: r.known.Ask(k), ctx: ctx, end: end}
	list, example := r.selection(k)
	in := reflector.NewReplica(trimmed, func(found []objects.Object) { r.tell(k, w, found) })
	watched := reflector.Reflector{ListerWatcher: list, Example: example, Store: in, WatchFor: 30 * time.Minute,
		Asked: func(err error) {
			if err != nil {
				w.question.Fail(reason(err))
			}
		}}
	r.work.Go(func() {
		defer end()
		if k.Kind == objects.ConfigMap || k.Kind == objects.Secret {
			pause(ctx, graphLag)
		}
		watched.Run(ctx)
	})
	return w
}

// graphLag is how long the node authorizer is given to learn of a pod that the
// node knows already, from a watch like the node's. Asked earlier it refuses.
const graphLag = 20 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// selection is how the apiserver is asked.
func (r *references) selection(k objects.Key) (*cache.ListWatch, runtime.Object) {
	var from cache.Getter = r.client.CoreV1().RESTClient()
	var resource string
	var example runtime.Object
	switch k.Kind {
	case objects.ConfigMap:
		resource, example = "configmaps", &v1.ConfigMap{}
	case objects.Secret:
		resource, example = "secrets", &v1.Secret{}
	case objects.Service:
		resource, example = "services", &v1.Service{}
	default:
		from, resource, example = r.client.NodeV1().RESTClient(), "runtimeclasses", &nodev1.RuntimeClass{}
	}
	return cache.NewFilteredListWatchFromClient(from, resource, k.Namespace, func(o *metav1.ListOptions) {
		if k.Name != "" {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, k.Name).String()
		}
		if o.ResourceVersion == "0" {
			o.ResourceVersion = "" // any state would do, also one before the object was made
		}
	}), example
}

// tell takes in what the apiserver has now.
func (r *references) tell(k objects.Key, w *objectWatch, found []objects.Object) {
	first, changed := w.question.Answer(found)
	// Variables are those of the container's start: a service that changes
	// concerns no pod that runs.
	if first || changed && k.Kind != objects.Service {
		r.renew(map[objects.Key]bool{k: true})
	}
	if first {
		r.answered()
	}
	if len(found) == 1 && immutable(found[0]) {
		w.end()
	}
}

func immutable(o objects.Object) bool {
	switch o := o.(type) {
	case *v1.ConfigMap:
		return ptr.Deref(o.Immutable, false)
	case *v1.Secret:
		return ptr.Deref(o.Immutable, false)
	}
	return false
}

// reason is what people are told of a request that failed. Where there is no
// answer at all the words may differ each time.
func reason(err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return err
	}
	return errors.New("no answer")
}

// trimmed is what pods need of an object.
func trimmed(o objects.Object) objects.Object {
	meta := metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName()}
	switch o := o.(type) {
	case *v1.ConfigMap:
		return &v1.ConfigMap{ObjectMeta: meta, Immutable: o.Immutable, Data: o.Data, BinaryData: o.BinaryData}
	case *v1.Secret:
		return &v1.Secret{ObjectMeta: meta, Immutable: o.Immutable, Type: o.Type, Data: o.Data}
	case *nodev1.RuntimeClass:
		return &nodev1.RuntimeClass{ObjectMeta: meta, Handler: o.Handler}
	case *v1.Service:
		slim := &v1.Service{ObjectMeta: meta, Spec: v1.ServiceSpec{ClusterIP: o.Spec.ClusterIP}}
		for _, p := range o.Spec.Ports {
			slim.Spec.Ports = append(slim.Spec.Ports, v1.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
		}
		return slim
	}
	return o
}
