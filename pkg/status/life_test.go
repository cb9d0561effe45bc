package status

import (
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

var node = pod.Node{Name: "n1", HostIPs: []string{"192.168.0.1"}, RuntimeName: "containerd"}

// life is a pod that does what is planned for it on a runtime where all goes
// well, in the time that real ones take.
type life struct {
	p    pod.Pod
	tell func(pod.Pod)
	made int
	took map[pod.Kind]time.Duration
}

// quick are durations of the calls that take time.
var quick = map[pod.Kind]time.Duration{pod.RunSandbox: 80 * time.Millisecond, pod.Create: 30 * time.Millisecond, pod.Start: 30 * time.Millisecond,
	pod.StopContainer: 50 * time.Millisecond, pod.StopSandbox: 20 * time.Millisecond, pod.Unmount: 10 * time.Millisecond}

// born is a pod as a source wants it for the first time.
func born(spec *v1.Pod, at time.Time, tell func(pod.Pod)) *life {
	wish := spec.DeepCopy()
	wish.Status = v1.PodStatus{Phase: v1.PodPending}
	if wish.Annotations == nil {
		wish.Annotations = map[string]string{pod.SourceAnnotation: "api"}
	}
	l := &life{p: pod.New(pod.Wanted{At: at, Spec: wish, Origin: "api"}, pod.View{}, nil), tell: tell, took: map[pod.Kind]time.Duration{}}
	return l
}

func (l *life) apply(e pod.Event) {
	l.p = pod.Apply(l.p, e)
	if l.tell != nil {
		l.tell(l.p)
	}
}

// live does what is planned until nothing is, or until an action of the kind
// stop is planned.
func (l *life) live(stop pod.Kind) (gone bool) {
	for range 200 {
		actions, _ := pod.Plan(l.p, node, time.Now())
		if len(actions) == 0 {
			return false
		}
		a := actions[0]
		if a.Kind == stop {
			return false
		}
		if a.Kind == pod.Forget {
			return true
		}
		l.apply(pod.Begun{At: time.Now(), Action: a})
		if d := l.took[a.Kind]; d > 0 {
			time.Sleep(d)
		}
		l.apply(l.do(a))
	}
	panic("no end of it")
}

func (l *life) do(a pod.Action) pod.Event {
	now := time.Now()
	done := pod.Done{At: now, Action: a}
	l.made++
	switch a.Kind {
	case pod.Admit:
		return pod.Judged{At: now, Verdict: pod.Verdict{State: pod.Granted}}
	case pod.Save:
		r := l.p.Record()
		done.Record = &r
	case pod.Pull:
		done.Image = a.Image + "@sha256:1"
	case pod.RunSandbox:
		done.Sandbox = &pod.Sandbox{ID: fmt.Sprintf("s%d", l.made), Ready: true, HostNetwork: l.p.Spec.Spec.HostNetwork, IPs: []string{"10.88.0.7"}, CreatedAt: now}
	case pod.Create:
		done.Container = &pod.Container{ID: fmt.Sprintf("c%d", l.made), Name: a.Container, SandboxID: a.ID, Attempt: a.Attempt,
			Image: "img", ImageRef: "img@sha256:1", CreatedAt: now}
	case pod.Start, pod.StopContainer:
		for _, c := range l.p.View.Containers {
			if c.ID != a.ID {
				continue
			}
			c.State, c.StartedAt = pod.Running, now
			if a.Kind == pod.StopContainer {
				c.State, c.FinishedAt, c.ExitCode, c.Reason = pod.Exited, now, 143, "Error"
			}
			done.Container = &c
		}
	case pod.Observe:
		done.View = &l.p.View
	}
	return done
}

// dies has a container end by itself.
func (l *life) dies(name string, code int32) {
	view := pod.View{Sandboxes: l.p.View.Sandboxes}
	for _, c := range l.p.View.Containers {
		if c.Name == name && c.State == pod.Running {
			c.State, c.FinishedAt, c.ExitCode, c.Reason = pod.Exited, time.Now(), code, "Completed"
			if code != 0 {
				c.Reason = "Error"
			}
		}
		view.Containers = append(view.Containers, c)
	}
	a := pod.Action{Kind: pod.Observe}
	l.apply(pod.Changed{At: time.Now()})
	l.apply(pod.Begun{At: time.Now(), Action: a})
	l.apply(pod.Done{At: time.Now(), Action: a, View: &view})
}

// bound is a pod as a scheduler leaves it.
func bound(name string, at time.Time, alter ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: types.UID("uid-" + name), ResourceVersion: "1", Generation: 1},
		Spec: v1.PodSpec{NodeName: "n1", RestartPolicy: v1.RestartPolicyAlways,
			Containers: []v1.Container{{Name: "c", Image: "img"}}},
		Status: v1.PodStatus{Phase: v1.PodPending, QOSClass: v1.PodQOSBestEffort, Conditions: []v1.PodCondition{
			{Type: v1.PodScheduled, Status: v1.ConditionTrue, ObservedGeneration: 1, LastTransitionTime: metav1.NewTime(at.Truncate(time.Second))}}},
	}
	for _, f := range alter {
		f(p)
	}
	return p
}

// ends has the pod end as its deletion at the apiserver does.
func (l *life) ends() {
	wish := l.p.Spec.DeepCopy()
	wish.DeletionTimestamp, wish.DeletionGracePeriodSeconds = new(metav1.Now()), new(int64(30))
	l.apply(pod.Wanted{At: time.Now(), Spec: wish, Origin: "api"})
}

// probed has the readiness probe of container c come to another result.
func (l *life) probed(r pod.Result) {
	l.apply(pod.Probed{At: time.Now(), Container: "c", ContainerID: l.p.Containers["c"].Known.ID, Probe: pod.Readiness, Result: r})
}
