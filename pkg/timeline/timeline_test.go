package timeline

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

var began = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// at is a moment, in milliseconds.
func at(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }

// value is a pod of the apiserver's with that launch.
func value(l pod.Launch) pod.Pod {
	return pod.Pod{Spec: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "u"},
		Spec: v1.PodSpec{Containers: []v1.Container{{Name: "app", Image: "img"}}}}, Launches: []pod.Launch{l}}
}

// took is a step of the kind, about a container if it has a name, between two moments.
func took(kind pod.Kind, container string, from, to int) pod.Step {
	return pod.Step{Key: string(kind), Kind: kind, Container: container, Began: at(from), Ended: at(to)}
}

// draw writes a start as people can compare it: a line per span.
func draw(s Start) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s to %s, open %v, accounted %.3f\n", s.Began.Sub(began), s.Ended.Sub(began), s.Open, s.Accounted)
	for _, o := range s.Spans {
		mark := " "
		if o.Critical {
			mark = "*"
		}
		fmt.Fprintf(&out, "%s %s: %s %s %s-%s", mark, o.Lane, o.Kind, o.Name, o.Began.Sub(began), o.Ended.Sub(began))
		if o.Of != "" {
			out.WriteString(" of " + o.Of)
		}
		if o.Open {
			out.WriteString(" ...")
		}
		if o.Error != "" {
			out.WriteString(": " + o.Error)
		}
		out.WriteString("\n")
	}
	return out.String()
}

func TestTimeline(t *testing.T) {
	over := func(ms int) pod.Reached { return pod.Reached{Ready: at(ms), Over: at(ms)} }
	slotted := took(pod.Create, "app", 60, 100)
	slotted.Queue = pod.Queue{For: "a start slot", Began: at(62), Ended: at(80)}
	failed := took(pod.Pull, "app", 10, 30)
	failed.Error = "not found"
	busy := value(pod.Launch{Began: at(0), Steps: []pod.Step{took(pod.Admit, "", 0, 5)}})
	busy.Doing = map[string]pod.Doing{
		"sandbox": {Action: pod.Action{Kind: pod.RunSandbox}, Since: at(5), Queue: pod.Queue{For: "a start slot", Began: at(6)}},
		"observe": {Action: pod.Action{Kind: pod.Observe}, Since: at(7)},
	}
	for _, c := range []struct {
		name string
		pod  pod.Pod
		want string
	}{
		{"told: what was waited for is what ended last", value(pod.Launch{Seen: at(0), Began: at(2), Reached: over(150), Sent: at(155), Told: at(160), Steps: []pod.Step{
			took(pod.Admit, "", 2, 5), took(pod.Pull, "app", 5, 40), took(pod.Mount, "", 5, 20), took(pod.RunSandbox, "", 5, 60), slotted, took(pod.Start, "app", 103, 150)}}),
			`0s to 160ms, open false, accounted 1.000
* pod: wait source 0s-2ms
* pod: work admit 2ms-5ms
* pod: work sandbox 5ms-60ms
* pod: wait status 150ms-155ms
* pod: work patch 155ms-160ms
  volumes: work mount 5ms-20ms
  container app: work pull 5ms-40ms
* container app: work create 60ms-62ms
* container app: wait a start slot 62ms-80ms of create
* container app: work create 80ms-100ms
* container app: work start 103ms-150ms
* agent: agent agent 100ms-103ms
`},
		{"a time of which nobody knows is not accounted for", value(pod.Launch{Found: true, Began: at(0), Reached: over(100), Steps: []pod.Step{
			took(pod.Admit, "", 0, 20), took(pod.RunSandbox, "", 60, 100)}}),
			`0s to 100ms, open false, accounted 0.600
* pod: work admit 0s-20ms
* pod: work sandbox 60ms-100ms
`},
		{"a failure and its back-off, which goes on", value(pod.Launch{Began: at(0), Steps: []pod.Step{took(pod.Admit, "", 0, 10), failed},
			Waits: []pod.Wait{{Cause: pod.Image, Container: "app", Began: at(30)}}}),
			`0s to 200ms, open true, accounted 1.000
* pod: work admit 0s-10ms
* container app: work pull 10ms-30ms: not found
* container app: wait image 30ms-200ms ...
`},
		{"a call that waits for its slot", busy, `0s to 200ms, open true, accounted 1.000
* pod: work admit 0s-5ms
* pod: work sandbox 5ms-6ms
* pod: wait a start slot 6ms-200ms of sandbox ...
`},
		{"what is done at once has lanes of its own", value(pod.Launch{Found: true, Began: at(0), Reached: over(100), Steps: []pod.Step{
			took(pod.StopSandbox, "", 0, 50), took(pod.StopSandbox, "", 10, 60), took(pod.RunSandbox, "", 60, 100)}}),
			`0s to 100ms, open false, accounted 1.000
  removal: work stopsandbox 0s-50ms
* removal 2: work stopsandbox 10ms-60ms
* pod: work sandbox 60ms-100ms
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := draw(Of(c.pod, pod.Node{}, at(200)).Starts[0]); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
}

// A pod that is asked for by name, by namespace and name, or by UID is found; the
// answer survives its way through JSON.
func TestAll(t *testing.T) {
	pods := []pod.Pod{value(pod.Launch{Began: at(0)})}
	for which, want := range map[string]int{"": 1, "p": 1, "default/p": 1, "u": 1, "other/p": 0, "q": 0} {
		a := All(pods, pod.Node{}, at(10), which)
		text, err := json.Marshal(a)
		var back Answer
		if err == nil {
			err = json.Unmarshal(text, &back)
		}
		if err != nil || len(back.Pods) != want {
			t.Errorf("%q: %v, %s", which, err, text)
		}
		if want == 1 && (back.Pods[0].Blocker == nil || back.Pods[0].Blocker.Cause != pod.Turn || back.Pods[0].Starts[0].Spans == nil) {
			t.Errorf("%q: %s", which, text)
		}
	}
}

// TestManyLanes: of many things at once each lane has its number.
func TestManyLanes(t *testing.T) {
	var steps []pod.Step
	for i := range 12 {
		steps = append(steps, took(pod.Remove, "", i, 100+i))
	}
	steps = append(steps, took(pod.RunSandbox, "", 120, 150))
	spans := Of(value(pod.Launch{Found: true, Began: at(0), Reached: pod.Reached{Over: at(150)}, Steps: steps}), pod.Node{}, at(200)).Starts[0].Spans
	if lane := spans[11].Lane; lane != "removal 12" {
		t.Errorf("the twelfth lane is %q", lane)
	}
}
