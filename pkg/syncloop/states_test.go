package syncloop

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// stateDisk keeps states, unless it is full.
type stateDisk struct {
	full atomic.Bool
	has  map[types.UID]bool
}

func (d *stateDisk) Write(allocated, _ map[types.UID]pod.Resources) error {
	if d.full.Load() {
		return errors.New("no space left")
	}
	d.has = map[types.UID]bool{}
	for uid := range allocated {
		d.has[uid] = true
	}
	return nil
}

// What nobody waits for is written later too when it came together with what
// somebody waited for, and could not be written.
func TestStatesAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &stateDisk{}
		d.full.Store(true)
		l := New(Config{States: d, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		l.states.put(stateOf(static("quiet", "q", ""), nil))
		written := make(chan error, 1)
		s := stateOf(static("loud", "l", ""), nil)
		s.written = written
		l.states.put(s)
		go l.keepStates(ctx)
		if err := <-written; err == nil {
			t.Fatal("a full disk took it")
		}
		synctest.Wait()
		d.full.Store(false)
		time.Sleep(stateRetry)
		synctest.Wait()
		if !d.has["q"] {
			t.Errorf("after %v the disk has %v, want q in it", stateRetry, d.has)
		}
	})
}

// What is told just before the agent ends is on disk when it has.
func TestStatesAreWrittenAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &stateDisk{}
		l := New(Config{States: d, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		l.states.put(stateOf(static("last", "l", ""), nil))
		l.keepStates(ctx)
		if !d.has["l"] {
			t.Errorf("the disk has %v, want l in it", d.has)
		}
	})
}
