package local

import (
	"math/rand"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/api/resource"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Whatever an apiserver may send, with any field set, is judged, begins or waits
// with a reason, and ends: nothing that one pod asks for brings the agent down.
func TestForeseeAnyPod(t *testing.T) {
	for seed := range int64(300) {
		fill := fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(seed), serializer.NewCodecFactory(runtime.NewScheme())).MaxDepth(20)
		var p v1.Pod
		fill.Fill(&p)
		p.UID, p.Spec.NodeName = "u", ""
		if seed%2 == 0 { // one that the node lets in, with all else that it asks for
			p.Spec.NodeSelector, p.Spec.Affinity, p.Spec.OS, p.Spec.HostNetwork = nil, nil, nil, false
		}
		if seed%4 == 0 { // and one for which all is built
			p.Spec.ResourceClaims, p.Status.ExtendedResourceClaimStatus = nil, nil
		}
		l := ledger.Ledger{Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("2")}, Users: ledger.Users{Count: 9, Length: 65536}}
		_, verdict := ledger.Admit(l, ledger.ClaimOf(&p))
		if seed%2 == 0 {
			verdict = pod.Verdict{State: pod.Granted}
		}
		now := time.Unix(1e9, 0)
		out := foresee(node{verdict: verdict}, &p, now)
		if len(out.Steps) == 0 {
			t.Errorf("seed %d: nothing would be done: %+v", seed, out)
		}
		value := pod.New(pod.Wanted{At: now, Spec: &p}, pod.View{}, nil)
		value = pod.Apply(value, pod.Judged{At: now, Verdict: verdict})
		if s := pod.Status(value, pod.Node{}, now); s.Phase == "" {
			t.Errorf("seed %d: no phase", seed)
		}
		if waits := pod.Waits(value, pod.Node{}, now); len(pod.Unbuilt(&p)) > 0 && verdict.State == pod.Granted && len(waits) == 0 {
			t.Errorf("seed %d: asks for what is not built, and waits for nothing", seed)
		}
	}
}
