package probe

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
)

func TestSleepAndTCPHooks(t *testing.T) {
	run := func(ctx context.Context, h v1.LifecycleHandler) error {
		_, err := (&Handlers{}).Run(ctx, Hook{LifecycleHandler: &h})
		return err
	}
	synctest.Test(t, func(t *testing.T) {
		sleep := func(ctx context.Context, seconds int64) (time.Duration, error) {
			began := time.Now()
			err := run(ctx, v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: seconds}})
			return time.Since(began), err
		}
		for _, seconds := range []int64{0, 7} {
			if took, err := sleep(t.Context(), seconds); err != nil || took != time.Duration(seconds)*time.Second {
				t.Errorf("sleep of %d s took %v: %v", seconds, took, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if took, err := sleep(ctx, 60); err == nil || took != 3*time.Second {
			t.Errorf("a sleep beyond its grace took %v: %v", took, err)
		}
	})
	if run(t.Context(), v1.LifecycleHandler{TCPSocket: &v1.TCPSocketAction{}}) == nil {
		t.Error("a tcpSocket hook is no failure")
	}
}
