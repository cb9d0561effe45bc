package source

import (
	"context"
	"fmt"
	"maps"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/nodeagent/nodeagent/pkg/pod"
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
}

// apiSource is the source of the pods that an apiserver has bound to this node
// (behaviour row 1.1-4).
type apiSource struct {
	APIOptions
	wanted map[types.UID]*v1.Pod // as sent last
}

// NewAPI gives the pods that an apiserver has bound to this node, but mirror
// pods. While the apiserver does not answer, what it gave before stays wanted.
func NewAPI(o APIOptions) Source {
	return &apiSource{APIOptions: o, wanted: map[types.UID]*v1.Pod{}}
}

func (s *apiSource) Name() string { return APIName }

// Run is documented at Source.
func (s *apiSource) Run(ctx context.Context, out chan<- Update) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.Ready:
	}
	informer := cache.NewSharedInformer(cache.NewFilteredListWatchFromClient(
		s.Client.CoreV1().RESTClient(), "pods", v1.NamespaceAll, s.ours), &v1.Pod{}, 0)
	if err := informer.SetTransform(withoutManagers); err != nil {
		return fmt.Errorf("pods of the apiserver: %w", err)
	}
	changed := make(chan struct{}, 1)
	registration, err := informer.AddEventHandler(s.handler(changed))
	if err != nil {
		return fmt.Errorf("pods of the apiserver: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		informer.RunWithContext(ctx)
	}()
	defer func() { <-ended }()
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return ctx.Err()
	}
	return s.send(ctx, informer.GetStore(), changed, out)
}

// ours selects the pods of this node.
func (s *apiSource) ours(o *metav1.ListOptions) {
	o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", s.NodeName).String()
}

// send sends the full list, now and whenever the wish has changed: not when
// only the status has, which is our own words coming back.
func (s *apiSource) send(ctx context.Context, store cache.Store, changed <-chan struct{}, out chan<- Update) error {
	pending, _ := s.update(store)
	send := out
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			if u, news := s.update(store); news {
				pending, send = u, out
			}
		case send <- pending:
			send = nil
		}
	}
}

// update is all that is wanted now, and whether it differs from the last one.
// A pod of which nothing has changed that concerns its wish is the same object.
func (s *apiSource) update(store cache.Store) (u Update, news bool) {
	u.Source = APIName
	next := map[types.UID]*v1.Pod{}
	for _, o := range store.List() {
		p := o.(*v1.Pod)
		if IsMirror(p) || pod.CheckUID(p.UID) != nil {
			continue
		}
		wish := trim(p)
		if old := s.wanted[p.UID]; old != nil && equality.Semantic.DeepEqual(old, wish) {
			wish = old
		} else {
			news = true
		}
		next[p.UID] = wish
		u.Pods = append(u.Pods, Desired{Pod: wish, Origin: APIName})
	}
	news = news || len(next) != len(s.wanted)
	s.wanted = next
	return u, news
}

// handler notes what has changed for update, and tells the others.
func (s *apiSource) handler(changed chan<- struct{}) cache.ResourceEventHandler {
	note := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { s.Seen(o.(*v1.Pod)); note() },
		UpdateFunc: func(_, o any) { s.Seen(o.(*v1.Pod)); note() },
		DeleteFunc: func(o any) {
			if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = unknown.Obj
			}
			if p, ok := o.(*v1.Pod); ok {
				s.Gone(p)
			}
			note()
		},
	}
}

// withoutManagers is what of an object is kept in memory.
func withoutManagers(o any) (any, error) {
	if p, ok := o.(*v1.Pod); ok {
		p.ManagedFields = nil
	}
	return o, nil
}

// trim is the wish alone: what is the same for as long as nobody wants anything
// else. Of the status it has the conditions of others, for readiness gates, and
// a phase that is never left.
func trim(p *v1.Pod) *v1.Pod {
	wish := &v1.Pod{ObjectMeta: *p.ObjectMeta.DeepCopy(), Spec: p.Spec}
	wish.ManagedFields, wish.ResourceVersion = nil, ""
	wish.Annotations = maps.Clone(wish.Annotations)
	if wish.Annotations == nil {
		wish.Annotations = map[string]string{}
	}
	wish.Annotations[annotationSource] = APIName
	wish.Status.Phase = v1.PodPending
	if pod.IsTerminal(p.Status.Phase) {
		wish.Status.Phase, wish.Status.Reason, wish.Status.Message = p.Status.Phase, p.Status.Reason, p.Status.Message
	}
	for _, c := range p.Status.Conditions {
		if !pod.OwnsCondition(c.Type) {
			c.LastProbeTime, c.LastTransitionTime = metav1.Time{}, metav1.Time{}
			wish.Status.Conditions = append(wish.Status.Conditions, c)
		}
	}
	return wish
}

// mirrorAnnotation marks the image that a static pod has at an apiserver
// (behaviour row 1.1-11).
const mirrorAnnotation = v1.MirrorPodAnnotationKey

// IsMirror says whether the pod only shows a static one.
func IsMirror(p *v1.Pod) bool {
	_, ok := p.Annotations[mirrorAnnotation]
	return ok
}
