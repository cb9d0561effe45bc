// Package probe asks containers how they are, by exec, HTTP, TCP and gRPC, and
// when their spec says so; and it runs their lifecycle hooks.
package probe

import (
	"context"
	"hash/fnv"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Ask makes one attempt of a probe, within the probe's timeout, and says how it
// went and, if badly, why.
type Ask func(context.Context) (pod.Outcome, string)

// tries is how often an attempt is made that errors (behaviour row 1.6-4).
const tries = 3

// Count is told how each attempt went and how long it took.
type Count func(outcome pod.Outcome, took time.Duration)

// Run asks by the probe's schedule until ctx ends or the answer is final, and
// reports what is news: a new result of the threshold, and each attempt that did
// not pass. An attempt is never made beside another: one that outlasts the period
// is followed by the next in turn (behaviour rows 1.6-1 to 1.6-5, 1.6-13). Every
// attempt is counted.
func Run(ctx context.Context, q pod.Probing, ask Ask, count Count, report func(pod.Probed)) {
	now := time.Now()
	due := now.Add(firstDelay(q, now))
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	var t tally
	said := pod.ResultNone
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		outcome, message := attempt(ctx, ask)
		if ctx.Err() != nil {
			return // it was cut short, and says nothing
		}
		count(outcome, time.Since(began))
		result := t.count(q.Probe, outcome)
		if result == said {
			result = pod.ResultNone
		}
		if result != pod.ResultNone || outcome != pod.Passed {
			report(pod.Probed{At: time.Now(), Container: q.Container.Name, ContainerID: q.ContainerID,
				Probe: q.Kind, Outcome: outcome, Message: message, Result: result})
		}
		if result != pod.ResultNone {
			said = result
		}
		if final(q.Kind, said) {
			return
		}
		due = nextDue(due, period(q.Probe), time.Now())
		timer.Reset(time.Until(due))
	}
}

func attempt(ctx context.Context, ask Ask) (outcome pod.Outcome, message string) {
	for range tries {
		if outcome, message = ask(ctx); outcome.Conclusive() || ctx.Err() != nil {
			break
		}
	}
	return outcome, brief(message)
}

// final says that the probe has nothing more to say of this instance.
func final(kind pod.Probe, result pod.Result) bool {
	return kind == pod.Startup && result != pod.ResultNone || kind == pod.Liveness && result == pod.Fail
}

func period(p *v1.Probe) time.Duration {
	return time.Duration(max(p.PeriodSeconds, 1)) * time.Second
}

// firstDelay is how long from now the first attempt is due. Those of an instance
// that the agent found when it started are spread over the period, so that not
// all probes of the node run at once (behaviour row 1.6-3).
func firstDelay(q pod.Probing, now time.Time) time.Duration {
	initial := time.Duration(q.Probe.InitialDelaySeconds) * time.Second
	// An instance that began in the future has a clock of its own.
	delay := min(max(q.StartedAt.Add(initial).Sub(now), 0), initial)
	if q.Found {
		h := fnv.New64a()
		h.Write([]byte(q.ContainerID + q.Kind.String()))
		delay = max(delay, time.Duration(h.Sum64()%uint64(period(q.Probe))))
	}
	return delay
}

// grid is what all times but a probe's first are multiples of. Periods are, so
// it shifts only the second attempt; and the probes of a node wake the agent
// together, for each of them costs several times less than alone.
const grid = 50 * time.Millisecond

// nextDue is the next time of the schedule that has not passed: an attempt that
// took long shifts no later one.
func nextDue(due time.Time, period time.Duration, now time.Time) time.Time {
	missed := max(now.Sub(due)/period, 0)
	due = due.Add((missed + 1) * period)
	return due.Add((grid - time.Duration(due.UnixNano())%grid) % grid)
}

// tally counts the newest outcomes that agree.
type tally struct {
	passed bool
	run    int32
}

// count takes one more outcome in and says what the thresholds make of it:
// ResultNone below them.
func (t *tally) count(p *v1.Probe, o pod.Outcome) pod.Result {
	if !o.Conclusive() {
		return pod.ResultNone
	}
	passed := o != pod.Failed
	if passed != t.passed {
		t.passed, t.run = passed, 0
	}
	t.run++
	switch {
	case passed && t.run >= p.SuccessThreshold:
		return pod.Success
	case !passed && t.run >= p.FailureThreshold:
		return pod.Fail
	}
	return pod.ResultNone
}
