package syncloop

import (
	"context"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/source"
)

// origins are the files of one source. All is guarded by world.mu.
type origins struct {
	name    string
	drafts  map[string]*draft // all that ever were, by origin
	now     map[string]source.Desired
	held    map[string]bool // unreadable for the time being
	away    bool            // an apiserver that cannot be reached
	changed chan struct{}   // closed at the next change
}

func newOrigins(name string) *origins {
	return &origins{name: name, drafts: map[string]*draft{}, now: map[string]source.Desired{}, held: map[string]bool{}, changed: make(chan struct{})}
}

// put makes the draft's present version what the source wants.
func (o *origins) put(d *draft) types.UID {
	o.drafts[d.origin] = d
	origin := d.origin
	if o.name == source.APIName {
		origin = source.APIName
	}
	o.now[d.origin] = source.Desired{Pod: d.made(o.name), Origin: origin}
	o.touch()
	return o.now[d.origin].Pod.UID
}

func (o *origins) remove(origin string) {
	delete(o.now, origin)
	o.touch()
}

func (o *origins) touch() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// reached waits until the source is not away.
func (o *origins) reached(ctx context.Context, w *world) error {
	for {
		var away bool
		var changed chan struct{}
		w.locked(func() { away, changed = o.away, o.changed })
		if !away {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// deliver tells one agent what the source wants, from now on. What an origin
// that is held gave before stays wanted; what it gave to an earlier process
// nobody remembers.
func (o *origins) deliver(ctx context.Context, w *world, late time.Duration, out chan<- source.Update) {
	if sleep(ctx, late) != nil {
		return
	}
	seen := map[string]source.Desired{}
	for {
		if o.reached(ctx, w) != nil {
			return
		}
		var u source.Update
		var changed chan struct{}
		w.locked(func() {
			u, changed = source.Update{Source: o.name}, o.changed
			for origin := range seen {
				if _, there := o.now[origin]; !there && !o.held[origin] {
					delete(seen, origin)
				}
			}
			for origin, d := range o.now {
				if !o.held[origin] {
					seen[origin] = d
				}
			}
			u.Held = slices.Sorted(maps.Keys(o.held))
			for _, origin := range slices.Sorted(maps.Keys(seen)) {
				u.Pods = append(u.Pods, seen[origin])
			}
			w.say("source %s delivers %d pods, holds %v", o.name, len(u.Pods), u.Held)
			if o == w.cluster.origins {
				w.cluster.heard[w.agent.number] = true
			}
		})
		select {
		case out <- u:
		case <-ctx.Done():
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
