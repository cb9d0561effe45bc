package syncloop

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// stateDisk keeps states, unless it is full.
type stateDisk struct {
	full bool
	has  map[types.UID]bool
}

func (d *stateDisk) Write(allocated, _ map[types.UID]pod.Resources) error {
	if d.full {
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
		d := &stateDisk{full: true}
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
		d.full = false
		time.Sleep(stateRetry)
		synctest.Wait()
		if !d.has["q"] {
			t.Errorf("after %v the disk has %v, want q in it", stateRetry, d.has)
		}
	})
}
