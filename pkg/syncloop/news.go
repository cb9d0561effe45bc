package syncloop

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// news wakes those who wait for a change of a pod.
type news struct {
	mu   sync.Mutex
	next chan struct{} // closed by the next change; nil while nobody waits
}

// wait is closed by the next change.
func (n *news) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == nil {
		n.next = make(chan struct{})
	}
	return n.next
}

func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next != nil {
		close(n.next)
		n.next = nil
	}
}

// Await returns when it is true of the pod's newest value, when nothing is left
// of the pod, or when ctx ends. Values between two looks may be missed.
func (l *Loop) Await(ctx context.Context, uid types.UID, is func(pod.Pod) bool) {
	for ctx.Err() == nil {
		a := l.actor(uid)
		if a == nil {
			return
		}
		next := a.news.wait()
		if is(*a.now.Load()) || l.actor(uid) != a {
			return
		}
		select {
		case <-ctx.Done():
		case <-next:
		}
	}
}
