// Package syncloop runs the pods: it merges what the sources want with what
// the runtime shows, keeps one actor per pod, feeds events to them and turns
// their actions into effects.
package syncloop

import (
	"cmp"
	"context"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/dns"
	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/objects"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
	"github.com/nodeagent/nodeagent/pkg/trace"
)

// Config is what the loop is made of.
type Config struct {
	Runtime Runtime
	Volumes Volumes
	Cgroups Cgroups
	Records Records
	States  States
	Probes  Probes
	Hooks   Hooks
	// World is told of every change; nil when there is nobody to tell.
	World World
	// Env finds the variables of containers, from Objects.
	Env     env.Resolver
	Objects *objects.Store
	// DNS finds the resolver configuration of sandboxes.
	DNS dns.Settings
	Log *slog.Logger
	// Sources are the names of all sources that will deliver. Nothing is ended
	// before each has done so once.
	Sources []string
	// Offline says what becomes of pods while their apiserver is not reached.
	Offline Offline
	// Known are the records that an earlier process left.
	Known map[types.UID]pod.Record
	// Allocated and Actuated are the resources that another agent granted and
	// gave to pods that run.
	Allocated, Actuated map[types.UID]pod.Resources
	// Node is what is known of the node from the start.
	Node pod.Node
	// Ledger is what there is to grant. What the runtime can do is learned from
	// it.
	Ledger ledger.Ledger
	// Slots is how many create and start calls run at once, at least 1.
	Slots int
	// Timeout bounds each runtime call (runtimeRequestTimeout).
	Timeout time.Duration
	// Connected is called whenever the runtime has answered, before anything is
	// asked of it; its error counts as the runtime's.
	Connected func(context.Context) error
	// Seen is told how the runtime is whenever it was looked at, and why it is
	// lost; it must not block. Nil for nobody.
	Seen func(cri.Runtime, error)
	// AskNode has the node's object read anew, and SetNode called with it before
	// it returns. Nil without an apiserver.
	AskNode func(context.Context) error
	// Metrics and Attempts are told what the loop does; nil for nobody.
	Metrics  *metrics.Pods
	Attempts *metrics.Probes
	// Tracer makes spans of what is done for pods; nil for none.
	Tracer *trace.Tracer
	// Fault is called at the named points before and after each action; tests
	// end the process there. Nil for none.
	Fault func(point string)
}

// Loop is the set of actors.
type Loop struct {
	Config
	slots  *slots
	grants grants
	node   atomic.Pointer[pod.Node]
	mail   *mailbox[any] // listed, removed, question
	states *mailbox[state]
	audits chan struct{} // a token asks for an audit now
	tiers  chan struct{} // a token says that the QoS tiers may have changed
	looked func()        // closes the channel of Looked
	known  chan struct{}

	mu     sync.RWMutex
	actors map[types.UID]*actor
	merge  source.Merge
	alone  bool // the apiserver was waited for long enough

	// Owned by Run.
	found   map[types.UID]cri.Found // the first list; nil until then
	adopted map[types.UID]types.UID // UID as computed, to UID as it runs
	ended   map[types.UID]bool      // told to end
	spared  map[types.UID]bool      // orphans left alone, and told of
	swept   bool                    // orphans were looked for
	synced  bool                    // the world was told of it
	work    sync.WaitGroup
}

// listed is the runtime's full list, read after a (re)connect or by an audit.
type listed map[types.UID]cri.Found

// folders are the pods that have a folder on disk.
type folders []types.UID

// removed says that an actor is done.
type removed types.UID

// New makes a loop; Run starts it.
func New(c Config) *Loop {
	l := &Loop{
		Config: c, slots: newSlots(max(1, c.Slots)), mail: newMailbox[any](), states: newMailbox[state](),
		audits: make(chan struct{}, 1), tiers: make(chan struct{}, 1),
		actors: map[types.UID]*actor{}, merge: source.NewMerge(c.Sources...),
		adopted: map[types.UID]types.UID{}, ended: map[types.UID]bool{}, spared: map[types.UID]bool{},
	}
	l.known = make(chan struct{})
	l.looked = sync.OnceFunc(func() { close(l.known) })
	l.grants.ledger = c.Ledger
	node := c.Node
	node.Runtime = cmp.Or(node.Runtime, "not asked yet")
	l.node.Store(&node)
	return l
}

// Run keeps the pods until ctx ends. Pods go on running after it returns.
func (l *Loop) Run(ctx context.Context, updates <-chan source.Update) error {
	defer l.work.Wait()
	l.work.Go(func() { l.watch(ctx) })
	l.work.Go(func() { l.balance(ctx) })
	l.work.Go(func() { l.keepStates(ctx) })
	l.work.Go(func() { l.lookAround(ctx) })
	defer time.AfterFunc(lookPatience, l.looked).Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case u := <-updates:
			l.take(u)
			l.reconcile(ctx)
		case <-l.mail.ready:
			for _, m := range l.mail.take() {
				l.read(ctx, m)
			}
		}
	}
}

func (l *Loop) read(ctx context.Context, mail any) {
	switch m := mail.(type) {
	case listed:
		l.list(ctx, m)
	case removed:
		l.drop(ctx, types.UID(m))
	case folders:
		l.clear(ctx, m)
	case alone:
		l.mu.Lock()
		l.alone = true
		l.mu.Unlock()
		l.reconcile(ctx)
	case question:
		// That it was read is the answer.
	}
}

// question only wants to be read.
type question struct{}

// Hung says for how long the loop has not read its mail, 0 when it does. It is
// to be asked now and then: each time it sees to it that there is some.
func (l *Loop) Hung(now time.Time) time.Duration {
	since, some := l.mail.unread()
	if !some {
		l.mail.put(question{})
		return 0
	}
	return now.Sub(since)
}

// beside names, in Objects, what all sources give beside pods.
const beside = "manifests"

// take merges what a source wants now. Pods and objects that are ignored for
// another's sake are told once.
func (l *Loop) take(u source.Update) {
	before := l.merge.Conflicts()
	l.mu.Lock()
	l.merge = l.merge.With(u)
	l.mu.Unlock()
	l.Renew(l.Objects.Replace(beside, l.merge.Objects()))
	for _, c := range l.merge.Conflicts() {
		if !slices.Contains(before, c) {
			l.Log.Error("manifest is not taken", "origin", c.Origin, "pod", c.Pod, "object", c.Object, "field", c.Field, "problem", c.Message)
		}
	}
}

// Renew tells the pods that refer to what has changed. It is safe for
// concurrent use and does not block.
func (l *Loop) Renew(changed map[objects.Key]bool) {
	if len(changed) == 0 {
		return
	}
	for _, a := range l.all() {
		if objects.Mentions(a.now.Load().Spec, changed) {
			a.mail.put(pod.Renewed{At: time.Now()})
		}
	}
}

// RenewPod has the pod's volumes brought up to date: what one shows has changed.
func (l *Loop) RenewPod(uid types.UID) {
	if a := l.actor(uid); a != nil {
		a.mail.put(pod.Renewed{At: time.Now()})
	}
}

// Published tells that the apiserver has taken that the pod is ready.
func (l *Loop) Published(uid types.UID, sent, taken time.Time) {
	if a := l.actor(uid); a != nil {
		a.mail.put(pod.Published{Sent: sent, At: taken})
	}
}

// Node is the newest view of the node.
func (l *Loop) Node() pod.Node { return *l.node.Load() }

// setNode changes the node's view and has every pod planned anew if it did. The
// change may be made more than once: the runtime and the node's object are
// followed side by side.
func (l *Loop) setNode(change func(*pod.Node)) {
	for {
		before := l.node.Load()
		node := *before
		if change(&node); reflect.DeepEqual(*before, node) {
			return
		}
		if l.node.CompareAndSwap(before, &node) {
			break
		}
	}
	for _, a := range l.all() {
		a.mail.put(pod.Tick{At: time.Now()})
	}
}

// all are the actors, in no order.
func (l *Loop) all() []*actor {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]*actor, 0, len(l.actors))
	for _, a := range l.actors {
		out = append(out, a)
	}
	return out
}

// Pods are all pods as they are now, by namespace and name. Those that wait
// for the runtime's first answer, or for word of their apiserver, are among them.
func (l *Loop) Pods() []pod.Pod {
	var out []pod.Pod
	have := map[types.UID]bool{}
	for _, a := range l.all() {
		p := *a.now.Load()
		out = append(out, p)
		have[p.UID()] = true
	}
	l.mu.RLock()
	waiting := l.found == nil
	wanted := l.merge.Pods()
	out = append(out, l.unheard()...)
	l.mu.RUnlock()
	for _, d := range wanted {
		if waiting && !have[d.Pod.UID] {
			out = append(out, pod.New(pod.Wanted{At: time.Now(), Spec: d.Pod, Origin: d.Origin}, pod.View{}, nil))
		}
	}
	slices.SortFunc(out, func(a, b pod.Pod) int {
		return cmp.Or(cmp.Compare(a.Spec.Namespace, b.Spec.Namespace), cmp.Compare(a.Spec.Name, b.Spec.Name), cmp.Compare(a.UID(), b.UID()))
	})
	return out
}

// Problems are all that is wrong with what the sources give.
func (l *Loop) Problems() []source.Problem {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.merge.Problems()
}

// Verdict is what the ledger would say to the pod, were it wanted now.
func (l *Loop) Verdict(p *v1.Pod) pod.Verdict { return l.grants.would(p) }

// lookPatience is how long Looked is open at most.
const lookPatience = 2 * time.Second

// Looked is closed when Pods knows what this machine wants and runs, or Node why
// the runtime can't be asked, or lookPatience after the start. Before, pods that run
// look as if they had not begun, or are missing.
func (l *Loop) Looked() <-chan struct{} { return l.known }

// reconcile makes the actors those of the wanted pods.
func (l *Loop) reconcile(ctx context.Context) {
	if l.found == nil {
		return // what runs is not known yet
	}
	wanted := map[types.UID]bool{}
	for _, d := range l.merge.Pods() {
		d = l.adopt(d)
		wanted[d.Pod.UID] = true
		l.want(ctx, d)
	}
	for _, d := range l.held() {
		if !wanted[d.Pod.UID] {
			wanted[d.Pod.UID] = true
			l.want(ctx, d)
		}
	}
	// An apiserver's pods go on without its word, but for those of no record.
	strange := len(l.found) > 0
	if !slices.ContainsFunc(l.Sources, func(s string) bool { return !l.merge.Has(s) && (s != source.APIName || strange) }) {
		l.looked()
	}
	if !l.merge.Synced() {
		return
	}
	for _, a := range l.all() {
		if uid := a.now.Load().UID(); !wanted[uid] && !l.ended[uid] {
			l.ended[uid] = true
			a.mail.put(pod.Ended{At: time.Now(), Grace: -1, Unwanted: true})
		}
	}
	if !l.swept {
		l.swept = true
		l.sweep(ctx, wanted)
	}
	l.tellSynced()
}

// tellSynced tells the world which static pods there are, once no origin is left
// that may yet name others.
func (l *Loop) tellSynced() {
	held := func(source string) bool { return len(l.merge.Held(source)) > 0 }
	if l.World == nil || l.synced || slices.ContainsFunc(l.Sources, held) {
		return
	}
	l.synced = true
	var static []types.NamespacedName
	for _, d := range l.merge.Pods() {
		if pod.IsStatic(d.Pod) {
			static = append(static, types.NamespacedName{Namespace: d.Pod.Namespace, Name: d.Pod.Name})
		}
	}
	l.World.Synced(static)
}

// want tells the pod's actor what is wanted, or starts one. A pod that is
// being ended begins anew once nothing is left of it.
func (l *Loop) want(ctx context.Context, d source.Desired) {
	w := pod.Wanted{At: time.Now(), Spec: d.Pod, Origin: d.Origin, Boot: l.Offline.Boot, Told: d.Told}
	a := l.actor(d.Pod.UID)
	switch {
	case a == nil:
		// Asked here, in their order, pods that come together are let in in that
		// order; the actor asks again and writes the grant.
		if !l.hasEnded(d.Pod) {
			l.grants.admit(ledger.ClaimOf(l.allocated(d.Pod)))
		}
		w.Hashes = hashes(d.Pod)
		l.start(ctx, w)
	case !l.ended[d.Pod.UID] && a.wish != d.Pod:
		a.wish = d.Pod
		w.Hashes = hashes(d.Pod)
		a.mail.put(w)
	}
}

// hasEnded says that nothing of the pod begins any more: what lives of it has its
// grant already.
func (l *Loop) hasEnded(p *v1.Pod) bool {
	return p.DeletionTimestamp != nil || pod.IsTerminal(p.Status.Phase) || pod.IsTerminal(l.Known[p.UID].Phase)
}

func (l *Loop) actor(uid types.UID) *actor {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.actors[uid]
}

func hashes(p *v1.Pod) map[string]string {
	out := map[string]string{}
	for c := range pod.Containers(p) {
		out[c.Name] = cri.Hash(c)
	}
	return out
}

// start gives the pod an actor, with all that is known of it already.
func (l *Loop) start(ctx context.Context, w pod.Wanted) *actor {
	uid := w.Spec.UID
	var record *pod.Record
	if r, ok := l.Known[uid]; ok {
		record = &r
	}
	found, runs := l.found[uid]
	if runs {
		l.takeOver(&w)
	}
	delete(l.Allocated, uid)
	delete(l.Actuated, uid)
	delete(l.found, uid)
	a := newActor(l, pod.New(w, found.View, record))
	a.restored = runs || record != nil
	l.mu.Lock()
	delete(l.Known, uid)
	l.actors[uid] = a
	l.mu.Unlock()
	if l.grants.leaves(uid) {
		l.preempt([]types.UID{uid}) // decided when it had no actor yet
	}
	l.work.Go(func() {
		if a.run(ctx) {
			l.mail.put(removed(uid))
		}
	})
	return a
}

// drop forgets an actor that is done; the pod may be wanted again by now.
func (l *Loop) drop(ctx context.Context, uid types.UID) {
	l.mu.Lock()
	gone := l.actors[uid]
	delete(l.actors, uid)
	l.mu.Unlock()
	gone.news.tell()
	if l.World != nil {
		l.World.Forget(uid)
	}
	delete(l.ended, uid)
	l.rebalance()
	l.reconcile(ctx)
	if a := l.actor(uid); a != nil {
		l.Metrics.Restarted(pod.IsStatic(a.now.Load().Spec))
	}
}

// release gives a grant back, and has the pods that waited for it ask again.
func (l *Loop) release(c ledger.Claim) {
	for _, uid := range l.grants.release(c) {
		if a := l.actor(uid); a != nil {
			a.mail.put(pod.Judged{At: time.Now()})
		}
	}
	l.resizeDeferred()
	l.rebalance()
}

// rebalance asks for the QoS tiers to be set anew.
func (l *Loop) rebalance() {
	select {
	case l.tiers <- struct{}{}:
	default:
	}
}

// balance keeps the QoS tiers at what the granted pods ask for.
func (l *Loop) balance(ctx context.Context) {
	told := "" // the newest failure, told once
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.tiers:
		}
		var pods []*v1.Pod
		for _, a := range l.all() {
			if p := a.now.Load(); p.Verdict.State == pod.Granted && !pod.IsTerminal(p.Phase) {
				pods = append(pods, p.Spec)
			}
		}
		err := l.Cgroups.UpdateQoS(ctx, pods)
		switch {
		case err == nil:
			told = ""
		case ctx.Err() == nil && err.Error() != told:
			told = err.Error()
			l.Log.Warn("QoS cgroups were not updated; tried again as pods come and go", "error", err)
		}
	}
}

func (l *Loop) fault(point string) {
	if l.Fault != nil {
		l.Fault(point)
	}
}
