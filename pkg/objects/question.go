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
	changed = first || !slices.EqualFunc(q.found, found, func(a, b Object) bool { return a == b || equality.Semantic.DeepEqual(a, b) })
	q.answered, q.found, q.why = true, found, nil
	return first, changed
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
	}
}

// Answered says whether there is an answer.
func (s *Store) Answered(k Key) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, err := s.answer(k)
	return err == nil
}

// answer is what was found; the caller holds mu.
func (s *Store) answer(k Key) ([]Object, error) {
	q := s.questions[k]
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
