package source

import (
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

// reflection is what an apiserver has of one selection, kept in a store.
type reflection struct {
	*cache.ListWatch
	example runtime.Object
	store   cache.ReflectorStore
	// least and most are how long it waits after a request that failed: it
	// begins with the least and doubles it, with as much again by chance.
	least, most time.Duration
	// watchFor is how long one watch lasts at least; 0 stands for 5 minutes.
	watchFor time.Duration
	// asked gets how each request ended that lists or begins to watch.
	asked func(error)

	// lost says that the apiserver was away since it gave its state. It may have
	// come back with an older one, whose numbers go on from below ours: a watch
	// that went on from our number would never tell what differs.
	lost bool
}

// run keeps the store true until ctx ends. What goes wrong is for asked to
// tell: the library's own log would repeat it at each attempt.
func (r *reflection) run(ctx context.Context) {
	quiet := logr.Discard()
	cache.NewReflectorWithOptions(r, r.example, r.store, cache.ReflectorOptions{
		Logger: &quiet, Name: "nodeagent", MinWatchTimeout: r.watchFor, Clock: endingClock{ctx: ctx},
		Backoff: &wait.Backoff{Duration: r.least, Factor: 2, Jitter: 1, Steps: 20, Cap: r.most},
	}).RunWithContext(klog.NewContext(ctx, quiet))
}

// ListWithContext does so for a server that cannot stream what it has.
func (r *reflection) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	if r.lost {
		o.ResourceVersion, o.ResourceVersionMatch = "", "" // the state of now, whatever its number
	}
	list, err := r.ListWatch.ListWithContext(ctx, o)
	r.note(ctx, err)
	return list, err
}

// WatchWithContext does not go on where it was after the apiserver was away: the
// reflector begins anew then, with all that there is.
func (r *reflection) WatchWithContext(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
	whole := o.SendInitialEvents != nil && *o.SendInitialEvents
	switch {
	case r.lost && !whole:
		return nil, apierrors.NewResourceExpired("the apiserver was away")
	case r.lost:
		o.ResourceVersion = ""
	}
	w, err := r.ListWatch.WatchWithContext(ctx, o)
	if err == nil && reflect.TypeOf(w) == noAnswer {
		w, err = nil, errors.New("the connection ended without an answer")
	}
	r.note(ctx, err)
	return w, err
}

// noAnswer is what the client gives in the place of some errors.
var noAnswer = reflect.TypeOf(apiwatch.NewEmptyWatch())

func (r *reflection) note(ctx context.Context, err error) {
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
	r.asked(err)
}

// endingClock waits no longer than ctx: the reflector itself goes on waiting
// between attempts when it is told to end.
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
