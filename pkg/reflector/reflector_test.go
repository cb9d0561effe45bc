package reflector

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

// TestEndsAtOnceInAnOutage: an agent that is told to stop does not wait for an
// apiserver that is away.
func TestEndsAtOnceInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
		asked := 0
		r := Reflector{
			ListerWatcher: &cache.ListWatch{
				ListWithContextFunc:  func(context.Context, metav1.ListOptions) (runtime.Object, error) { return nil, refused },
				WatchFuncWithContext: func(context.Context, metav1.ListOptions) (apiwatch.Interface, error) { return nil, refused },
			},
			Example: &v1.Node{}, Store: NewReplica(func(n *v1.Node) *v1.Node { return n }, func([]*v1.Node) {}),
			Least: 20 * time.Millisecond, Most: time.Minute, Asked: func(error) { asked++ },
		}
		ctx, stop := context.WithCancel(t.Context())
		var stopped time.Time
		time.AfterFunc(10*time.Minute, func() {
			stopped = time.Now()
			stop()
		})
		r.Run(ctx)
		if d := time.Since(stopped); d > 0 || asked < 10 {
			t.Errorf("ended after %s, having asked %d times", d, asked)
		}
	})
}

func TestReplicaIsWhatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		named := func(name, ip string) *v1.Service {
			return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Annotations: map[string]string{"large": "x"}}, Spec: v1.ServiceSpec{ClusterIP: ip}}
		}
		api := fake.NewClientset(named("b", "1"))
		services := api.CoreV1().Services("ns")
		var told string
		trim := func(s *v1.Service) *v1.Service {
			return &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: s.Name}, Spec: s.Spec}
		}
		tell := func(all []*v1.Service) {
			var words []string
			for _, s := range all {
				words = append(words, s.Name+s.Spec.ClusterIP+s.Annotations["large"])
			}
			told = strings.Join(words, " ")
		}
		r := Reflector{Example: &v1.Service{}, Store: NewReplica(trim, tell),
			ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
				ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
					return services.List(ctx, o)
				},
				WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
					return services.Watch(ctx, o)
				},
			}, api)}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		defer func() { stop(); <-done }()
		var got []string
		step := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			got = append(got, told)
		}
		step(nil, nil)
		step(services.Create(ctx, named("a", "2"), metav1.CreateOptions{}))
		step(services.Update(ctx, named("b", "3"), metav1.UpdateOptions{}))
		step(nil, services.Delete(ctx, "a", metav1.DeleteOptions{}))
		if want := []string{"b1", "a2 b1", "a2 b3", "b3"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}
