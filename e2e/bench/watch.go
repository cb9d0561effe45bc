package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// Kinds of event.
const (
	created = cri.ContainerEventType_CONTAINER_CREATED_EVENT
	started = cri.ContainerEventType_CONTAINER_STARTED_EVENT
	stopped = cri.ContainerEventType_CONTAINER_STOPPED_EVENT
	deleted = cri.ContainerEventType_CONTAINER_DELETED_EVENT
)

// patience is how long anything is waited for.
const patience = 2 * time.Minute

// event is what the runtime told, at the moment it was received.
type event struct {
	at        time.Time
	kind      cri.ContainerEventType
	id        string // of the container, or of a sandbox
	pod       string // its name; empty once its sandbox is gone
	container string // its name; empty for a sandbox
	attempt   uint32
	sandbox   string
}

// watcher is the bench's own stream of events, by which it sees bare calls and
// agent in the same way and disturbs neither.
type watcher struct {
	mu     sync.Mutex
	wanted map[*expectation]bool
	ended  chan struct{} // closed when the stream has ended with err
	err    error
}

// expectation is an event that is to come.
type expectation struct {
	what  string
	match func(event) bool
	came  chan event
	w     *watcher
}

// watch subscribes until ctx ends.
func watch(ctx context.Context, c *lab.CRI) (*watcher, error) {
	stream, err := c.Runtime.GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		return nil, fmt.Errorf("subscribe to events: %w", err)
	}
	w := &watcher{wanted: map[*expectation]bool{}, ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		for {
			e, err := stream.Recv()
			if err != nil {
				w.err = fmt.Errorf("read events: %w", err)
				return
			}
			w.see(eventOf(e))
		}
	}()
	return w, nil
}

func eventOf(r *cri.ContainerEventResponse) event {
	e := event{at: time.Now(), kind: r.ContainerEventType, id: r.ContainerId,
		pod: r.GetPodSandboxStatus().GetMetadata().GetName(), sandbox: r.GetPodSandboxStatus().GetId()}
	for _, s := range r.ContainersStatuses {
		if s.Id == r.ContainerId {
			e.container, e.attempt = s.GetMetadata().GetName(), s.GetMetadata().GetAttempt()
		}
	}
	return e
}

func (w *watcher) see(e event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := range w.wanted {
		if x.match(e) {
			x.came <- e // has room for the one that it is for
			delete(w.wanted, x)
		}
	}
}

// expect begins to look for an event, before what brings it about is done.
func (w *watcher) expect(what string, match func(event) bool) *expectation {
	x := &expectation{what: what, match: match, came: make(chan event, 1), w: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted[x] = true
	return x
}

// running expects that a pod's container has started.
func (w *watcher) running(pod string) *expectation {
	return w.expect(pod+" runs", func(e event) bool { return e.kind == started && e.pod == pod && e.container == containerName })
}

// gone expects that a container or sandbox was removed.
func (w *watcher) gone(id string) *expectation {
	return w.expect(id+" is removed", func(e event) bool { return e.kind == deleted && e.id == id })
}

// stops expects that a container stops.
func (w *watcher) stops(id string) *expectation {
	return w.expect(id+" stops", func(e event) bool { return e.kind == stopped && e.id == id })
}

// wait returns the event.
func (x *expectation) wait(ctx context.Context) (event, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case e := <-x.came:
		return e, nil
	case <-x.w.ended:
		return event{}, x.w.err
	case <-ctx.Done():
		return event{}, fmt.Errorf("wait until %s: %w", x.what, ctx.Err())
	}
}
