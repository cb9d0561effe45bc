package probe

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

func TestTally(t *testing.T) {
	const none, ok, bad = pod.ResultNone, pod.Success, pod.Fail
	for name, c := range map[string]struct {
		success, failure int32
		outcomes         []pod.Outcome
		want             []pod.Result
	}{
		"once is enough":             {1, 1, []pod.Outcome{pod.Passed, pod.Failed}, []pod.Result{ok, bad}},
		"failures in a row":          {1, 3, []pod.Outcome{pod.Failed, pod.Failed, pod.Failed, pod.Failed}, []pod.Result{none, none, bad, bad}},
		"a success begins anew":      {1, 2, []pod.Outcome{pod.Failed, pod.Passed, pod.Failed, pod.Failed}, []pod.Result{none, ok, none, bad}},
		"successes in a row":         {2, 1, []pod.Outcome{pod.Passed, pod.Failed, pod.Passed, pod.Passed}, []pod.Result{none, bad, none, ok}},
		"a warning is a success":     {1, 1, []pod.Outcome{pod.Warned}, []pod.Result{ok}},
		"errors count for neither":   {1, 2, []pod.Outcome{pod.Failed, pod.Errored, pod.Broken, pod.Failed}, []pod.Result{none, none, none, bad}},
		"nothing counts before that": {2, 2, []pod.Outcome{pod.Errored, pod.Passed}, []pod.Result{none, none}},
	} {
		t.Run(name, func(t *testing.T) {
			var n tally
			var got []pod.Result
			for _, o := range c.outcomes {
				got = append(got, n.count(&v1.Probe{SuccessThreshold: c.success, FailureThreshold: c.failure}, o))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// trial runs a schedule in virtual time against a target with a script.
type trial struct {
	q        pod.Probing
	asked    []time.Duration // when it was asked
	reported []string
	counted  []pod.Outcome
}

func (r *trial) run(t *testing.T, lasts time.Duration, answer func(n int) (pod.Outcome, time.Duration)) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r.q.StartedAt = began.Add(r.q.StartedAt.Sub(time.Time{})) // is given as an offset
		if r.q.Container == nil {
			r.q.Container = &v1.Container{Name: "main"}
		}
		ctx, cancel := context.WithTimeout(t.Context(), lasts)
		defer cancel()
		inFlight := false
		count := func(o pod.Outcome, _ time.Duration) { r.counted = append(r.counted, o) }
		Run(ctx, r.q, func(ctx context.Context) (pod.Outcome, string) {
			if inFlight {
				t.Error("two attempts at once")
			}
			inFlight = true
			defer func() { inFlight = false }()
			r.asked = append(r.asked, time.Since(began))
			o, took := answer(len(r.asked))
			select {
			case <-time.After(took):
			case <-ctx.Done():
			}
			return o, fmt.Sprint(len(r.asked))
		}, count, func(e pod.Probed) {
			r.reported = append(r.reported, fmt.Sprintf("%v %s %d %d", time.Since(began), e.Message, e.Outcome, e.Result))
		})
	})
}

func (r *trial) want(t *testing.T, asked []time.Duration, reported ...string) {
	t.Helper()
	if !slices.Equal(r.asked, asked) {
		t.Errorf("asked at %v, want %v", r.asked, asked)
	}
	if !slices.Equal(r.reported, reported) {
		t.Errorf("reported\n got %q\nwant %q", r.reported, reported)
	}
}

func spec(initial, period, success, failure int32) *v1.Probe {
	return &v1.Probe{InitialDelaySeconds: initial, PeriodSeconds: period, SuccessThreshold: success, FailureThreshold: failure}
}

const second = time.Second

// A healthy probe is news once.
func TestHealthyIsToldOnce(t *testing.T) {
	r := trial{q: pod.Probing{Kind: pod.Readiness, Probe: spec(0, 2, 1, 3)}}
	r.run(t, 7*second, func(int) (pod.Outcome, time.Duration) { return pod.Passed, 0 })
	r.want(t, []time.Duration{0, 2 * second, 4 * second, 6 * second}, fmt.Sprintf("0s 1 %d %d", pod.Passed, pod.Success))
}

// Each attempt that fails is told, and what the threshold says when it changes.
func TestFailuresAreTold(t *testing.T) {
	r := trial{q: pod.Probing{Kind: pod.Readiness, Probe: spec(1, 1, 1, 2)}}
	r.run(t, 5500*time.Millisecond, func(n int) (pod.Outcome, time.Duration) {
		if n < 4 {
			return pod.Failed, 0
		}
		return pod.Passed, 0
	})
	r.want(t, []time.Duration{second, 2 * second, 3 * second, 4 * second, 5 * second},
		fmt.Sprintf("1s 1 %d %d", pod.Failed, pod.ResultNone), fmt.Sprintf("2s 2 %d %d", pod.Failed, pod.Fail),
		fmt.Sprintf("3s 3 %d %d", pod.Failed, pod.ResultNone), fmt.Sprintf("4s 4 %d %d", pod.Passed, pod.Success))
}

// The initial delay counts from the instance's start.
func TestInitialDelay(t *testing.T) {
	r := trial{q: pod.Probing{Kind: pod.Readiness, Probe: spec(5, 10, 1, 1), StartedAt: time.Time{}.Add(-3 * second)}}
	r.run(t, 5*second, func(int) (pod.Outcome, time.Duration) { return pod.Passed, 0 })
	r.want(t, []time.Duration{2 * second}, fmt.Sprintf("2s 1 %d %d", pod.Passed, pod.Success))
}

// An attempt that errors is made three times; it leaves the result as it is.
func TestErrorsAreTriedAgain(t *testing.T) {
	r := trial{q: pod.Probing{Kind: pod.Liveness, Probe: spec(0, 5, 1, 1)}}
	r.run(t, 6*second, func(n int) (pod.Outcome, time.Duration) {
		if n == 5 {
			return pod.Passed, 0
		}
		return pod.Errored, 0
	})
	r.want(t, []time.Duration{0, 0, 0, 5 * second, 5 * second},
		fmt.Sprintf("0s 3 %d %d", pod.Errored, pod.ResultNone), fmt.Sprintf("5s 5 %d %d", pod.Passed, pod.Success))
	if want := []pod.Outcome{pod.Errored, pod.Passed}; !slices.Equal(r.counted, want) {
		t.Errorf("counted %v, want %v", r.counted, want)
	}
}

// An attempt that takes long is followed by the next one in turn, and shifts none.
func TestSlowAttempts(t *testing.T) {
	r := trial{q: pod.Probing{Kind: pod.Readiness, Probe: spec(0, 2, 1, 1)}}
	r.run(t, 9*second, func(n int) (pod.Outcome, time.Duration) { return pod.Passed, 3 * second })
	r.want(t, []time.Duration{0, 4 * second, 8 * second}, fmt.Sprintf("3s 1 %d %d", pod.Passed, pod.Success))
}

// Probes that began at any time meet on the grid, and keep their period.
func TestAttemptsMeet(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 7, 123456789, time.UTC)
	due := nextDue(now, second, now)
	if wait := due.Sub(now); due.UnixNano()%int64(grid) != 0 || wait < second || wait >= second+grid {
		t.Errorf("the second attempt is due after %v", wait)
	}
	if third := nextDue(due, second, due.Add(time.Millisecond)); third.Sub(due) != second {
		t.Errorf("the third one %v later", third.Sub(due))
	}
}

// Nothing is asked after the final answer: a startup probe's either way, a
// liveness probe's failure.
func TestFinalAnswers(t *testing.T) {
	for _, c := range []struct {
		kind pod.Probe
		o    pod.Outcome
		want pod.Result
	}{{pod.Startup, pod.Passed, pod.Success}, {pod.Startup, pod.Failed, pod.Fail}, {pod.Liveness, pod.Failed, pod.Fail}} {
		r := trial{q: pod.Probing{Kind: c.kind, Probe: spec(0, 1, 1, 1)}}
		r.run(t, time.Hour, func(int) (pod.Outcome, time.Duration) { return c.o, 0 })
		r.want(t, []time.Duration{0}, fmt.Sprintf("0s 1 %d %d", c.o, c.want))
	}
}

// An attempt that is cut short says nothing.
func TestCutShort(t *testing.T) {
	r := trial{q: pod.Probing{Kind: pod.Readiness, Probe: spec(0, 1, 1, 1)}}
	r.run(t, 2*second, func(int) (pod.Outcome, time.Duration) { return pod.Failed, time.Hour })
	r.want(t, []time.Duration{0})
}

// The probes of instances that the agent found are spread over their period.
func TestFoundOnesAreSpread(t *testing.T) {
	now := time.Now()
	const period = 10
	var tenths [10]int
	for i := range 1000 {
		q := pod.Probing{ContainerID: fmt.Sprint("id", i), Kind: pod.Readiness, Probe: spec(0, period, 1, 1), StartedAt: now.Add(-time.Hour), Found: true}
		d := firstDelay(q, now)
		if d < 0 || d >= period*second {
			t.Fatalf("first attempt after %v", d)
		}
		tenths[d/second]++
	}
	if low := slices.Min(tenths[:]); low < 60 {
		t.Errorf("attempts by second: %v", tenths)
	}
}
