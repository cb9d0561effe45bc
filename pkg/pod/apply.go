package pod

import (
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// New is a pod that a source wants or the runtime shows. A record, if there
// is one, says what an earlier process knew.
func New(w Wanted, view View, r *Record) Pod {
	p := Pod{Spec: w.Spec, Origin: w.Origin, Hashes: w.Hashes, Started: w.At, Phase: v1.PodPending, Setup: Setup{Boot: w.Boot}}
	if r != nil {
		if r.Granted && r.Spec != nil {
			p.Spec, p.Resize.Actuated = r.Spec, r.Actuated
			p.wish(w.Spec, w.At)
		}
		p.Started = r.Started
		p.Stop = r.Stop
		p.Setup.Recorded = r
		p.Containers = make(map[string]Memory, len(r.Containers))
		for name, c := range r.Containers {
			p.Containers[name] = Memory{Ran: c.Ran, Restarts: c.Restarts, Unmade: c.Unmade, Backoff: c.Backoff, PullBackoff: c.PullBackoff}
		}
	}
	p = p.see(view, w.At)
	if w.Told != nil {
		p.recall(w.Told)
	}
	if w.Allocated != nil && (r == nil || w.Allocated.On(p.Spec) != p.Spec) {
		p.takeOver(w)
	}
	p.presumeLost(w.At)
	p.obey(w)
	switch {
	case r != nil && IsTerminal(r.Phase):
		p.Phase = r.Phase
	case p.Stop != nil:
		// It stays in the phase it had when its end began.
		p.Phase = p.livePhase()
	}
	p.firstLaunch(w.At)
	return p.settle(w.At)
}

// Apply is what is known of the pod after the event. Notes made here are what
// people are told.
func Apply(p Pod, event Event) Pod {
	var at time.Time
	switch e := event.(type) {
	case Wanted:
		at = e.At
		if p.Stop == nil || !p.Stop.Unwanted {
			p.want(e)
		}
	case Ended:
		at = e.At
		p.end(e)
	case Judged:
		at = e.At
		p.judge(e)
	case Resized:
		at = e.At
		p.resized(e)
	case Begun:
		at = e.At
		p.begin(e)
	case Done:
		at = e.At
		p = p.done(e)
	case Logged:
		at = e.At
		p.logged(e.Restarts)
		p.presumeLost(at)
	case Renewed:
		at = e.At
		p.renew(at)
	case Said:
		at = e.At
		p.note(at, e.Note.Warning, e.Note.Reason, e.Note.Container, "%s", e.Note.Message)
	case Changed:
		at = e.At
		p.hint()
	case Probed:
		at = e.At
		p.probed(e)
	case Queued:
		at = e.At
		p.queued(e)
	case Held:
		at = e.At
		p.held(e)
	case Published:
		at = e.At
		p.published(e)
	case Tick:
		at = e.At
	}
	return p.settle(at)
}

// want takes in a newer wish. What was fetched, failed or waits for a
// container whose definition changed is of no use any more.
func (p *Pod) want(w Wanted) {
	for name, hash := range w.Hashes {
		if p.Hashes[name] != hash {
			p.remember(name, func(m *Memory) {
				m.Image, m.PullBackoff, m.Backoff = "", Backoff{}, Backoff{}
				if f := m.Failure; f != nil && !(f.Reason == startFailed && f.Uncertain) {
					m.Failure = nil // a start that may yet happen is not forgotten
				}
			})
		}
	}
	p.Origin, p.Hashes = w.Origin, w.Hashes
	p.wish(w.Spec, w.At)
	p.obey(w)
	if len(w.Spec.Spec.Volumes) > 0 {
		p.renew(w.At) // they may show labels, or what a container may use
	}
}

// renew has the volumes made anew, and what waits for an object tried again,
// now or when what is under way has failed without it.
func (p *Pod) renew(at time.Time) {
	p.Setup.Outdated = p.Setup.Mounted
	for _, kind := range []Kind{Mount, RunSandbox} {
		p.Setup.Failures = without(p.Setup.Failures, Action{Kind: kind}.Key())
	}
	for key, d := range p.Doing {
		switch d.Action.Kind {
		case Mount, RunSandbox, Pull, Create:
			d.Outdated = true
			p.Doing = with(p.Doing, key, d)
		}
	}
	for name := range p.Containers {
		p.heed(name, at)
	}
}

// heed has a failure that an object may have mended tried again at once: of a
// container's configuration, and of a pull with the pod's secrets.
func (p *Pod) heed(container string, at time.Time) {
	failure := p.Containers[container].Failure
	if failure == nil || !failure.Retry.After(at) {
		return
	}
	if failure.Reason != configFailed && (len(p.Spec.Spec.ImagePullSecrets) == 0 || !fetching(failure.Reason)) {
		return
	}
	p.remember(container, func(m *Memory) {
		f := *failure
		f.Retry = at
		m.Failure = &f
	})
}

// hint notes that the runtime's view changed; one that is being read is read
// again, as nobody knows which of the two came first.
func (p *Pod) hint() {
	p.Stale = true
	key := Action{Kind: Observe}.Key()
	if d, ok := p.Doing[key]; ok {
		d.Outdated = true
		p.Doing = with(p.Doing, key, d)
	}
}

// remember alters what is remembered of a container, on a copy.
func (p *Pod) remember(name string, alter func(*Memory)) {
	m := p.Containers[name]
	alter(&m)
	p.Containers = with(p.Containers, name, m)
}

// with is the map with one entry changed; the old one stays as it is.
func with[M ~map[K]V, K comparable, V any](m M, k K, v V) M {
	n := make(M, len(m)+1)
	maps.Copy(n, m)
	n[k] = v
	return n
}

// without is the map with one entry less; the old one stays as it is.
func without[M ~map[K]V, K comparable, V any](m M, k K) M {
	if _, ok := m[k]; !ok {
		return m
	}
	n := maps.Clone(m)
	delete(n, k)
	return n
}

const (
	keptSteps = 64
	keptNotes = 32
	// similarNotes is how often a warning comes in other words before it is but
	// counted.
	similarNotes = 8
)

// note tells people something; said twice it is only counted. A warning that
// comes in ever other words, as of a probe whose command prints the time, is
// counted too once people have had a few of them, in its newest words.
func (p *Pod) note(at time.Time, warning bool, reason, container, format string, args ...any) {
	n := Note{At: at, Seq: 1, Warning: warning, Reason: reason, Message: fmt.Sprintf(format, args...), Container: container, Count: 1}
	newest, similar := -1, 0
	for i := len(p.Notes) - 1; i >= 0; i-- {
		old := p.Notes[i]
		if old.Reason != n.Reason || old.Container != n.Container {
			continue
		}
		if old.Message == n.Message {
			p.count(i, n)
			return
		}
		newest = max(newest, i)
		similar++
	}
	if warning && similar >= similarNotes {
		p.count(newest, n)
		return
	}
	if len(p.Notes) > 0 {
		n.Seq = p.Notes[len(p.Notes)-1].Seq + 1
	}
	p.Notes = append(slices.Clone(tail(p.Notes, keptNotes-1)), n)
}

// count says that note i was said once more, as n.
func (p *Pod) count(i int, n Note) {
	p.Notes = slices.Clone(p.Notes)
	p.Notes[i].At, p.Notes[i].Message = n.At, n.Message
	p.Notes[i].Count++
}

// tail is the last n elements.
func tail[S ~[]E, E any](s S, n int) S { return s[max(0, len(s)-n):] }

// end decides that the pod stops, or shortens the grace that it has left
// (behaviour row 1.5-12).
func (p *Pod) end(e Ended) {
	grace := e.Grace
	if grace < 0 {
		grace = specGrace(p.Spec)
	}
	grace = max(grace, time.Second)
	if p.Stop == nil {
		p.Stop = &Stop{At: e.At, Grace: grace, Phase: e.Phase, Reason: e.Reason, Message: e.Message, Disruption: e.Disruption, Unwanted: e.Unwanted}
		p.told(e)
		return
	}
	stop := *p.Stop
	stop.Unwanted = stop.Unwanted || e.Unwanted
	if !stop.Began.IsZero() {
		grace = max(e.At.Add(grace).Sub(stop.Began), 0)
	}
	stop.Grace = min(stop.Grace, grace)
	if stop.Phase == "" && e.Phase != "" && !IsTerminal(p.Phase) {
		stop.Phase, stop.Reason, stop.Message, stop.Disruption = e.Phase, e.Reason, e.Message, e.Disruption
		p.told(e)
	}
	p.Stop = &stop
}

// told notes what people are to know of the end.
func (p *Pod) told(e Ended) {
	for _, n := range e.Told {
		p.note(e.At, n.Warning, n.Reason, n.Container, "%s", n.Message)
	}
}

// judge takes the ledger's verdict. One that says nothing says to ask again:
// the pod may have its name now, and an answer of waiting that is under way may
// be from before.
func (p *Pod) judge(e Judged) {
	key := Action{Kind: Admit}.Key()
	asked, asking := p.Doing[key]
	if e.Verdict.State == Unasked {
		if asking {
			asked.Outdated = true
			p.Doing = with(p.Doing, key, asked)
		} else if p.Verdict.State == Waiting {
			p.Verdict = Verdict{}
		}
		return
	}
	p.Verdict = e.Verdict
	if e.Verdict.State == Waiting && asked.Outdated {
		p.Verdict = Verdict{}
	}
	if e.Verdict.State == Granted && p.Setup.Recorded == nil {
		// The grant was written with the pod as it was: without an end that came
		// since.
		r := p.Record()
		r.Stop, r.Phase = nil, ""
		p.Setup.Recorded = &r
	}
	p.Doing = without(p.Doing, key)
	p.took(asked.step(Done{At: e.At, Action: Action{Kind: Admit}, Failure: e.Verdict.failure()}))
	if e.Verdict.State == Granted {
		for _, n := range Unbuilt(p.Spec) {
			p.note(e.At, n.Warning, n.Reason, "", "%s", n.Message)
		}
	}
	if e.Verdict.State != Refused || p.Stop != nil {
		return
	}
	message := "Pod was rejected: " + e.Verdict.Message
	p.note(e.At, true, e.Verdict.Reason, "", "%s", e.Verdict.Message)
	p.Stop = &Stop{At: e.At, Grace: specGrace(p.Spec), Phase: v1.PodFailed, Reason: e.Verdict.Reason, Message: message}
}

func (p *Pod) begin(e Begun) {
	a := e.Action
	if a.Kind == Cancel {
		if d, ok := p.Doing[a.ID]; ok {
			d.Canceled = true
			p.Doing = with(p.Doing, a.ID, d)
		}
		return
	}
	p.Doing = with(p.Doing, a.Key(), Doing{Action: a, Since: e.At, Changes: p.Changes})
	switch a.Kind {
	case StopContainer, PreStop:
		if p.Stop != nil && p.Stop.Began.IsZero() {
			stop := *p.Stop
			stop.Began = e.At
			p.Stop = &stop
		}
		p.remember(a.Container, func(m *Memory) {
			if m.Instance.ID != a.ID {
				m.Instance = Instance{ID: a.ID, PostStart: HookDone}
			}
			if c, ok := find(p.Spec, a.Container); ok && m.Known.is(a.ID) && p.Stop == nil {
				m.Instance.Resized = m.Instance.Resized || p.needsRestart(c, *m.Known)
			}
			if !m.Instance.KillAt.IsZero() {
				return
			}
			m.Instance.KillAt = e.At
			p.note(e.At, false, "Killing", a.Container, "%s", a.Why)
		})
	case Allocate:
		p.Resize.Ask = false
	case Create:
		// A restart is let through: the next one waits longer. An instance
		// that had to give way to another definition did not fail.
		p.remember(a.Container, func(m *Memory) {
			if m.Known != nil && !p.changed(*m.Known) && !p.replaced(*m.Known) && m.Backoff.At.Before(m.Known.FinishedAt) {
				m.Backoff = m.Backoff.Next(m.Known.FinishedAt, e.At)
			}
		})
	case RunSandbox:
		if a.Attempt > 0 {
			p.note(e.At, false, "SandboxChanged", "", "Pod sandbox changed, it will be killed and re-created.")
		}
	}
}

// settle draws the conclusions that every event may bring: the pod's deadline
// has passed, its containers are finished, its phase.
func (p Pod) settle(at time.Time) Pod {
	p.begunAnew()
	if deadline, some := p.deadline(); some && p.Stop == nil && !at.Before(deadline) {
		p.Stop = &Stop{At: at, Grace: specGrace(p.Spec), Phase: v1.PodFailed, Reason: "DeadlineExceeded",
			Message: "Pod was active on the node longer than the specified deadline"}
		p.note(at, false, "DeadlineExceeded", "", "%s", p.Stop.Message)
	}
	if p.Stop == nil && p.finished() {
		p.Stop = &Stop{At: at, Grace: specGrace(p.Spec)}
	}
	if !IsTerminal(p.Phase) {
		p.Phase = p.phase()
	}
	p.arrive(at)
	return p
}

// deadline is when activeDeadlineSeconds ends the pod, if it has one (behaviour
// row 1.3-14).
func (p Pod) deadline() (at time.Time, some bool) {
	seconds := p.Spec.Spec.ActiveDeadlineSeconds
	if seconds == nil {
		return time.Time{}, false
	}
	return p.Started.Add(time.Duration(*seconds) * time.Second), true
}

// finished says that the containers have ended for good: an init container
// failed, or every main container ended, and none is to be started again
// (behaviour rows 1.3-3, 1.3-4).
func (p Pod) finished() bool {
	if p.Setup.Restarting != "" {
		return false
	}
	if p.stranded() {
		return true
	}
	for _, m := range inits(p.Spec) {
		if k := p.Containers[m.Name].Known; k != nil && m.role == initial && k.State == Exited && !p.aborted(*k) &&
			k.ExitCode != 0 && !p.again(m, *k) && !p.mainsBegan() {
			return true
		}
	}
	for _, m := range mains(p.Spec) {
		k := p.Containers[m.Name].Known
		if k == nil || k.State != Exited || p.aborted(*k) || p.again(m, *k) {
			return false
		}
	}
	return true
}

// stranded says that the pod's sandbox is gone, nothing of it runs, and it may
// not begin a second time (behaviour row 1.4-3): it has failed.
func (p Pod) stranded() bool {
	if p.Spec.Spec.RestartPolicy != v1.RestartPolicyNever || p.Stale || p.alive() || len(p.Doing) > 0 {
		return false
	}
	return p.everStarted() && !slices.ContainsFunc(p.View.Sandboxes, func(s Sandbox) bool { return s.Ready })
}

// again says that another instance follows the ended one: because the spec
// says so, or because we ended it only to replace it by another definition.
func (p Pod) again(m member, k Container) bool {
	inst := p.Containers[m.Name].Instance
	replaced := inst.ID == k.ID && !inst.KillAt.IsZero() && p.changed(k)
	return k.State == Exited && (replaced || p.replaced(k) || restartable(p.Spec, m, k.ExitCode))
}

// replaced says that the instance was ended to be given other resources.
func (p Pod) replaced(k Container) bool {
	inst := p.Containers[k.Name].Instance
	return inst.ID == k.ID && inst.Resized
}

// changed says that the instance was made from another definition.
func (p Pod) changed(c Container) bool {
	want := p.Hashes[c.Name]
	return want != "" && c.Hash != "" && c.Hash != want
}

// mainsBegan says that a main container was started in the present sandbox,
// so that the init containers are behind us.
func (p Pod) mainsBegan() bool {
	for _, m := range mains(p.Spec) {
		if k := p.Containers[m.Name].Known; k != nil && p.present(k) && !k.StartedAt.IsZero() {
			return true
		}
	}
	return false
}

// present says whether the instance is in the newest sandbox.
func (p Pod) present(c *Container) bool {
	return len(p.View.Sandboxes) > 0 && c.SandboxID == p.View.Sandboxes[0].ID
}

// alive says whether a container may be running still, or may yet begin to.
func (p Pod) alive() bool {
	for _, c := range p.View.Containers {
		if c.State == Running || c.State == Unknown {
			return true
		}
	}
	for _, d := range p.Doing {
		if d.Action.Kind == Create || d.Action.Kind == Start {
			return true
		}
	}
	return false
}
