package source

import (
	"fmt"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/randfill"

	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/objects"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// TestNoPodIsTooOdd: of an apiserver's pods this node checks the names alone,
// and whatever else they say must not end it.
func TestNoPodIsTooOdd(t *testing.T) {
	s := NewAPI(APIOptions{NodeName: "here"}).(*apiSource)
	taken := 0
	for seed := range int64(2000) {
		p := randomPod(seed)
		if s.check(p) != nil {
			continue
		}
		taken++
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			wish := wishOf(p, "now")
			objects.Visit(wish, func(objects.Key) {})
			ledger.ClaimOf(wish)
			live(wish)
			for c := range pod.Containers(wish) {
				_, _ = env.Resolver{Objects: &objects.Store{}}.Container(wish, c, env.Surroundings{})
			}
		})
	}
	if taken < 400 {
		t.Errorf("only %d pods were odd enough", taken)
	}
}

func randomPod(seed int64) *v1.Pod {
	p := &v1.Pod{}
	randfill.NewWithSeed(seed).NilChance(0.6).NumElements(0, 3).MaxDepth(12).Funcs(
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewQuantity(c.Int63n(1000), resource.DecimalSI)
		},
	).Fill(p)
	p.Namespace, p.Name, p.UID, p.Spec.NodeName = "ns", "p", "uid", "here"
	i := 0
	for c := range pod.Containers(p) {
		i++
		c.Name = fmt.Sprint("c", i)
	}
	for i := range p.Spec.Volumes {
		p.Spec.Volumes[i].Name = fmt.Sprint("v", i)
	}
	return p
}

// live has the pod begin and do what it plans for a while; each fourth step fails.
func live(wish *v1.Pod) {
	now, node := time.Unix(1e9, 0), pod.Node{Name: "here", HostIPs: []string{"192.0.2.1"}}
	p := pod.New(pod.Wanted{At: now, Spec: wish, Origin: APIName}, pod.View{}, nil)
	steps := 0
	for range 20 {
		actions, _ := pod.Plan(p, node, now)
		for _, act := range actions {
			steps++
			p = pod.Apply(p, pod.Begun{At: now, Action: act})
			if act.Kind == pod.Admit {
				p = pod.Apply(p, pod.Judged{At: now, Verdict: pod.Verdict{State: pod.Granted}})
				continue
			}
			done := pod.Done{At: now, Action: act, View: &pod.View{}, Record: &pod.Record{},
				Sandbox: &pod.Sandbox{ID: "s", Ready: true}, Container: &pod.Container{ID: act.Key(), Name: act.Container}}
			if steps%4 == 0 {
				done.Failure = &pod.Failure{Message: "odd"}
			}
			p = pod.Apply(p, done)
		}
		pod.Status(p, node, now)
		pod.Probes(p, node)
		now = now.Add(time.Second)
	}
}
