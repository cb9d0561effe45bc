package syncloop

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// TestAwait: who waits for a pod is told when it is as wanted, when it is gone,
// and when he no longer wants to know; not before.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{})
		p := pod.Pod{Spec: &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}}
		a := &actor{loop: l}
		a.now.Store(&p)
		l.actors["u"] = a
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		done := map[string]bool{}
		wait := func(who string, ctx context.Context, is func(pod.Pod) bool) {
			go func() {
				l.Await(ctx, "u", is)
				mu.Lock()
				defer mu.Unlock()
				done[who] = true
			}()
		}
		never := func(pod.Pod) bool { return false }
		wait("phase", t.Context(), func(p pod.Pod) bool { return p.Phase == v1.PodRunning })
		wait("canceled", ctx, never)
		wait("gone", t.Context(), never)
		check := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for _, who := range want {
				if !done[who] {
					t.Errorf("%s was not told", who)
				}
			}
			if len(done) != len(want) {
				t.Errorf("told: %v, want %v", done, want)
			}
		}
		check()
		a.news.tell() // of something else
		check()
		running := p
		running.Phase = v1.PodRunning
		a.now.Store(&running)
		a.news.tell()
		check("phase")
		cancel()
		check("phase", "canceled")
		delete(l.actors, types.UID("u"))
		a.news.tell()
		check("phase", "canceled", "gone")
		wait("late", t.Context(), never)
		check("phase", "canceled", "gone", "late")
	})
}
