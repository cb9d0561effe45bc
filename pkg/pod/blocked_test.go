package pod

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// verbQueue has an action wait for its turn, or have it: queue create/app "a start
// slot"; queue create/app.
func (w *world) verbQueue(a args, _ []string) string {
	w.apply(Queued{At: w.now, Key: a.word(0), For: a.named["for"]})
	return ""
}

// verbTold has the apiserver know that the pod is ready.
func (w *world) verbTold(args, []string) string {
	w.apply(Published{Sent: w.now, At: w.now})
	return ""
}

// verbBlocked prints the one thing that the pod waits for.
func (w *world) verbBlocked(args, []string) string {
	b, blocked := Blocked(w.pod, w.node, w.now)
	if !blocked {
		return "nothing\n"
	}
	var out strings.Builder
	if b.Stuck(w.now) {
		out.WriteString("stuck: ")
	}
	fmt.Fprintf(&out, "%s %s", b.Cause, cmp.Or(b.Container, "-"))
	if b.Step != "" {
		fmt.Fprintf(&out, " in %s", b.Step)
	}
	fmt.Fprintf(&out, " since=%s", w.since(b.Since))
	if !b.Next.IsZero() {
		fmt.Fprintf(&out, " next=%s", w.since(b.Next))
	}
	fmt.Fprintf(&out, "\n%s\n", b.What)
	if b.Remedy != "" {
		fmt.Fprintf(&out, "%s\n", b.Remedy)
	}
	return out.String()
}

// verbWaited prints the waits of the newest start.
func (w *world) verbWaited(args, []string) string {
	var out strings.Builder
	for _, o := range w.pod.Launches[len(w.pod.Launches)-1].Waits {
		end := "..."
		if !o.Ended.IsZero() {
			end = w.since(o.Ended)
		}
		fmt.Fprintf(&out, "%s-%s %s %s\n", w.since(o.Began), end, o.Cause, o.Container)
	}
	return out.String()
}

// What is kept of a start has a bound, however long it goes wrong; the first steps
// and the newest stay. Of the starts of a pod that crashes the first and the newest
// stay.
func TestLaunchesAreBounded(t *testing.T) {
	w := newWorld(t)
	w.verbPod(args{}, []string{"main app"})
	for i := range 500 {
		w.start()
		for _, key := range sortedKeys(w.pod.Doing) {
			if key == "pull/app" {
				w.apply(Done{At: w.now, Action: w.pod.Doing[key].Action, Failure: &Failure{Reason: "ErrImagePull", Message: fmt.Sprint("try ", i)}})
				continue
			}
			w.finish(w.pod.Doing[key].Action, args{})
		}
		w.start() // which finds nothing to do
		w.now = w.now.Add(5 * time.Minute)
	}
	l := w.pod.Launches[0]
	if len(w.pod.Launches) != 1 || len(l.Steps) != 2*KeptOfLaunch || len(l.Waits) != 2*KeptOfLaunch || l.Left.Steps == 0 {
		t.Errorf("%d launches; of one that fails for long: %d steps, %d waits are kept, %d not", len(w.pod.Launches), len(l.Steps), len(l.Waits), l.Left.Steps)
	}
	if l.Steps[0].Kind != Admit || l.Steps[len(l.Steps)-1].Error != "try 499" {
		t.Errorf("kept are %v to %v", l.Steps[0], l.Steps[len(l.Steps)-1])
	}

	w = newWorld(t)
	w.verbPod(args{}, []string{"main app"})
	for range 20 {
		w.verbRun(args{}, nil)
		w.verbRuntime(args{words: []string{"dies", "app"}, named: map[string]string{}}, nil)
		w.now = w.now.Add(10 * time.Minute)
	}
	if len(w.pod.Launches) != 2 || w.pod.Launches[0].Why != "" || w.pod.Launches[1].Why == "" {
		t.Errorf("launches of a pod that crashes: %+v", w.pod.Launches)
	}
	if n := len(w.pod.Launches[1].Steps); n > 8 {
		t.Errorf("the newest has %d steps: those of others too", n)
	}
}

// What people are told of a start changes nothing of what is done.
func TestForPeopleChangesNoPlan(t *testing.T) {
	w := newWorld(t)
	w.verbPod(args{}, []string{"main app"})
	for range 20 {
		before, wake := Plan(w.pod, w.node, w.now)
		p := Apply(Apply(w.pod, Held{At: w.now, Cause: Network}), Published{Sent: w.now, At: w.now})
		after, later := Plan(p, w.node, w.now)
		if !slices.Equal(before, after) || wake != later {
			t.Fatalf("planned %v, then %v", before, after)
		}
		w.start()
		for _, key := range sortedKeys(w.pod.Doing) {
			w.finish(w.pod.Doing[key].Action, args{})
		}
	}
}
