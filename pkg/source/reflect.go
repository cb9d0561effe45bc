package source

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/go-logr/logr"
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
	list, err := r.ListWatch.ListWithContext(ctx, o)
	r.note(ctx, err)
	return list, err
}

func (r *reflection) WatchWithContext(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
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
	if ctx.Err() == nil {
		r.asked(err)
	}
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
