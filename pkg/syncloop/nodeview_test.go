package syncloop

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Pods that run are told of the node's new addresses, and those that begin get
// them; an object without any says nothing.
func TestAddressesFollowTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(*world) {})
		l := b.agent.loop
		b.deliver(nil, fromAPI("web", 0, "1m"))
		told := make(tells, 10)
		l.World = told
		l.SetNode(nil, nil, []string{"192.0.2.1"})
		synctest.Wait()
		if len(told) != 1 {
			t.Errorf("the pod was told %d times", len(told))
		}
		l.SetNode(nil, nil, nil)
		l.SetNode(nil, nil, []string{"192.0.2.1"})
		synctest.Wait()
		if len(told) != 1 {
			t.Error("told without news")
		}
		s := pod.Status(*l.actor("web").now.Load(), l.Node(), time.Now())
		if s.HostIP != "192.0.2.1" || !slices.Equal(l.Node().HostIPs, []string{"192.0.2.1"}) {
			t.Errorf("host %s of %v", s.HostIP, l.Node().HostIPs)
		}
	})
}

// tells is a world that counts what it is told.
type tells chan pod.Pod

func (c tells) Tell(p pod.Pod)                { c <- p }
func (c tells) Forget(types.UID)              {}
func (c tells) Synced([]types.NamespacedName) {}

// A pod that runs costs one goroutine, and nothing of it wakes because time passes.
func TestIdlePodsSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 100
		b := newBench(t, nil, func(*world) {})
		l := b.agent.loop
		l.grants.ledger.Allocatable = v1.ResourceList{v1.ResourceCPU: resource.MustParse("1")}
		b.deliver(nil)
		before := runtime.NumGoroutine()
		var pods []*v1.Pod
		for i := range count {
			pods = append(pods, fromAPI(fmt.Sprint("p", i), 0, "1m"))
		}
		b.deliver(nil, pods...)
		for _, p := range l.Pods() {
			if p.Phase != v1.PodRunning {
				t.Fatalf("%s is %s: %+v", p.UID(), p.Phase, p.Verdict)
			}
		}
		if n := runtime.NumGoroutine() - before; n > count {
			t.Errorf("%d goroutines for %d pods", n, count)
		}
		told := make(tells, 10*count)
		l.World = told
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(told) > 0 {
			t.Errorf("%d pods woke in an hour", len(told))
		}
	})
}
