package syncloop

import (
	"fmt"
	"strings"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

const (
	// patience is how long after the last fault all must be well.
	patience = 15 * time.Minute
	// idle is how long the agent is watched when nothing happens any more.
	idle = 10 * time.Minute
)

// settle waits until all is as it should be, and then that it stays so.
func (w *world) settle() {
	until := time.Now().Add(patience)
	var amiss []string
	for time.Now().Before(until) {
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.locked(func() { w.checks.all(); amiss = w.amiss() })
		if len(amiss) == 0 && !w.busy() || len(w.wrong) > 0 {
			break
		}
	}
	w.locked(func() {
		for _, a := range amiss {
			w.violated("in the end: %s", a)
		}
	})
	if len(w.wrong) == 0 {
		w.rest()
	}
}

// busy says whether the agent is at something.
func (w *world) busy() bool {
	for _, a := range w.agent.loop.all() {
		if len(a.now.Load().Doing) > 0 {
			return true
		}
	}
	return false
}

// rest: when nothing changes the agent does nothing.
func (w *world) rest() {
	var calls, made int
	w.locked(func() {
		calls, made = w.checks.calls, w.runtime.made
		w.say("all is well")
		for _, a := range w.agent.loop.all() {
			if _, wake := pod.Plan(*a.now.Load(), w.agent.loop.Node(), time.Now()); !wake.IsZero() && wake.Before(time.Now()) {
				w.violated("%s is to be woken in the past", a.now.Load().UID())
			}
		}
	})
	time.Sleep(idle)
	synctest.Wait()
	w.locked(func() {
		// An audit makes two calls: each minute with events, each 5 s without.
		audits := 2 * (int(idle/auditPeriod) + 1)
		if w.runtime.noEvents {
			audits = 2 * (int(idle/eagerAudit) + 1)
		}
		// A container that begins anew takes about ten calls and looks.
		if most := audits + 25*(w.runtime.made-made) + 6*len(w.wanted())*int(idle/longest+1); w.checks.calls-calls > most {
			w.violated("%d calls in %s in which %d things were made", w.checks.calls-calls, idle, w.runtime.made-made)
		}
		w.checks.all()
		for _, a := range w.amiss() {
			w.violated("after a rest: %s", a)
		}
	})
}

// amiss is what is not yet as the sources want it.
func (w *world) amiss() (out []string) {
	l := w.agent.loop
	wanted := w.wanted()
	out = append(out, w.leftovers(wanted)...)
	for uid, spec := range wanted {
		a := l.actor(uid)
		if a == nil {
			out = append(out, fmt.Sprintf("%s has no actor", uid))
			continue
		}
		if why := w.unwell(*a.now.Load(), spec); why != "" {
			p := a.now.Load()
			out = append(out, fmt.Sprintf("%s %s; phase %s, verdict %v, stop %+v, doing %v, waits %q",
				uid, why, p.Phase, p.Verdict, p.Stop, sorted(p.Doing), pod.Waits(*p, l.Node(), time.Now())))
		}
	}
	l.slots.mu.Lock()
	defer l.slots.mu.Unlock()
	if len(l.slots.waiting) > 0 || l.slots.free > slotCount+1 {
		out = append(out, fmt.Sprintf("%d wait for start slots, %d are free", len(l.slots.waiting), l.slots.free))
	}
	return out
}

func sorted(m map[string]pod.Doing) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// leftovers is what is left of pods that nobody wants.
func (w *world) leftovers(wanted map[types.UID]*v1.Pod) (out []string) {
	left := func(what string, uid types.UID) {
		if wanted[uid] == nil {
			out = append(out, fmt.Sprintf("%s of unwanted %s is left", what, uid))
		}
	}
	for id, s := range w.runtime.sandboxes {
		left("sandbox "+id, s.pod.UID)
	}
	for id, c := range w.runtime.containers {
		left("container "+id, c.pod.UID)
	}
	for what, set := range map[string]map[types.UID]bool{"folder": w.disk.folders, "mount": w.disk.mounts, "cgroup": w.disk.cgroups} {
		for uid := range set {
			left(what, uid)
		}
	}
	for uid := range w.disk.records {
		left("record", types.UID(uid))
	}
	for uid := range w.runtime.logs {
		left("log", uid)
	}
	for _, a := range w.agent.loop.all() {
		left("actor", a.now.Load().UID())
	}
	g := &w.agent.loop.grants
	g.mu.Lock()
	defer g.mu.Unlock()
	for uid := range g.ledger.Grants {
		left("grant", uid)
	}
	for _, c := range g.ledger.Queue {
		left("place in the queue", c.UID)
	}
	return out
}

// unwell says what of a wanted pod is not as it should be in the end.
func (w *world) unwell(p pod.Pod, spec *v1.Pod) string {
	switch {
	case p.Verdict.State == pod.Refused:
		return w.ended(p)
	case pod.IsTerminal(p.Phase):
		if why := w.wronglyEnded(p); why != "" {
			return why
		}
		return w.ended(p)
	case p.Verdict.State == pod.Waiting:
		return w.queued(p)
	case p.Stop != nil:
		return "is being ended"
	}
	if why := w.unsized(p, spec); why != "" {
		return why
	}
	for _, c := range append(spec.Spec.InitContainers, spec.Spec.Containers...) {
		if why := w.late(p, c); why != "" {
			return why
		}
		if pod.Completes(spec, c.Name) && !w.completed(p, c.Name) || isSidecar(c) && !w.started(p, c.Name) {
			return "" // those behind it wait
		}
	}
	return ""
}

func isSidecar(c v1.Container) bool { return c.RestartPolicy != nil }

// started says whether a sidecar lets those behind it go on: one that fails its
// hook does not, and one that is ill only now and then.
func (w *world) started(p pod.Pod, name string) bool {
	for _, s := range pod.Status(p, w.agent.loop.Node(), time.Now()).InitContainerStatuses {
		if s.Name == name {
			return *s.Started
		}
	}
	return false
}

// ended says what is left of a pod that has ended but is wanted.
func (w *world) ended(p pod.Pod) string {
	uid := p.UID()
	switch {
	case !pod.IsTerminal(p.Phase):
		return "has not ended"
	case len(w.runtime.alive()[uid]) > 0:
		return fmt.Sprintf("has ended, but %v live", w.runtime.alive()[uid])
	case w.disk.mounts[uid] || w.disk.cgroups[uid]:
		return "has ended, but its mounts or cgroup are left"
	}
	return ""
}

// queued: a pod may wait for its name while another that is wanted has it.
func (w *world) queued(p pod.Pod) string {
	for uid, other := range w.wanted() {
		a := w.agent.loop.actor(uid)
		if uid != p.UID() && pod.FullName(other) == pod.FullName(p.Spec) && a != nil && a.now.Load().Verdict.State == pod.Granted && a.now.Load().Stop == nil {
			return ""
		}
	}
	return "waits for a name that nobody has"
}

// wronglyEnded: a pod that restarts always ends only by its deadline, to make
// room for one that is more critical, and because an earlier process of the agent
// had no room for it.
func (w *world) wronglyEnded(p pod.Pod) string {
	if isBound(p.UID()) && strings.HasPrefix(p.Stop.Reason, "OutOf") {
		return ""
	}
	if p.Stop.Reason == ledger.Preempting {
		if pod.IsCritical(p.Spec) {
			return "was ended for another, and is critical itself"
		}
		return ""
	}
	if p.Spec.Spec.RestartPolicy == v1.RestartPolicyAlways && p.Spec.Spec.ActiveDeadlineSeconds == nil {
		return "has ended, but restarts always"
	}
	return ""
}

func (w *world) completed(p pod.Pod, name string) bool {
	m := p.Containers[name]
	if m.Known != nil && m.Known.State == pod.Exited && m.Known.ExitCode == 0 {
		return true
	}
	return w.followed(p, name)
}

// followed says that a container behind the init container was made in the
// newest sandbox, which proves that it succeeded.
func (w *world) followed(p pod.Pod, name string) bool {
	behind := false
	for _, c := range append(p.Spec.Spec.InitContainers, p.Spec.Spec.Containers...) {
		if k := p.Containers[c.Name].Known; behind && k != nil && len(p.View.Sandboxes) > 0 && k.SandboxID == p.View.Sandboxes[0].ID {
			return pod.Completes(p.Spec, name)
		}
		behind = behind || c.Name == name
	}
	return false
}

// late says why a container is not well, if it is not: it should run, or have
// ended for good, or wait for a back-off that is not over.
func (w *world) late(p pod.Pod, spec v1.Container) string {
	if spec.Image == "missing" {
		return ""
	}
	var newest *container
	for _, c := range w.runtime.containers {
		if c.pod.UID == p.UID() && c.Name == spec.Name && (newest == nil || c.CreatedAt.After(newest.CreatedAt)) {
			newest = c
		}
	}
	known := p.Containers[spec.Name].Known
	switch {
	case newest == nil && (known != nil && known.State == pod.Exited || w.followed(p, spec.Name)):
		return ""
	case newest == nil:
		return "container " + spec.Name + " was never made"
	case newest.Image != spec.Image && newest.State == pod.Running:
		return "container " + spec.Name + " is of an older definition"
	case newest.State == pod.Running:
		return w.sick(p, spec, newest)
	case newest.State == pod.Created && time.Since(newest.CreatedAt) < time.Minute:
		return ""
	case newest.State == pod.Created:
		return "container " + spec.Name + " is not started"
	case time.Since(newest.FinishedAt) < longest:
		return ""
	case p.Spec.Spec.RestartPolicy == v1.RestartPolicyAlways && !pod.Completes(p.Spec, spec.Name) || isSidecar(spec):
		return "container " + spec.Name + " does not restart"
	}
	return ""
}
