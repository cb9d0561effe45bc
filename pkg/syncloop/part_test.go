package syncloop

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
)

// Containers whose parts of volumes cannot be found, as on a dead mount, hold no
// start slot while they look.
func TestDeadMountHoldsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(*world) {})
		var pods []source.Desired
		for i := range slotCount + 2 {
			p := static(fmt.Sprint("dead", i), fmt.Sprint("d", i), "term=0s")
			p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", SubPath: onDeadMount}}
			pods = append(pods, source.Desired{Pod: p, Origin: "/m/" + p.Name})
		}
		b.updates <- source.Update{Source: "file", Pods: pods}
		time.Sleep(5 * time.Second) // they look for up to callLimit
		for _, d := range pods {
			if p := b.agent.loop.actor(d.Pod.UID).now.Load(); p.Doing["create/app"].Since.IsZero() {
				t.Fatalf("%s does not look: %v", d.Pod.Name, p.Doing)
			}
		}
		well := static("well", "w", "term=0s")
		b.updates <- source.Update{Source: "file", Pods: append(pods, source.Desired{Pod: well, Origin: "/m/well"})}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		k := b.agent.loop.actor("w").now.Load().Containers["app"].Known
		if k == nil || k.State != pod.Running {
			t.Errorf("the pod that is well waits for the others: %+v", k)
		}
	})
}
