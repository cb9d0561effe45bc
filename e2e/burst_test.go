package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	listers "k8s.io/client-go/listers/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// burst makes and ends many pods at once.
type burst struct {
	*joined
	pods listers.PodLister
}

// TestBursts: 100 pods come in two bursts, half of them end while others come,
// and all end at once. Few words are made about it, none is refused, and nothing
// is left.
func TestBursts(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	j.create(sleeper("warm"))
	j.waitReady("warm")
	j.kubectl("delete", "pod", "warm")
	idle := j.Snapshot()
	factory := informers.NewSharedInformerFactoryWithOptions(j.client, 0, informers.WithNamespace(j.ns))
	b := burst{j, factory.Core().V1().Pods().Lister()}
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	defer cancel()
	factory.WaitForCacheSync(ctx.Done())

	began := time.Now()
	b.make("one", 50)
	b.await("one", 50)
	t.Logf("50 pods are ready after %v", time.Since(began).Round(100*time.Millisecond))
	// What is written about their end is not counted with the starts.
	b.fewWrites("one", 50)
	began = time.Now()
	b.end("one")
	b.make("two", 50)
	b.await("two", 50)
	b.await("one", 0)
	t.Logf("50 others are, and the first are gone, after %v", time.Since(began).Round(100*time.Millisecond))
	b.make("three", 50)
	b.await("three", 50)
	b.fewWrites("three", 50)
	began = time.Now()
	b.end("two", "three")
	b.await("two", 0)
	b.await("three", 0)
	t.Logf("100 pods are gone after %v", time.Since(began).Round(100*time.Millisecond))
	j.nothingLeft(idle)
	j.refusedNothing()
}

// make makes pods without waiting for any.
func (b burst) make(name string, n int) {
	b.t.Helper()
	var all strings.Builder
	for i := range n {
		meta := fmt.Sprintf("%s-%d, labels: {burst: %s}", name, i, name)
		all.WriteString(strings.Replace(sleeper(meta), "terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 20", 1) + "---\n")
	}
	b.create(all.String())
}

// end deletes bursts without waiting for any pod's end.
func (b burst) end(names ...string) {
	b.t.Helper()
	err := b.client.CoreV1().Pods(b.ns).DeleteCollection(b.t.Context(), metav1.DeleteOptions{},
		metav1.ListOptions{LabelSelector: "burst in (" + strings.Join(names, ",") + ")"})
	b.must(err)
}

// await waits until the burst has so many pods, all of them ready.
func (b burst) await(name string, n int) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("%d pods of burst %s are ready", n, name), 90*time.Second, func() error {
		pods, err := b.pods.List(labels.SelectorFromSet(labels.Set{"burst": name}))
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range pods {
			if podReady(p) && p.DeletionTimestamp == nil {
				ready++
			}
			if p.Status.Phase == v1.PodFailed || slices.ContainsFunc(p.Status.ContainerStatuses, func(s v1.ContainerStatus) bool { return s.RestartCount > 0 }) {
				b.t.Fatalf("%s: %+v", p.Name, p.Status)
			}
		}
		if len(pods) != n || ready != n {
			return fmt.Errorf("%d are there, %d of them ready", len(pods), ready)
		}
		return nil
	})
}

// fewWrites fails if a start of the burst took more than two status writes.
func (b burst) fewWrites(name string, n int) {
	b.t.Helper()
	<-time.After(time.Second) // for what may still be said
	list, err := b.plane.Requests(func(r lab.Request) bool {
		return r.User == "system:node:"+b.Node && r.Write() && r.Resource == "pods/status" && r.Namespace == b.ns && strings.HasPrefix(r.Name, name+"-")
	})
	b.must(err)
	b.t.Logf("%.2f status writes per start", float64(len(list))/float64(n))
	if len(list) > 2*n || len(list) < n {
		b.t.Errorf("%d status writes for %d starts", len(list), n)
	}
}
