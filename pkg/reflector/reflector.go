// Package reflector keeps copies of what an apiserver has: client-go's
// reflector, with what an agent needs of it besides. It ends at once when it is
// told to, also while the apiserver is away; it says how its requests end, and
// logs nothing itself; and it is back soon after the apiserver is, also with one
// that knows less than before.
package reflector

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Reflector keeps a store true to what an apiserver has of one selection.
type Reflector struct {
	// ListerWatcher asks for the selection.
	cache.ListerWatcher
	Example runtime.Object // of what it gives
	Store   cache.ReflectorStore
	// Least and Most are how long it waits after a request that failed: it
	// begins with the least and doubles it, with as much again by chance. 0 stands
	// for 20 ms and 3 s.
	Least, Most time.Duration
	// WatchFor is how long one watch lasts at least; 0 stands for 5 minutes.
	WatchFor time.Duration
	// Asked gets how each request ended that lists or begins to watch, one at a
	// time. Nil for nobody.
	Asked func(error)

	// lost says that the apiserver was away since it gave its state. It may have
	// come back with an older one, whose numbers go on from below ours: a watch
	// that went on from our number would never tell what differs.
	lost bool
}

// Run keeps the store true until ctx ends.
func (r *Reflector) Run(ctx context.Context) {
	quiet := logr.Discard() // the library would repeat at each attempt what Asked is told
	cache.NewReflectorWithOptions(r, r.Example, r.Store, cache.ReflectorOptions{
		Logger: &quiet, Name: "nodeagent", MinWatchTimeout: r.WatchFor, Clock: endingClock{ctx: ctx},
		Backoff: &wait.Backoff{Duration: cmp.Or(r.Least, 20*time.Millisecond), Factor: 2, Jitter: 1, Steps: 20, Cap: cmp.Or(r.Most, 3*time.Second)},
	}).RunWithContext(klog.NewContext(ctx, quiet))
}

// ListWithContext does so for a server that cannot stream what it has.
func (r *Reflector) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	if r.lost {
		o.ResourceVersion, o.ResourceVersionMatch = "", "" // the state of now, whatever its number
	}
	list, err := cache.ToListerWithContext(r.ListerWatcher).ListWithContext(ctx, o)
	r.note(ctx, err)
	return list, err
}

// WatchWithContext begins to watch. After the apiserver was away it does not go on
// where it was: the library begins anew then, with all that there is.
func (r *Reflector) WatchWithContext(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
	whole := o.SendInitialEvents != nil && *o.SendInitialEvents
	switch {
	case r.lost && !whole:
		return nil, apierrors.NewResourceExpired("the apiserver was away")
	case r.lost:
		o.ResourceVersion = ""
	}
	w, err := cache.ToWatcherWithContext(r.ListerWatcher).WatchWithContext(ctx, o)
	if err == nil && reflect.TypeOf(w) == noAnswer {
		w, err = nil, errors.New("the connection ended without an answer")
	}
	r.note(ctx, err)
	return w, err
}

// noAnswer is what the client gives in the place of some errors.
var noAnswer = reflect.TypeOf(apiwatch.NewEmptyWatch())

// IsWatchListSemanticsUnSupported says, to the library, of clients for tests
// that they cannot stream what they have.
func (r *Reflector) IsWatchListSemanticsUnSupported() bool {
	u, ok := r.ListerWatcher.(interface{ IsWatchListSemanticsUnSupported() bool })
	return ok && u.IsWatchListSemanticsUnSupported()
}

func (r *Reflector) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	var answer apierrors.APIStatus
	switch {
	case err == nil:
		r.lost = false
	case !errors.As(err, &answer) || answer.Status().Code >= http.StatusInternalServerError:
		r.lost = true
	}
	if r.Asked != nil {
		r.Asked(err)
	}
}

// endingClock waits no longer than ctx: the library goes on waiting between
// attempts when it is told to end.
type endingClock struct {
	clock.RealClock
	ctx context.Context
}

func (c endingClock) After(d time.Duration) <-chan time.Time {
	over := make(chan time.Time, 1)
	ctx, cancel := context.WithTimeout(c.ctx, d)
	context.AfterFunc(ctx, func() {
		cancel()
		over <- time.Now()
	})
	return over
}
