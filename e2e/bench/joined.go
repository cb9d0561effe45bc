package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// api starts and ends pods through an apiserver one after another: bare calls,
// a node that only says that they are Ready, and the subject, in turns.
func (b *bed) api(ctx context.Context) error {
	var bare serialSamples
	bare.bareCalls = map[string][]float64{}
	var stub, ready, gone, writes []float64
	for range b.o.samples {
		if b.floor != nil {
			if err := b.bareOnce(ctx, &bare); err != nil {
				return err
			}
			took, _, err := b.apiOnce(ctx, stubNode)
			if err != nil {
				return err
			}
			stub = append(stub, took)
		}
		since := time.Now()
		took, ended, err := b.apiOnce(ctx, nodeName)
		if err != nil {
			return err
		}
		n, err := b.statusWrites(since)
		if err != nil {
			return err
		}
		ready, gone, writes = append(ready, took), append(gone, ended), append(writes, n)
	}
	who := b.subject.name
	r := b.table.set("created at the apiserver → seen Ready, one after another", who, estimate(median, ready).text("ms"))
	b.table.set("deleted at the apiserver → gone (it exits at TERM)", who, estimate(median, gone).text("ms"))
	w := b.table.set("status writes from a pod's creation to its deletion", who, estimate(mean, writes).text(""))
	if b.floor == nil {
		return nil
	}
	r.cells["bare"] = estimate(median, bare.bareStart).text("ms")
	b.table.set("a node that only says so: created → seen Ready", "bare", estimate(median, stub).text("ms"))
	over := func(s ...[]float64) float64 { return median(s[0]) - median(s[1]) - median(s[2]) }
	f := estimate(over, ready, bare.bareStart, stub)
	b.table.set("— over the bare calls and that", who, f.text("ms")).targeted("≤ 25 ms", f.atMost(25))
	// Two to be Ready, and one that says that its containers have ended.
	w.targeted("≤ 3", estimate(mean, writes).atMost(3))
	return nil
}

// apiOnce starts and ends a pod; both times are in milliseconds.
func (b *bed) apiOnce(ctx context.Context, node string) (ready, gone float64, err error) {
	name := b.name()
	ch, began, err := b.cluster.create(ctx, name, node)
	if err != nil {
		return 0, 0, err
	}
	at, err := came(ctx, ch, "Ready")
	if err != nil {
		return 0, 0, err
	}
	if err := pause(ctx, settled); err != nil {
		return 0, 0, err
	}
	ended, err := b.cluster.delete(ctx, name)
	if err != nil {
		return 0, 0, err
	}
	return milliseconds(at.Sub(began)), milliseconds(ended), pause(ctx, 2*settled)
}

// statusWrites counts what the subject wrote about pods since then.
func (b *bed) statusWrites(since time.Time) (float64, error) {
	list, err := b.cluster.Requests(func(r lab.Request) bool {
		return r.Resource == "pods/status" && r.Write() && r.Namespace == benchSpace && strings.HasPrefix(r.User, "system:node:") && r.Time.After(since)
	})
	return float64(len(list)), err
}

// apiBursts creates many pods at once.
func (b *bed) apiBursts(ctx context.Context) error {
	var all, four, agent burstSamples
	var writes []float64
	for range b.o.rounds {
		if b.floor != nil {
			if err := b.bareBurst(ctx, burst, &all); err != nil {
				return err
			}
			if err := b.bareBurst(ctx, 4, &four); err != nil {
				return err
			}
		}
		since := time.Now()
		if err := b.apiBurst(ctx, &agent); err != nil {
			return err
		}
		n, err := b.statusWrites(since)
		if err != nil {
			return err
		}
		writes = append(writes, n/burst)
	}
	who := b.subject.name
	b.table.set(fmt.Sprintf("burst of %d through the apiserver: seen Ready, each, p50", burst), who, estimate(median, agent.wait).text("s"))
	b.table.set("— status writes of each pod", who, estimate(mean, writes).text(""))
	rate := b.table.set("— pods per second", who, estimate(median, agent.rate).text(""))
	if b.floor != nil {
		rate.cells["bare"] = fmt.Sprintf("%s all at once, %s by fours", estimate(median, all.rate).text(""), estimate(median, four.rate).text(""))
		f := estimate(ratioToBest, agent.rate, all.rate, four.rate)
		b.table.set("— of the better bare rate", who, f.text("×")).targeted("≥ 0.85 ×", f.atLeast(0.85))
	}
	return nil
}

// apiBurst is one burst and its end.
func (b *bed) apiBurst(ctx context.Context, s *burstSamples) error {
	names := map[string]chan time.Time{}
	began := time.Now()
	for range burst {
		name := b.name()
		ch, _, err := b.cluster.create(ctx, name, nodeName)
		if err != nil {
			return err
		}
		names[name] = ch
	}
	var waits []float64
	for _, ch := range names {
		at, err := came(ctx, ch, "Ready")
		if err != nil {
			return err
		}
		waits = append(waits, milliseconds(at.Sub(began)))
	}
	s.enter(waits)
	var ends sync.WaitGroup
	errs := make(chan error, burst)
	for name := range names {
		ends.Go(func() {
			if _, err := b.cluster.delete(ctx, name); err != nil {
				errs <- err
			}
		})
	}
	ends.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return pause(ctx, 2*settled)
	}
}

// apiIdle watches the subject while many pods of an apiserver only stand there.
func (b *bed) apiIdle(ctx context.Context) error {
	if err := b.restartAgent(ctx); err != nil {
		return err
	}
	var empty memory
	if b.floor != nil {
		var err error
		if empty, err = emptyMemory(filepath.Join(b.dir, "empty")); err != nil {
			return fmt.Errorf("measure the empty program: %w", err)
		}
	}
	const n = 100
	ready := map[string]chan time.Time{}
	for range n {
		name := b.name()
		ch, _, err := b.cluster.create(ctx, name, nodeName)
		if err != nil {
			return err
		}
		ready[name] = ch
	}
	for _, ch := range ready {
		if _, err := came(ctx, ch, "Ready"); err != nil {
			return err
		}
	}
	if err := pause(ctx, calm); err != nil {
		return err
	}
	since := time.Now()
	if err := b.idleWith(ctx, stillness{pods: n, from: " of an apiserver", cpu: 0.4, memory: 40}, empty); err != nil {
		return err
	}
	writes, err := b.statusWrites(since)
	if err != nil {
		return err
	}
	b.table.set("— status writes of pods meanwhile", b.subject.name, fmt.Sprint(writes)).targeted("0", verdict(writes == 0, writes > 0))
	for name := range ready {
		if _, err := b.cluster.delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
