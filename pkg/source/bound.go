package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// boundPod is one pod that the apiserver has bound to this node.
type boundPod struct {
	seen *v1.Pod // the newest copy
	// wish is the newest, told the one that others know of. A mirror pod, and
	// one that cannot be run, have neither.
	wish, told *v1.Pod
	problem    error     // why the newest copy cannot be run
	until      time.Time // held back no longer than that
	place      int       // in the order of arrival
	// containers are as the apiserver had them when the pod was first seen.
	containers *v1.PodStatus
}

// bound takes in what the apiserver has; it is the store of the reflector over
// the pods. What one event costs does not depend on how many pods there are.
type bound struct {
	s   *apiSource
	ctx context.Context // of the watches that it begins
}

func (b *bound) Add(o any) error { return b.Update(o) }
func (b *bound) Resync() error   { return nil }

func (b *bound) Update(o any) error {
	if b.take(o.(*v1.Pod)) {
		b.s.wake()
	}
	return nil
}

func (b *bound) Delete(o any) error {
	b.drop(o.(*v1.Pod).UID)
	b.s.wake()
	return nil
}

// Replace takes in a full list, the oldest pod first.
func (b *bound) Replace(all []any, _ string) error {
	slices.SortStableFunc(all, func(x, y any) int {
		a, b := x.(*v1.Pod), y.(*v1.Pod)
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	there := map[types.UID]bool{}
	for _, o := range all {
		there[o.(*v1.Pod).UID] = true
	}
	for uid := range b.s.pods { // written by this goroutine alone
		if !there[uid] {
			b.drop(uid)
		}
	}
	for _, o := range all {
		b.take(o.(*v1.Pod))
	}
	b.s.mu.Lock()
	if !b.s.sent && b.s.opens.IsZero() {
		b.s.opens = time.Now().Add(patience)
	}
	b.s.mu.Unlock()
	b.s.wake()
	return nil
}

// Transformer has a list be trimmed while it is streamed.
func (b *bound) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		o.(*v1.Pod).ManagedFields = nil
		return o, nil
	}
}

// take takes in a newer copy, which nobody else has yet, and says whether it
// is news.
func (b *bound) take(p *v1.Pod) (news bool) {
	p.ManagedFields = nil
	b.s.mu.Lock()
	news = b.s.enter(b.ctx, p, time.Now())
	b.s.mu.Unlock()
	b.s.Seen(p)
	return news
}

func (b *bound) drop(uid types.UID) {
	e := b.s.pods[uid]
	if e == nil {
		return
	}
	b.s.mu.Lock()
	b.s.forget(uid, time.Now())
	b.s.mu.Unlock()
	b.s.Gone(e.seen)
}

// enter takes in a newer copy of a pod, and says whether it is news to anybody
// but pkg/status. The caller holds mu.
func (s *apiSource) enter(ctx context.Context, p *v1.Pod, now time.Time) (news bool) {
	e := s.pods[p.UID]
	if e == nil {
		s.arrived++
		e = &boundPod{place: s.arrived, containers: pod.Told(p.Status)}
		s.pods[p.UID] = e
	} else if same := share(e.seen, p); same {
		e.seen = p
		return false
	}
	e.seen = p
	if e.problem = s.check(p); e.problem != nil {
		s.news = true // what was told of it before stays
		s.Log.Error("pod of the apiserver cannot be run", "pod", p.Namespace+"/"+p.Name, "uid", p.UID, "problem", e.problem)
		return true
	}
	if pod.IsTerminal(p.Status.Phase) {
		s.refs.release(p.UID, now) // nothing of it begins any more
	} else {
		s.refs.hold(ctx, p, now)
	}
	if !IsMirror(p) { // of which only what it refers to is wanted, for the static pod
		s.wish(e, now)
	}
	return true
}

// wish has the pod be wanted as its newest copy says, at once or once what it
// refers to is known.
func (s *apiSource) wish(e *boundPod, now time.Time) {
	p, seen := e.seen, now.Format(time.RFC3339Nano)
	if e.wish != nil {
		seen = e.wish.Annotations[annotationSeen]
	}
	e.wish = wishOf(p, seen)
	switch {
	case p.DeletionTimestamp != nil || pod.IsTerminal(p.Status.Phase) || s.refs.complete(p.UID):
		s.tell(e)
	case s.waiting[p.UID] == nil:
		e.until = now.Add(patience)
		s.waiting[p.UID] = e
	}
}

// tell has others know of the newest wish.
func (s *apiSource) tell(e *boundPod) {
	delete(s.waiting, e.seen.UID)
	e.told, s.news = e.wish, true
}

func (s *apiSource) forget(uid types.UID, now time.Time) {
	s.news = s.news || s.pods[uid].told != nil || s.pods[uid].problem != nil
	s.refs.release(uid, now)
	delete(s.waiting, uid)
	delete(s.pods, uid)
}

// list is all that is wanted now, in the order in which it came.
func (s *apiSource) list() Update {
	u := Update{Source: APIName}
	for _, e := range slices.SortedFunc(maps.Values(s.pods), func(a, b *boundPod) int { return a.place - b.place }) {
		if e.told != nil {
			u.Pods = append(u.Pods, Desired{Pod: e.told, Origin: APIName, Told: e.containers})
		}
		if e.problem != nil {
			u.Problems = append(u.Problems, Problem{Origin: APIName, Pod: e.seen.Namespace + "/" + e.seen.Name,
				Reason: FailedValidation, Message: e.problem.Error()})
		}
	}
	return u
}

// check says why a pod cannot be run here. An apiserver sees to all of it, and
// still its names become paths on this machine.
func (s *apiSource) check(p *v1.Pod) error {
	if p.Spec.NodeName != s.NodeName {
		return fmt.Errorf("spec.nodeName %q is not this node", p.Spec.NodeName)
	}
	errs := []error{pod.CheckUID(p.UID)}
	named := func(field, name string, check func(string) []string) {
		for _, msg := range check(name) {
			errs = append(errs, fmt.Errorf("%s %.260q: %s", field, name, msg))
		}
	}
	named("metadata.namespace", p.Namespace, validation.IsDNS1123Label)
	named("metadata.name", p.Name, validation.IsDNS1123Subdomain)
	for _, v := range p.Spec.Volumes {
		named("name of a volume", v.Name, validation.IsDNS1123Label)
	}
	for c := range pod.Containers(p) {
		named("name of a container", c.Name, validation.IsDNS1123Label)
	}
	if len(p.Spec.Containers) == 0 {
		errs = append(errs, errors.New("spec.containers is empty"))
	}
	return errors.Join(errs...)
}

// share has the newer copy of a pod use the parts of the older one that are
// equal, and says whether nothing differs that anybody can wish.
func share(old, p *v1.Pod) bool {
	same := sharedMeta(&old.ObjectMeta, &p.ObjectMeta)
	// An apiserver counts the specs of a pod, from 1 on.
	counted := p.Generation > 0 && p.Generation == old.Generation
	if counted || equality.Semantic.DeepEqual(&old.Spec, &p.Spec) {
		p.Spec = old.Spec
	} else {
		same = false
	}
	return same && equality.Semantic.DeepEqual(wishedStatus(old), wishedStatus(p))
}

func sharedMeta(old, m *metav1.ObjectMeta) bool {
	version := m.ResourceVersion
	m.ResourceVersion = old.ResourceVersion
	same := equality.Semantic.DeepEqual(old, m)
	if same {
		*m = *old
	}
	m.ResourceVersion = version
	return same
}

// wishOf is the wish alone: what is the same for as long as nobody wants
// anything else. seen is when the pod was first seen (behaviour row 1.1-6).
func wishOf(p *v1.Pod, seen string) *v1.Pod {
	wish := &v1.Pod{ObjectMeta: p.ObjectMeta, Spec: p.Spec, Status: wishedStatus(p)}
	wish.ResourceVersion = ""
	wish.Annotations = maps.Clone(p.Annotations)
	if wish.Annotations == nil {
		wish.Annotations = map[string]string{}
	}
	wish.Annotations[annotationSource], wish.Annotations[annotationSeen] = APIName, seen
	return wish
}

// wishedStatus is what of a status is not our own: the conditions of others,
// for readiness gates, and a phase that is never left.
func wishedStatus(p *v1.Pod) v1.PodStatus {
	wish := v1.PodStatus{Phase: v1.PodPending}
	if pod.IsTerminal(p.Status.Phase) {
		wish.Phase, wish.Reason, wish.Message = p.Status.Phase, p.Status.Reason, p.Status.Message
	}
	for _, c := range p.Status.Conditions {
		if !pod.OwnsCondition(c.Type) {
			c.LastProbeTime, c.LastTransitionTime = metav1.Time{}, metav1.Time{}
			wish.Conditions = append(wish.Conditions, c)
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
