package syncloop

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

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
