package syncloop

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// fromAPI is a pod of that priority as an apiserver gives it, which asks for cpu.
func fromAPI(name string, priority int32, cpu string) *v1.Pod {
	p := static(name, name, "term=5s")
	p.Annotations[pod.SourceAnnotation] = "api"
	p.Spec.Priority = &priority
	p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}
	return p
}

// A critical pod begins as soon as those that had to make room for it have
// ended, and not before; they fail, and say why.
func TestPreemption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(*world) {})
		spare, large := fromAPI("spare", 0, "500m"), fromAPI("large", 0, "1500m")
		b.deliver(nil, spare, large)
		critical := fromAPI("critical", pod.SystemCritical, "1")
		b.deliver(nil, spare, large, critical)
		now := func(uid types.UID) *pod.Pod { return b.agent.loop.actor(uid).now.Load() }
		node := b.agent.loop.Node()
		if p := now("spare"); p.Phase != v1.PodRunning {
			t.Errorf("who need not end: %s", p.Phase)
		}
		victim := now("large")
		s := pod.Status(*victim, node, time.Now())
		last := s.Conditions[len(s.Conditions)-1]
		if s.Phase != v1.PodFailed || s.Reason != "Preempting" || last.Type != v1.DisruptionTarget || last.Reason != v1.PodReasonTerminationByKubelet {
			t.Errorf("the victim: %s %s %+v", s.Phase, s.Reason, last)
		}
		began := now("critical").Containers["app"].Known
		if began == nil || began.State != pod.Running {
			t.Fatalf("the critical pod does not run: %+v", now("critical").Verdict)
		}
		if ended := victim.Containers["app"].Known.FinishedAt; began.StartedAt.Before(ended) || began.StartedAt.Sub(ended) > time.Second {
			t.Errorf("it began at %s, its victim ended at %s", began.StartedAt, ended)
		}
	})
}

// Who was to end for another before he had an actor is told when he has one.
func TestPreemptionOfOneFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := fromAPI("large", 0, "1500m")
		known := map[types.UID]pod.Record{"large": {Spec: large, Origin: "/m/large", Granted: true}}
		b := newBench(t, known, func(w *world) { running(w, large) })
		// Nobody names it at first, as its file cannot be read.
		b.deliver([]string{"/m/other"}, fromAPI("critical", pod.SystemCritical, "1"))
		if v := b.agent.loop.actor("critical").now.Load().Verdict; v.State != pod.Granted {
			t.Errorf("the critical pod: %+v", v)
		}
	})
}

// Labels that are older than the scheduler's are read once more.
func TestAskNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, func(*world) {})
		l := b.agent.loop
		asked := 0
		l.AskNode = func(context.Context) error {
			asked++
			l.SetNode(map[string]string{"zone": "b"}, nil, nil)
			return nil
		}
		l.SetNode(map[string]string{"zone": "a"}, nil, nil)
		there, nowhere := fromAPI("there", 0, "1"), fromAPI("nowhere", 0, "1m")
		there.Spec.NodeSelector = map[string]string{"zone": "b"}
		nowhere.Spec.NodeSelector = map[string]string{"zone": "c"}
		b.deliver(nil, there)
		b.deliver(nil, there, nowhere)
		if p := l.actor("there").now.Load(); p.Phase != v1.PodRunning || asked != 2 {
			t.Errorf("a pod of the node's newest zone: %s, asked %d times", p.Phase, asked)
		}
		if v := l.actor("nowhere").now.Load().Verdict; v.Reason != "NodeAffinity" {
			t.Errorf("a pod of another zone: %+v", v)
		}
		l.SetNode(map[string]string{"zone": "a"}, []v1.Taint{{Key: "x", Effect: v1.TaintEffectNoExecute}}, nil)
		b.deliver(nil, there, nowhere, fromAPI("late", 0, "1m"))
		if p := l.actor("there").now.Load(); p.Phase != v1.PodRunning {
			t.Errorf("a pod that runs does not any more: %s", p.Phase)
		}
		if v := l.actor("late").now.Load().Verdict; v.Reason != "TaintToleration" {
			t.Errorf("a pod that does not tolerate the node: %+v", v)
		}
	})
}
