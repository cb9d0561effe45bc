package syncloop

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/timeline"
)

// checks are the invariants that hold at every moment. All methods are called
// with world.mu held.
type checks struct {
	world    *world
	owners   map[types.UID]*actor
	phases   map[types.UID]v1.PodPhase
	restarts map[types.UID]map[string]int32
	backoff  map[string]delay  // by UID/container
	began    map[string]int    // instances made, by sandbox ID/container
	hooked   map[string]bool   // container IDs whose postStart has ended
	starter  map[string]int    // by container ID, the agent that knows that it started it
	stumbled map[string]bool   // containers, as UID/name, of which a call failed
	asked    map[string]int    // probes in flight, by agent, container and kind
	recorded map[string]string // instances on record as ready when the agent started, to their containers
	calls    int
}

// delay is the back-off that a container's next restart has to respect.
type delay struct {
	length  time.Duration
	through time.Time // when the last restart was let through
}

func newChecks(w *world) *checks {
	return &checks{world: w, owners: map[types.UID]*actor{}, phases: map[types.UID]v1.PodPhase{}, restarts: map[types.UID]map[string]int32{},
		backoff: map[string]delay{}, began: map[string]int{}, hooked: map[string]bool{}, starter: map[string]int{}, stumbled: map[string]bool{},
		asked: map[string]int{}, recorded: map[string]string{}}
}

// all checks what can be seen at any time.
func (k *checks) all() {
	k.instances()
	k.nodeWide()
	k.values()
}

// instances: one live instance of each container, one live sandbox of each
// pod, init containers alone.
func (k *checks) instances() {
	m := k.world.runtime
	running := map[string]int{}
	initial, mains := map[string]int{}, map[string]int{}
	for _, c := range m.containers {
		if c.State != pod.Running {
			continue
		}
		key := string(c.pod.UID) + "/" + c.Name
		if running[key]++; running[key] > 1 {
			k.world.violated("two instances of %s run", key)
		}
		switch {
		case pod.Completes(c.pod, c.Name):
			initial[c.SandboxID]++
		case slices.ContainsFunc(c.pod.Spec.Containers, func(o v1.Container) bool { return o.Name == c.Name }):
			mains[c.SandboxID]++
		}
	}
	for id, n := range initial {
		if n > 1 {
			k.world.violated("%d init containers run in %s", n, id)
		}
		if mains[id] > 0 {
			k.world.violated("an init container runs beside a main one in %s", id)
		}
	}
	ready := map[types.UID]int{}
	for _, s := range m.sandboxes {
		if s.Ready && !s.late {
			if ready[s.pod.UID]++; ready[s.pod.UID] > 1 {
				k.world.violated("two sandboxes of %s are up", s.pod.UID)
			}
		}
	}
}

// nodeWide: capacity, host ports, full names.
func (k *checks) nodeWide() {
	w := k.world
	var used resource.Quantity
	ports, names := map[int32]types.UID{}, map[string]types.UID{}
	for _, s := range w.runtime.sandboxes {
		if !s.Ready || s.late || w.disk.lost[s.pod.UID] {
			continue
		}
		allocated, ok := w.disk.allocated[s.pod.UID]
		if !ok {
			allocated = milli(s.pod)
		}
		used.Add(*resource.NewMilliQuantity(allocated, resource.DecimalSI))
		for _, c := range s.pod.Spec.Containers {
			for _, p := range c.Ports {
				if other, taken := ports[p.HostPort]; taken && other != s.pod.UID {
					w.violated("host port %d is used by %s and %s", p.HostPort, s.pod.UID, other)
				}
				ports[p.HostPort] = s.pod.UID
			}
		}
		if !pod.IsStatic(s.pod) {
			continue
		}
		if other, taken := names[pod.FullName(s.pod)]; taken && other != s.pod.UID {
			w.violated("static pods %s and %s of one name run", s.pod.UID, other)
		}
		names[pod.FullName(s.pod)] = s.pod.UID
	}
	if used.Cmp(capacity[v1.ResourceCPU]) > 0 {
		w.violated("pods use %s cpu of %s", used.String(), cpu(capacity))
	}
}

func cpu(l v1.ResourceList) string { q := l[v1.ResourceCPU]; return q.String() }

// values: phases are not left once terminal, restart counts don't go down.
func (k *checks) values() {
	if k.world.agent == nil {
		return
	}
	for _, a := range k.world.agent.loop.all() {
		p := a.now.Load()
		uid := p.UID()
		if o := k.owners[uid]; o != nil && o != a {
			// The pod was forgotten, and is wanted again.
			delete(k.phases, uid)
			delete(k.restarts, uid)
			maps.DeleteFunc(k.backoff, func(key string, _ delay) bool { return strings.HasPrefix(key, string(uid)+"/") })
		}
		k.owners[uid] = a
		if old := k.phases[uid]; pod.IsTerminal(old) && p.Phase != old {
			k.world.violated("phase of %s went from %s to %s", uid, old, p.Phase)
		}
		k.phases[uid] = p.Phase
		k.keepsReady(p)
		k.goesOn(p)
		k.explained(*p)
		if k.restarts[uid] == nil {
			k.restarts[uid] = map[string]int32{}
		}
		for name, m := range p.Containers {
			// Of an unwanted pod nothing may be left to count by.
			unwanted := p.Stop != nil && p.Stop.Unwanted
			if old := k.restarts[uid][name]; m.Restarts < old && !unwanted {
				k.world.violated("restart count of %s/%s went from %d to %d", uid, name, old, m.Restarts)
			}
			if m.Known != nil && !m.Known.StartedAt.IsZero() && !m.Unmade { // what never ran is no restart
				k.restarts[uid][name] = m.Restarts
			}
		}
	}
}

// explained: of each start nearly all of the time is accounted for, each lane does
// one thing at a time, and a pod that has nothing to wait for is one that is up.
func (k *checks) explained(p pod.Pod) {
	now := time.Now()
	t := timeline.Of(p, k.world.agent.loop.Node(), now)
	for _, s := range t.Starts {
		if took := s.Ended.Sub(s.Began); s.Accounted < 0.95 && took > time.Millisecond {
			k.world.violated("%.3f of a start of %s (%s), which took %s, is accounted for: not %s", s.Accounted, p.UID(), s.Why, took, gapsOf(s))
		}
		for i, o := range s.Spans[:max(len(s.Spans)-1, 0)] {
			if next := s.Spans[i+1]; o.Lane == next.Lane && next.Began.Before(o.Ended) {
				k.world.violated("in lane %q of %s these overlap: %+v, %+v", o.Lane, p.UID(), o, next)
			}
		}
	}
	if b := t.Blocker; b != nil && (b.Since.After(now) || b.What == "" || b.Since.IsZero()) {
		k.world.violated("%s waits for %+v", p.UID(), *b)
	}
}

// gapsOf says when no span of the start was under way, and what came before.
func gapsOf(s timeline.Start) string {
	var out strings.Builder
	spans := slices.Clone(s.Spans)
	slices.SortFunc(spans, func(a, b timeline.Span) int { return a.Began.Compare(b.Began) })
	last := timeline.Span{Name: "nothing", Ended: s.Began}
	for _, o := range append(spans, timeline.Span{Name: "its end", Began: s.Ended, Ended: s.Ended}) {
		if o.Began.After(last.Ended) {
			fmt.Fprintf(&out, "from %s (%s %s) to %s (%s %s); ", last.Ended.Sub(s.Began), last.Name, last.Container, o.Began.Sub(s.Began), o.Name, o.Container)
		}
		if o.Ended.After(last.Ended) {
			last = o
		}
	}
	return out.String()
}

// begin takes in what an agent that starts can know.
func (k *checks) begin(records map[types.UID]pod.Record) {
	k.phases, k.backoff = map[types.UID]v1.PodPhase{}, map[string]delay{}
	clear(k.owners)
	k.remembers(records)
	for uid, r := range records {
		k.phases[uid] = r.Phase
		for name, c := range r.Containers {
			k.backoff[string(uid)+"/"+name] = delay{c.Backoff.Delay, c.Backoff.At}
		}
	}
	for uid := range k.restarts {
		if _, known := records[uid]; !known || k.world.disk.lost[uid] {
			delete(k.restarts, uid)
		}
	}
}

// sent: nothing is started for a pod that is to end.
func (k *checks) sent(a *agent, c call) {
	k.calls++
	if c.starts == nil || a.isDead() {
		return
	}
	k.asks(a, c.starts, c.doing)
	actor := a.loop.actor(c.starts.UID)
	if actor == nil {
		k.world.violated("%s: the pod is forgotten", c.doing)
		return
	}
	if p := actor.now.Load(); p.Stop != nil && p.Stop.At.Before(time.Now()) {
		k.world.violated("%s: the pod is to end since %s", c.doing, p.Stop.At.Sub(k.world.begin))
	}
}

// creating: the back-off is over, and the postStart hook of those before too.
func (k *checks) creating(a *agent, p *v1.Pod, r cri.CreateRequest) {
	k.respects(p, r)
	first := k.began[r.SandboxID+"/"+r.Container] == 0
	k.began[r.SandboxID+"/"+r.Container]++
	if !first || a.isDead() {
		return
	}
	for _, before := range p.Spec.Containers {
		if before.Name == r.Container {
			return
		}
		for _, c := range k.world.runtime.inside(r.SandboxID) {
			spec := pod.FindContainer(c.pod, c.Name)
			if c.Name == before.Name && c.State == pod.Running && k.began[r.SandboxID+"/"+c.Name] == 1 && k.starter[c.ID] == a.number &&
				!k.stumbled[string(p.UID)+"/"+c.Name] &&
				spec.Lifecycle != nil && spec.Lifecycle.PostStart != nil && !k.hooked[c.ID] {
				k.world.violated("container %s of %s is created before the postStart hook of %s has ended", r.Container, p.UID, c.ID)
			}
		}
	}
}

// respects the back-off of the container.
func (k *checks) respects(p *v1.Pod, r cri.CreateRequest) {
	var last *container
	for _, c := range k.world.runtime.containers {
		if c.pod.UID == p.UID && c.Name == r.Container && (last == nil || c.CreatedAt.After(last.CreatedAt)) {
			last = c
		}
	}
	key := string(p.UID) + "/" + r.Container
	b := k.backoff[key]
	if last != nil && last.Hash != cri.Hash(pod.FindContainer(p, r.Container)) {
		k.backoff[key] = delay{} // another definition begins anew
		return
	}
	spec := pod.FindContainer(p, r.Container)
	if last != nil && last.milli != milliOf(p, r.Container) && len(spec.ResizePolicy) > 0 {
		return // it was ended to be given other resources
	}
	if last == nil || last.State != pod.Exited || !b.through.Before(last.FinishedAt) {
		return
	}
	quiet := last.FinishedAt.Sub(b.through) > 9*time.Minute
	sameSandbox := last.SandboxID == r.SandboxID
	if wait := time.Since(last.FinishedAt); !quiet && sameSandbox && wait < b.length {
		k.world.violated("%s restarts after %s, its back-off is %s", key, wait, b.length)
	}
	b.through = time.Now()
	if b.length = min(2*b.length, 5*time.Minute); b.length == 0 || quiet {
		b.length = 10 * time.Second
	}
	k.backoff[key] = b
}

// removing: nothing that runs is removed.
func (k *checks) removing(c *container) {
	if c.State == pod.Running && !k.world.tardy {
		k.world.violated("container %s is removed while it runs", c.ID)
	}
}

// unmounting: nothing runs in a pod whose volumes are taken away.
func (k *checks) unmounting(uid types.UID) {
	for _, c := range k.world.runtime.containers {
		if c.pod.UID == uid && c.State == pod.Running {
			k.world.violated("volumes of %s are unmounted while %s runs", uid, c.ID)
		}
	}
}
