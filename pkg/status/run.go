package status

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

const (
	// workers is how many calls are under way at once.
	workers = 8
	// A pod may have that many calls at once and one more each second, whatever
	// it does: somebody may write the opposite of what we do.
	paceRate, paceBurst = 1, 10
)

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w.lookAll()
		wake := w.begin(ctx, &work, time.Now())
		if wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(wake))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.news:
		case <-timer.C:
		}
	}
}

// view is what is known of a pod at a moment.
type view struct {
	known
	orphan bool // no static pod is to be expected
	node   *v1.Node
}

// view copies what is known of the pod. The caller holds w.mu.
func (w *Writer) view(k *known) view {
	return view{known: *k, orphan: w.synced && !k.expected, node: w.node}
}

// lookAll looks at the pods of which there is news.
func (w *Writer) lookAll() {
	w.mu.Lock()
	looked := map[*known]view{}
	for _, k := range w.pods {
		if k.news && !k.busy {
			k.news = false
			looked[k] = w.view(k)
		}
	}
	w.mu.Unlock()
	now := time.Now()
	for k, v := range looked {
		next := w.planned(v, now)
		w.mu.Lock()
		switch {
		case next.verb == idle:
			if !k.since.IsZero() && len(k.here) > 0 {
				w.Metrics.Synced(now.Sub(k.since))
			}
			k.since = time.Time{}
		case k.since.IsZero():
			k.since = now
		}
		k.next = next
		w.mu.Unlock()
	}
}

// planned is what is to be done next about a pod.
func (w *Writer) planned(v view, now time.Time) (s step) {
	switch {
	case v.static():
		s = planStatic(v.here, w.Node(), v.node, v.there, v.orphan, v.since, now)
	case len(v.here) == 0 || v.there == nil || v.deleted:
		return step{}
	default:
		s = plan(*v.here[0], w.Node(), v.there, v.since, now)
	}
	if r := v.refused; s.verb == patch && r != nil && r.version == v.there.ResourceVersion && equality.Semantic.DeepEqual(s.status, r.sent) {
		return step{}
	}
	if s.verb != idle && v.unsure {
		s.verb = get
	}
	return s
}

// begin starts the calls whose time has come, those first that somebody waits
// for, and says when to look again: zero when nothing is to come. In an outage
// one call at a time tries whether it is over.
func (w *Writer) begin(ctx context.Context, work *sync.WaitGroup, now time.Time) (wake time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	type turn struct {
		due time.Time
		*known
	}
	at := func(t time.Time) {
		if wake.IsZero() || t.Before(wake) {
			wake = t
		}
	}
	var turns []turn
	for _, k := range w.pods {
		if k.busy || k.next.verb == idle {
			continue
		}
		due := latest(k.next.due, k.wait)
		if missing := 1 - k.pace.TokensAt(now); missing > 0 {
			due = latest(due, now.Add(time.Duration(missing/paceRate*float64(time.Second))))
		}
		if due.After(now) {
			at(due)
			continue
		}
		turns = append(turns, turn{due, k})
	}
	slices.SortFunc(turns, func(a, b turn) int {
		if a.next.urgent != b.next.urgent {
			if a.next.urgent {
				return -1
			}
			return 1
		}
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.id, b.id))
	})
	free := workers - w.flying
	if w.outage != nil && len(turns) > 0 {
		free = min(free, 1-w.flying)
		if w.outage.retry.After(now) {
			at(w.outage.retry)
			free = 0
		}
	}
	for _, t := range turns[:max(0, min(free, len(turns)))] {
		t.pace.AllowN(now, 1)
		t.busy = true
		w.flying++
		timeout := w.timeout()
		work.Go(func() { w.fly(ctx, t.known, timeout) })
	}
	return wake
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
