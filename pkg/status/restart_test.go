package status

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// TestRestartIsNeutral: an agent that starts again has nothing to say of a pod
// of which nothing has changed, at any moment until it has taken it up; not even
// if it was killed before it had written what it knew.
func TestRestartIsNeutral(t *testing.T) {
	probes := func(p *v1.Pod) {
		p.Spec.Containers[0].ReadinessProbe, p.Spec.Containers[0].StartupProbe = &v1.Probe{}, &v1.Probe{}
	}
	sidecar := func(p *v1.Pod) {
		p.Spec.InitContainers = []v1.Container{{Name: "s", Image: "img", RestartPolicy: new(v1.ContainerRestartPolicyAlways), StartupProbe: &v1.Probe{}},
			{Name: "i", Image: "img"}}
	}
	passed := func(l *life, c string, k pod.Probe, r pod.Result) {
		l.apply(pod.Probed{At: time.Now(), Container: c, ContainerID: l.p.Containers[c].Known.ID, Probe: k, Result: r})
	}
	for name, c := range map[string]struct {
		spec func(*v1.Pod)
		life func(*life)
	}{
		"running": {life: upTo("")},
		"ready": {probes, func(l *life) {
			l.live("")
			passed(l, "c", pod.Startup, pod.Success)
			passed(l, "c", pod.Readiness, pod.Success)
			l.live("")
		}},
		"unready": {probes, func(l *life) {
			l.live("")
			passed(l, "c", pod.Startup, pod.Success)
			passed(l, "c", pod.Readiness, pod.Fail)
			l.live("")
		}},
		"starting": {probes, upTo("")},
		"sidecar": {sidecar, func(l *life) {
			l.live("")
			passed(l, "s", pod.Startup, pod.Success)
			l.live("")
			l.dies("i", 0)
			l.live("")
		}},
		"restarted": {life: func(l *life) { l.live(""); l.dies("c", 1); l.live("") }},
		"finished":  {policy(v1.RestartPolicyNever), func(l *life) { l.live(""); l.dies("c", 3); l.live("") }},
	} {
		for _, written := range []bool{true, false} {
			kind := map[bool]string{true: "/record", false: "/killed"}[written]
			t.Run(name+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { restart(t, c.spec, c.life, written) })
			})
		}
	}
}

func restart(t *testing.T, spec func(*v1.Pod), live func(*life), written bool) {
	there := bound("web", time.Now())
	if spec != nil {
		spec(there)
	}
	before := born(there, time.Now(), nil)
	live(before)
	there.Status = merge(before.p, node, there, time.Now())
	time.Sleep(time.Minute)
	var record *pod.Record
	if written {
		record = before.p.Setup.Recorded
	}
	wish := before.p.Wish().DeepCopy()
	if pod.IsTerminal(there.Status.Phase) {
		wish.Status.Phase = there.Status.Phase
	}
	check := func(p pod.Pod) {
		t.Helper()
		if next := merge(p, node, there, time.Now()); !equality.Semantic.DeepEqual(next, there.Status) {
			patch, _ := patchOf(there, next)
			t.Fatalf("it would be told: %s", patch)
		}
	}
	after := &life{tell: check, made: 1000}
	after.p = pod.New(pod.Wanted{At: time.Now(), Spec: wish, Origin: "api", Told: pod.Told(there.Status)}, before.p.View, record)
	check(after.p)
	after.apply(pod.Logged{At: time.Now()})
	after.live("")
}
