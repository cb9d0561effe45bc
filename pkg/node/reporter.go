package node

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
)

// ReporterOptions say what to report of this node, and to whom.
type ReporterOptions struct {
	// Client registers the node and watches its object.
	Client kubernetes.Interface
	// Heartbeat writes lease and status, over connections of its own that
	// notice when their path has died.
	Heartbeat kubernetes.Interface

	Settings Settings
	Machine  Machine
	Cadence  Cadence

	// Addresses of this node, at most one per family, the primary first; none
	// if a cloud's controller is to find them.
	Addresses func(context.Context) ([]string, error)
	// Runtime is how the container runtime is, as last seen: see Poke.
	Runtime func() RuntimeState
	// Images on this node, in any order, with all their names.
	Images func(context.Context) ([]v1.ContainerImage, error)
	// PodCIDR tells the runtime which addresses pods get, as in
	// 10.1.0.0/24,fd00::/64.
	PodCIDR func(ctx context.Context, cidr string) error
	// Changed gets the newest Node object whenever another one was seen, nil
	// when it is gone. It must not block nor change the object.
	Changed func(*v1.Node)

	Events record.EventRecorder
	Log    *slog.Logger
}

// Cadence is how often what is told (the kubelet's config fields).
type Cadence struct {
	// Lease is how long others trust the node after a renewal
	// (nodeLeaseDurationSeconds); it is renewed four times in that time.
	Lease time.Duration
	// Update is how often images and addresses are looked at
	// (nodeStatusUpdateFrequency). All else is told as it happens.
	Update time.Duration
	// Report is how often a status is written in which nothing changed
	// (nodeStatusReportFrequency).
	Report time.Duration
}

// Reporter keeps this node's Node object and Lease true.
type Reporter struct {
	ReporterOptions

	mu     sync.Mutex
	newest *v1.Node // nil: there is none
	listed bool     // the apiserver has said whether there is one
	slow   slowFacts

	look   chan struct{} // a token asks the status to be looked at
	renew  chan struct{} // a token asks the lease to be looked at
	assign chan struct{} // a token asks the podCIDR to be looked at

	// Owned by report.
	written       time.Time     // when the status was last written; zero: not yet
	delay         time.Duration // added to Report, so that not all nodes report at once
	reconciled    types.UID     // of the Node whose labels and resources were set right
	unschedulable bool
	rebooted      bool // was told
	uncertain     bool // what was last seen may be old: ask
}

// slowFacts are those that nobody tells of.
type slowFacts struct {
	sought    bool // addresses were looked for
	addresses []string
	images    []v1.ContainerImage
}

// NewReporter makes a Reporter; Run starts it.
func NewReporter(o ReporterOptions) *Reporter {
	token := func() chan struct{} { return make(chan struct{}, 1) }
	return &Reporter{ReporterOptions: o, look: token(), renew: token(), assign: token()}
}

// Run registers the node and reports it until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	r.Events.Event(r.reference(), v1.EventTypeNormal, "Starting", "Starting kubelet.")
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.watch(ctx) })
	g.Go(func() error { return r.keepLease(ctx) })
	g.Go(func() error { return r.keepSlowFacts(ctx) })
	g.Go(func() error { return r.keepPodCIDR(ctx) })
	g.Go(func() error { return r.report(ctx) })
	return g.Wait()
}

// Poke says that what Runtime answers may have changed. It never blocks.
func (r *Reporter) Poke() {
	signal(r.look)
	signal(r.assign)
}

// Node is the newest Node object seen, nil if there is none. It must not be
// changed.
func (r *Reporter) Node() *v1.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is asked for already
	}
}

// take notes the newest Node object, nil if there is none.
func (r *Reporter) take(n *v1.Node) {
	if n != nil && n.ManagedFields != nil {
		n = n.DeepCopy()
		n.ManagedFields = nil // large, and of no use here
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listed = true
	if n == nil && r.newest == nil {
		signal(r.look)
		return
	}
	r.newest = n
	signal(r.look)
	signal(r.renew)
	signal(r.assign)
	r.Changed(n) // within the lock: the newest must come last
}

// report writes the status when it changed, and from time to time when not.
func (r *Reporter) report(ctx context.Context) error {
	trouble := trouble{log: r.Log, what: "node is not registered, or its status not written"}
	due := time.NewTimer(0)
	defer due.Stop()
	look := r.look
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look:
		case <-due.C:
		}
		next, err := r.see(ctx)
		look = r.look
		if err != nil {
			next, look = trouble.failed(ctx, err), nil // what changes meanwhile must not hurry it
		} else {
			trouble.over()
		}
		due.Reset(next)
	}
}

// keepSlowFacts looks from time to time at what nobody tells of.
func (r *Reporter) keepSlowFacts(ctx context.Context) error {
	addresses := trouble{log: r.Log, what: "addresses of this node are not known; those in its status stay"}
	images := trouble{log: r.Log, what: "images on this node are not known; those in its status stay"}
	for {
		if found, err := limited(ctx, r.Addresses); err != nil {
			addresses.failed(ctx, err)
		} else {
			addresses.over()
			r.learn(func(s *slowFacts) { s.addresses = found })
		}
		r.learn(func(s *slowFacts) { s.sought = true })
		if found, err := limited(ctx, r.Images); err == nil {
			images.over()
			r.learn(func(s *slowFacts) { s.images = shownImages(found, r.Settings.MaxImages) })
		} else if r.Runtime().Error == "" { // else it is told already
			images.failed(ctx, err)
		}
		if err := pause(ctx, jittered(r.Cadence.Update)); err != nil {
			return err
		}
	}
}

// limited asks for what must not hang for long.
func limited[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	return ask(ctx)
}

// learn has the status looked at if the facts are news.
func (r *Reporter) learn(change func(*slowFacts)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.slow
	if change(&r.slow); !reflect.DeepEqual(r.slow, before) {
		signal(r.look)
	}
}
