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

func TestNextAudit(t *testing.T) {
	for _, c := range []struct {
		events, changed bool
		period, want    time.Duration
	}{
		{events: true, period: time.Second, want: time.Minute},
		{events: true, changed: true, period: time.Minute, want: time.Minute},
		{changed: true, period: 5 * time.Second, want: time.Second},
		{period: time.Second, want: 2 * time.Second},
		{period: 5 * time.Second, want: 5 * time.Second},
	} {
		if got := nextAudit(c.events, c.changed, c.period); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
