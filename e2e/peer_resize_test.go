//go:build peer

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/checkpoint"
)

// TestPeerResize: a pod that the agent resized is taken over by the kubelet with
// what it has, resized there, and taken back, without a container noticing: the
// files say to each what the other did.
func TestPeerResize(t *testing.T) {
	b, peer := newPeerBed(t)
	policy := "resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]"
	const uid = "resize-handed"
	b.start()
	b.apply("handed", sized("handed", "requests: {cpu: 100m, memory: 16Mi}, limits: {memory: 32Mi}", policy))
	p := b.ready("handed")
	b.apply("handed", sized("handed", "requests: {cpu: 200m, memory: 16Mi}, limits: {memory: 32Mi}", policy))
	p = b.resized("burstable", p, map[string]string{"cpu.shares": "204"})
	was := b.instances(uid)
	b.must(b.Agent.Stop())

	b.must(peer.Start())
	b.apply("mark", sleeper("mark"))
	b.eventually("the kubelet works", 60*time.Second, func() error {
		if n := len(b.alive()); n < 2 {
			return fmt.Errorf("%d alive", n)
		}
		return nil
	})
	if now := b.instances(uid); !maps.Equal(was, now) {
		t.Fatalf("the kubelet took over: instances %v became %v", was, now)
	}
	b.apply("handed", sized("handed", "requests: {cpu: 300m, memory: 16Mi}, limits: {memory: 32Mi}", policy))
	b.eventually("the kubelet resizes the pod", 60*time.Second, func() error {
		if got := b.limits("burstable", p, was["main"], "cpu.shares"); got != "307" {
			return fmt.Errorf("cpu.shares %s", got)
		}
		return nil
	})
	for _, name := range []string{checkpoint.Allocated, checkpoint.Actuated} {
		text, err := os.ReadFile(filepath.Join(b.Root, name))
		b.must(err)
		pods, err := checkpoint.Decode(text)
		if r := pods[uid].Containers["main"]; err != nil || r.Requests.Cpu().String() != "300m" {
			t.Errorf("the kubelet's %s says %v, error %v", name, r.Requests, err)
		}
	}
	b.must(peer.Kill())

	b.start()
	p = b.settled("handed")
	if s := container(p, "main"); s.RestartCount != 0 || !strings.HasSuffix(s.ContainerID, was["main"]) || s.AllocatedResources.Cpu().String() != "300m" {
		t.Errorf("taken back: %+v", s)
	}
	if strings.Contains(b.agentLog(), "requires restart") {
		t.Error("the agent would have restarted it")
	}
}
