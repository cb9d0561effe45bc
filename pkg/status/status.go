// Package status is what goes to the apiserver about pods: their status, the
// images of static pods, and their deletion once they have ended.
//
// What to do about a pod is a pure function of what is known here (pod.Pod), the
// node, and the newest copy that the apiserver has: merge and plan. It is asked
// anew whenever one of them changes and again when its turn to be sent has come,
// so that nothing older than the newest is ever written. Of one pod at most one
// call is under way.
package status

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/kubernetes"

	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/trace"
)

// Options are what a Writer is made of.
type Options struct {
	Client kubernetes.Interface
	// Node is the newest view of the node.
	Node func() pod.Node
	// Ready is called when the apiserver has taken a status that says that the pod
	// is ready, with when it was sent; it must not block. Nil for nobody.
	Ready func(uid types.UID, sent, taken time.Time)
	Log   *slog.Logger
	// Metrics is told of every call; nil for nobody.
	Metrics *metrics.Writes
	// Tracer makes a span of every call; nil for none.
	Tracer *trace.Tracer
}

// Writer keeps what the apiserver says of the pods true.
type Writer struct {
	Options
	news chan struct{} // holds a token while there may be something to look at

	mu     sync.Mutex
	pods   map[string]*known    // by id
	ids    map[types.UID]string // of the pods that are known here
	synced bool
	node   *v1.Node // as the apiserver has it, nil while it has none
	flying int      // calls under way
	outage *outage  // nil while the apiserver answers
	told   string   // the newest refusal that was logged
}

// known is one pod as the agent and as the apiserver have it.
type known struct {
	id   string // see idOf
	name types.NamespacedName
	// here is what is known of the pod: one value, or those of the static pods of
	// one name, of which an old one may still be ending. It is never changed in
	// place.
	here []*pod.Pod
	// expected says that a static pod of the name is wanted but not told of yet.
	expected bool
	// there is the apiserver's newest copy, that of its image for a static pod.
	there *v1.Pod
	// unsure says that there may be a newer copy: it is asked for before anything
	// else is done.
	unsure bool
	// refused is what the apiserver took without making it so: nothing is said
	// twice about the copy that it answered with.
	refused *refused
	// deleted says that the apiserver took our deletion: what is heard of the pod
	// after that is old, or its finalizers hold it.
	deleted bool

	news  bool      // it is to be looked at
	busy  bool      // a call is under way
	next  step      // as last looked at
	since time.Time // when the apiserver's copy was first found to be untrue
	wait  time.Time // after a failure
	fails int       // in a row
	pace  *rate.Limiter
}

// static says whether it is about the static pods of one name and their image.
func (k *known) static() bool { return k.id == k.name.String() }

// refused is a status that was sent, and the copy that came back without it.
type refused struct {
	sent    v1.PodStatus
	version string
}

// New makes a writer; Run starts it.
func New(o Options) *Writer {
	return &Writer{Options: o, news: make(chan struct{}, 1), pods: map[string]*known{}, ids: map[types.UID]string{}}
}

// Tell gives the newest value of a pod. It never blocks.
func (w *Writer) Tell(p pod.Pod) {
	id := idOf(p.Spec, pod.IsStatic(p.Spec))
	w.note(id, nameOf(p.Spec), func(k *known) {
		k.expected = false
		w.ids[p.UID()] = id
		k.here = append(others(k.here, p.UID()), &p)
	})
}

// others are the values but that of the pod, in a slice of their own: a view of
// the old one may be looked at.
func others(here []*pod.Pod, uid types.UID) []*pod.Pod {
	return slices.DeleteFunc(slices.Clone(here), func(p *pod.Pod) bool { return p.UID() == uid })
}

// Forget says that nothing is left of the pod here.
func (w *Writer) Forget(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.pods[w.ids[uid]]
	delete(w.ids, uid)
	if k == nil {
		return
	}
	k.here = others(k.here, uid)
	w.look(k)
}

// Synced says that all sources have told what they want, and the names of the
// static pods among it: the images of others are of earlier days.
func (w *Writer) Synced(static []types.NamespacedName) {
	for _, name := range static {
		w.note(name.String(), name, func(k *known) { k.expected = len(k.here) == 0 })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.synced = true
	w.lookAtStatic()
}

// Seen gives the newest copy of a pod that the apiserver has.
func (w *Writer) Seen(p *v1.Pod) {
	w.note(idOf(p, isMirror(p)), nameOf(p), func(k *known) {
		if k.unsure || !older(p, k.there) {
			k.there = p
		}
	})
}

// Gone says that the apiserver has the pod no more.
func (w *Writer) Gone(p *v1.Pod) {
	w.note(idOf(p, isMirror(p)), nameOf(p), func(k *known) {
		if k.there != nil && k.there.UID == p.UID {
			k.there, k.refused = nil, nil
		}
	})
}

// Unsure says that the apiserver's news may have been missed for a while.
func (w *Writer) Unsure() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doubt()
}

// Registered gives the Node that the apiserver has, nil while it has none: the
// images of static pods belong to it.
func (w *Writer) Registered(n *v1.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.node
	w.node = n
	if n == nil || was == nil || was.UID != n.UID || was.DeletionTimestamp != n.DeletionTimestamp {
		w.lookAtStatic()
	}
}

// lookAtStatic has all static pods looked at. The caller holds w.mu.
func (w *Writer) lookAtStatic() {
	for _, k := range w.pods {
		if k.static() {
			w.look(k)
		}
	}
}

// doubt has every pod asked for before it is written. The caller holds w.mu.
func (w *Writer) doubt() {
	for _, k := range w.pods {
		k.unsure, k.deleted, k.wait = true, false, time.Time{}
		w.look(k)
	}
}

// idOf is the UID of a pod of the apiserver, and the full name of a static pod,
// whose image has a UID of its own.
func idOf(p *v1.Pod, static bool) string {
	if static {
		return nameOf(p).String()
	}
	return string(p.UID)
}

func nameOf(p *v1.Pod) types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

// note changes what is known of a pod.
func (w *Writer) note(id string, name types.NamespacedName, change func(*known)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.pods[id]
	if k == nil {
		k = &known{id: id, name: name, pace: rate.NewLimiter(paceRate, paceBurst)}
		w.pods[id] = k
	}
	change(k)
	w.look(k)
}

// look has the pod looked at by Run, or forgotten if neither side has it. The
// caller holds w.mu.
func (w *Writer) look(k *known) {
	if len(k.here) == 0 && k.there == nil && !k.expected && !k.busy {
		delete(w.pods, k.id)
		return
	}
	k.news = true
	w.wake()
}

// wake has Run look.
func (w *Writer) wake() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// older says whether the first copy is from before the second.
func older(p, than *v1.Pod) bool {
	if than == nil {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(p.ResourceVersion, than.ResourceVersion)
	return err == nil && order < 0
}
