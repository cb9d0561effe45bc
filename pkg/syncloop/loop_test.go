package syncloop

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestHung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{})
		if d := l.Hung(time.Now()); d != 0 {
			t.Errorf("a loop that was not asked before hangs for %v", d)
		}
		time.Sleep(6 * time.Minute)
		if d := l.Hung(time.Now()); d != 6*time.Minute {
			t.Errorf("a loop that does not read hangs for %v, want 6m", d)
		}
		for _, m := range l.mail.take() {
			l.read(t.Context(), m)
		}
		if d := l.Hung(time.Now()); d != 0 {
			t.Errorf("a loop that has read its mail hangs for %v", d)
		}
	})
}
