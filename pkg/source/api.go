package source

import (
	"context"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/nodeagent/nodeagent/pkg/objects"
	"github.com/nodeagent/nodeagent/pkg/reflector"
)

// APIName is the name of the source of pods that an apiserver has.
const APIName = "api"

// APIOptions say which pods of an apiserver are meant, and who else is to know
// of them. Seen and Gone are called for mirror pods too, never two at once, and
// must not block.
type APIOptions struct {
	Client   kubernetes.Interface
	NodeName string
	// Ready is closed once there are credentials.
	Ready <-chan struct{}
	// Seen gets every newer copy of a pod; it must not alter it.
	Seen func(*v1.Pod)
	// Gone gets the last copy of a pod that the apiserver has no more.
	Gone func(*v1.Pod)
	// Missed, if set, is called when news of pods may have been missed: what is known of
	// them may be old until Seen says more.
	Missed func()
	// Objects is where what pods refer to is kept.
	Objects *objects.Store
	// Renew tells the pods concerned that objects came, went or changed. It
	// must be safe for concurrent use and not block.
	Renew func(map[objects.Key]bool)
	Log   *slog.Logger
}

// patience is how long a pod is held back until the apiserver has answered what
// it refers to. Mostly that takes milliseconds.
const patience = 2 * time.Second

// apiSource is the source of the pods that an apiserver has bound to this node
// (behaviour row 1.1-4). Each is told on once what
// it refers to is known, so that nobody says of an object that is there that it
// isn't.
type apiSource struct {
	APIOptions
	changed chan struct{} // a token asks to look anew

	mu      sync.Mutex
	refs    *references
	pods    map[types.UID]*boundPod
	waiting map[types.UID]*boundPod // those that are held back
	arrived int                     // pods so far
	opens   time.Time               // the first list is sent no later than this; zero until it is there
	sent    bool                    // it was
	news    bool                    // what is told differs from what was sent
}

// NewAPI gives the pods that an apiserver has bound to this node, but mirror
// pods. While the apiserver does not answer, what it gave before stays wanted.
func NewAPI(o APIOptions) Source {
	return &apiSource{APIOptions: o, changed: make(chan struct{}, 1), pods: map[types.UID]*boundPod{}, waiting: map[types.UID]*boundPod{}}
}

func (s *apiSource) Name() string { return APIName }

// Run is documented at Source. The first list comes once none of its pods is
// held back: one that is missing there counts as unwanted.
func (s *apiSource) Run(ctx context.Context, out chan<- Update) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.Ready:
	}
	s.refs = &references{client: s.Client, known: s.Objects, renew: s.Renew, answered: s.wake,
		pods: map[types.UID][]objects.Key{}, watches: map[objects.Key]*objectWatch{}}
	contact := contact{log: s.Log, missed: s.Missed}
	watched := reflector.Reflector{ListerWatcher: s.selection(), Example: &v1.Pod{}, Store: &bound{s: s, ctx: ctx},
		Least: 50 * time.Millisecond, Most: time.Second, Asked: contact.note}
	var work sync.WaitGroup
	work.Go(func() { watched.Run(ctx) })
	err := s.send(ctx, out)
	work.Wait()
	s.refs.work.Wait()
	return err
}

// selection is the pods of this node.
func (s *apiSource) selection() *cache.ListWatch {
	return cache.NewFilteredListWatchFromClient(s.Client.CoreV1().RESTClient(), "pods", v1.NamespaceAll, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", s.NodeName).String()
	})
}

func (s *apiSource) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// send sends the full list whenever the wish has changed: not when only the
// status has, which is our own words coming back.
func (s *apiSource) send(ctx context.Context, out chan<- Update) error {
	var pending Update
	var send chan<- Update
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case send <- pending:
			pending, send = Update{}, nil
			continue
		case <-s.changed:
		case <-timer.C:
		}
		u, news, next := s.look(time.Now())
		if news {
			pending, send = u, out
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// look tells on the pods that need not be held back any more. It gives the full
// list if that differs from the last one, and says when to look again.
func (s *apiSource) look(now time.Time) (u Update, news bool, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid, e := range s.waiting {
		if !now.Before(e.until) || s.refs.complete(uid) {
			s.tell(e)
			continue
		}
		next = sooner(next, e.until)
	}
	next = sooner(next, s.refs.sweep(now))
	early := !s.sent && (s.opens.IsZero() || len(s.waiting) > 0 && now.Before(s.opens))
	if early || s.sent && !s.news {
		return u, false, sooner(next, s.opens)
	}
	if !s.sent {
		s.Objects.Settle() // by now all is asked for that pods here refer to
	}
	s.sent, s.news, s.opens = true, false, time.Time{}
	return s.list(), true, next
}

// contact says once when the apiserver does not answer, and once when it does.
// Only one request at a time ends in note.
type contact struct {
	log    *slog.Logger
	missed func()
	lost   bool
}

func (c *contact) note(err error) {
	if apierrors.IsInvalid(err) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		c.tellMissed()
		return // it is to be asked in another way
	}
	switch {
	case err != nil && !c.lost:
		c.log.Warn("the apiserver does not give this node's pods; they go on as they are", "error", err)
	case err == nil && c.lost:
		c.log.Info("the apiserver gives this node's pods again")
		c.tellMissed()
	}
	c.lost = err != nil
}

func (c *contact) tellMissed() {
	if c.missed != nil {
		c.missed()
	}
}
