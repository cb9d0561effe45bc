package syncloop

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// The timers of the watch over the runtime (docs/ARCHITECTURE.md).
const (
	// auditPeriod is how long something that the events missed stays unseen.
	auditPeriod = 60 * time.Second
	// Without events the audit is all there is: often while pods change, less
	// often when nothing does.
	eagerAudit = time.Second
	lazyAudit  = 5 * time.Second
	// networkPeriod is how often a network that is not ready is asked for.
	networkPeriod = time.Second
	probeTimeout  = 10 * time.Second
	maxRedial     = 5 * time.Second
)

// watch keeps a session with the runtime, and says once when it is lost and
// once when it is back.
func (l *Loop) watch(ctx context.Context) {
	delay := 100 * time.Millisecond
	for ctx.Err() == nil {
		began := time.Now()
		rt, err := l.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if l.Node().Runtime != err.Error() {
			l.Log.Error("container runtime is not ready; trying again until it is", "error", err)
		}
		l.setNode(func(n *pod.Node) { n.Runtime = err.Error() })
		l.saw(rt, err)
		l.looked()
		if time.Since(began) > probeTimeout {
			delay = 100 * time.Millisecond
		}
		pause(ctx, delay)
		delay = min(2*delay, maxRedial)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// saw tells how the runtime is.
func (l *Loop) saw(rt cri.Runtime, err error) {
	if l.Seen != nil {
		l.Seen(rt, err)
	}
}

// session subscribes, lists, and audits until the runtime is lost; its error
// says how. The runtime is returned as it was at the begin.
func (l *Loop) session(ctx context.Context) (cri.Runtime, error) {
	rt, err := l.probe(ctx)
	if err != nil {
		return rt, err
	}
	if err := l.Connected(ctx); err != nil {
		return rt, err
	}
	l.grants.learn(rt)
	l.Metrics.RuntimeFound()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lost := make(chan error, 1)
	l.work.Go(func() { lost <- l.Runtime.Events(ctx, l.hint) })
	found, err := l.Runtime.List(ctx)
	if err != nil {
		return rt, err
	}
	l.Log.Info("container runtime is ready", "runtime", rt.Name, "version", rt.Version, "pods", len(found))
	if doubt := rt.Untested(); doubt != "" {
		l.Log.Warn("container runtime is "+doubt, "runtime", rt.Name)
	}
	for _, a := range l.all() {
		a.mail.put(pod.Changed{At: time.Now()})
	}
	l.setNode(func(n *pod.Node) { n.Runtime, n.Network, n.RuntimeName = "", rt.Network, rt.Name })
	l.saw(rt, nil)
	l.mail.put(listed(found))
	return rt, l.attend(ctx, lost)
}

// probe asks the runtime whether it is ready.
func (l *Loop) probe(ctx context.Context) (cri.Runtime, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	rt, err := l.Runtime.Probe(ctx)
	if err == nil && rt.Ready != "" {
		err = errors.New(rt.Ready)
	}
	return rt, err
}

// attend audits from time to time and when asked, and watches the network
// while it is not ready.
func (l *Loop) attend(ctx context.Context, lost <-chan error) error {
	events := true
	period := eagerAudit // the first audit makes up for events missed while subscribing
	due := time.Now().Add(period)
	audit := time.NewTimer(period)
	defer audit.Stop()
	network := time.NewTimer(networkPeriod)
	defer network.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err = <-lost:
			if errors.Is(err, cri.ErrNoEvents) {
				l.Log.Info("runtime has no event stream: its containers are looked at every few seconds instead")
				events, lost, err = false, nil, nil
			}
		case <-l.audits:
			// One audit for many such events, which must not put it off.
			if soon := time.Now().Add(eagerAudit); soon.Before(due) {
				due = soon
				audit.Reset(eagerAudit)
			}
		case <-network.C:
			if l.Node().Network != "" {
				err = l.askNetwork(ctx)
			}
			l.watchNetwork(network)
		case <-audit.C:
			var changed bool
			changed, err = l.audit(ctx)
			period = nextAudit(events, changed, period)
			due = time.Now().Add(period)
			audit.Reset(period)
			l.watchNetwork(network)
		}
		if err != nil {
			return err
		}
	}
}

// watchNetwork has the network asked for again soon, while it is not ready.
func (l *Loop) watchNetwork(t *time.Timer) {
	if l.Node().Network != "" {
		t.Reset(networkPeriod)
	}
}

// nextAudit is how long to wait after an audit that came period after the one
// before it.
func nextAudit(events, changed bool, period time.Duration) time.Duration {
	switch {
	case events:
		return auditPeriod
	case changed:
		return eagerAudit
	}
	return min(period+eagerAudit, lazyAudit)
}

// askNetwork asks whether the pod network is ready by now.
func (l *Loop) askNetwork(ctx context.Context) error {
	rt, err := l.probe(ctx)
	if err != nil {
		return err
	}
	l.setNode(func(n *pod.Node) { n.Network = rt.Network })
	l.saw(rt, nil)
	return nil
}

// hint notes that a pod changed, or with "" that some pod did; it must not
// block, as the runtime stalls all its clients when a subscriber stops reading.
func (l *Loop) hint(uid types.UID) {
	if uid == "" {
		select {
		case l.audits <- struct{}{}:
		default:
		}
		return
	}
	if a := l.actor(uid); a != nil {
		a.mail.put(pod.Changed{At: time.Now()})
	}
}

// audit compares what is alive in the runtime with what the actors know, and
// says whether they differed.
func (l *Loop) audit(ctx context.Context) (changed bool, err error) {
	began, missed := time.Now(), 0
	if err := l.askNetwork(ctx); err != nil {
		return false, err
	}
	alive, err := l.Runtime.Alive(ctx)
	if err != nil {
		return false, err
	}
	strangers := false
	for uid := range alive {
		strangers = strangers || l.actor(uid) == nil
	}
	if strangers {
		found, err := l.Runtime.List(ctx)
		if err != nil {
			return false, err
		}
		l.mail.put(listed(found))
	}
	for _, a := range l.all() {
		p := a.now.Load()
		if p.Learning() {
			changed = true
			continue // of what it finds out by itself
		}
		if !slices.Equal(living(p.View), alive[p.UID()]) {
			changed = true
			missed++
			a.mail.put(pod.Changed{At: time.Now()})
		}
	}
	l.Metrics.Audited(began, time.Now(), missed)
	return changed, nil
}

// living are the IDs of ready sandboxes and running containers, sorted.
func living(v pod.View) []string {
	ids := map[string]bool{}
	for _, s := range v.Sandboxes {
		if s.Ready {
			ids[s.ID] = true
		}
	}
	for _, c := range v.Containers {
		if c.State == pod.Running {
			ids[c.ID] = true
		}
	}
	return slices.Sorted(maps.Keys(ids))
}
