package objects

import (
	"errors"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Question is what an apiserver is asked: for one object, or for all services
// of a namespace. It stands in its Store until it is closed.
type Question struct {
	store *Store
	key   Key

	// Under the store's mu.
	answered bool
	found    []Object
	why      error // of no answer, nil when it is only awaited
}

// Unread says that the apiserver has not told yet whether there is such an
// object. It passes by itself: whoever waits is told by the answer.
type Unread struct {
	Key Key
	Why error // what the apiserver said instead, nil when it said nothing
}

func (u *Unread) Error() string {
	text := u.Key.String() + " has not been read from the apiserver yet"
	if u.Why != nil {
		text += ": " + u.Why.Error()
	}
	return text
}

// IsUnread says that the error passes by itself with the apiserver's answer.
func IsUnread(err error) bool {
	var u *Unread
	return errors.As(err, &u) || errors.Is(err, errServicesUnread)
}

// Ask puts a question, in the place of an older one about the same.
func (s *Store) Ask(k Key) *Question {
	q := &Question{store: s, key: k}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.questions == nil {
		s.questions = map[Key]*Question{}
	}
	s.questions[k] = q
	return q
}

// Answer makes the objects all that there are, none if the name is not taken.
// first says that it is the first answer, changed that it differs from the last.
func (q *Question) Answer(found []Object) (first, changed bool) {
	q.store.mu.Lock()
	defer q.store.mu.Unlock()
	first = !q.answered
	changed = first || !equal(q.found, found)
	q.answered, q.found, q.why = true, found, nil
	delete(q.store.old, q.key)
	if changed {
		q.store.tell(q.key)
	}
	return first, changed
}

func equal(a, b []Object) bool {
	return slices.EqualFunc(a, b, func(a, b Object) bool { return a == b || equality.Semantic.DeepEqual(a, b) })
}

// tell has the Keeper look at the answer; the caller holds mu.
func (s *Store) tell(k Key) {
	if s.news == nil {
		return
	}
	s.news[k] = true
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Fail says why there is no answer. One that was given holds on.
func (q *Question) Fail(why error) {
	q.store.mu.Lock()
	defer q.store.mu.Unlock()
	q.why = why
}

// Close withdraws the question: what it asked for is unknown again.
func (q *Question) Close() {
	q.store.mu.Lock()
	defer q.store.mu.Unlock()
	if q.store.questions[q.key] == q {
		delete(q.store.questions, q.key)
		q.store.tell(q.key)
	}
}

// Settle says that all is asked that pods here refer to: nothing else of what an
// earlier process was answered counts any more.
func (s *Store) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.old {
		if s.questions[k] == nil {
			delete(s.old, k)
			s.tell(k)
		}
	}
}

// Answered says whether there is an answer, given to this process.
func (s *Store) Answered(k Key) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	q := s.questions[k]
	return q != nil && q.answered
}

// Stale says that of something that the volume shows only an earlier process had
// an answer: it may be older than what the volume shows already.
func (s *Store) Stale(p *v1.Pod, v *v1.Volume) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	stale := false
	visitVolume(v, func(kind, name string) {
		_, old := s.old[Key{kind, p.Namespace, name}]
		stale = stale || old
	})
	return stale
}

// answer is what was found; the caller holds mu.
func (s *Store) answer(k Key) ([]Object, error) {
	q := s.questions[k]
	if found, ok := s.old[k]; ok {
		return found, nil
	}
	switch {
	case q == nil:
		return nil, &Unread{Key: k}
	case !q.answered:
		return nil, &Unread{Key: k, Why: q.why}
	}
	return q.found, nil
}

// servicesOf are the questions about the services of which the pod's variables
// tell (behaviour row 1.7-4).
func servicesOf(p *v1.Pod) []Key {
	keys := []Key{{Service, v1.NamespaceDefault, "kubernetes"}}
	if ptr.Deref(p.Spec.EnableServiceLinks, true) {
		keys = append(keys, Key{Kind: Service, Namespace: p.Namespace})
	}
	return keys
}

var errServicesUnread = errors.New("services have not yet been read at least once, cannot construct envvars")

// Services are those of which the pod's variables tell, and perhaps others; an
// error while the apiserver has not said. Static pods do not wait for it
// (behaviour row 1.7-5).
func (s *Store) Services(p *v1.Pod) ([]*v1.Service, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*v1.Service
	for _, k := range servicesOf(p) {
		found, err := s.answer(k)
		if err != nil && !pod.IsStatic(p) {
			return nil, errServicesUnread
		}
		for _, o := range found {
			out = append(out, o.(*v1.Service))
		}
	}
	return out, nil
}
