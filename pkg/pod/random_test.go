package pod

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"reflect"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

// TestRandom feeds events in any order, likely and unlikely, and checks after
// each what must always hold. The seed is in the name of the failing test.
func TestRandom(t *testing.T) {
	for seed := range int64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := &random{Rand: rand.New(rand.NewSource(seed)), world: newWorld(t)}
			spec := r.spec()
			r.pod = New(Wanted{At: r.now, Spec: spec, Origin: "test", Hashes: hashesOf(spec)}, View{}, nil)
			for range 150 {
				r.step()
				if t.Failed() {
					return
				}
			}
		})
	}
}

// random is a world in which anything happens.
type random struct {
	*rand.Rand
	*world
}

var randomPods = [][]string{
	{"main a"},
	{"main a poststart prestop liveness readiness", "main b startup"},
	{"init i", "sidecar s", "main a rules=In:1!all", "main b prestop", "debug d"},
	{"init i", "sidecar s startup", "init j", "main a policy=Never", "main b rules=In:1"},
	{"sidecar s poststart prestop", "sidecar u", "main a", "debug d"},
}

func (r *random) spec() *v1.Pod {
	policies := []string{"Always", "OnFailure", "Never"}
	a := args{named: map[string]string{"restart": policies[r.Intn(3)], "grace": fmt.Sprintf("%ds", r.Intn(40))}}
	if r.Intn(4) == 0 {
		a.named["deadline"] = "300s"
	}
	body := slices.Clone(randomPods[r.Intn(len(randomPods))])
	for i := range body {
		body[i] += fmt.Sprintf(" image=v%d", r.Intn(2))
	}
	return specOf(r.t, a, body)
}

// step lets one thing happen and checks what must hold.
func (r *random) step() {
	r.now = r.now.Add(time.Duration(r.Intn(3000)) * time.Millisecond)
	if r.Intn(3) > 0 {
		r.begin()
		return
	}
	e := r.event()
	if e == nil {
		return
	}
	before := frozen(r.t, r.pod)
	phase := r.pod.Phase
	next, again := Apply(r.pod, e), Apply(r.pod, e)
	if !reflect.DeepEqual(next, again) {
		r.t.Errorf("Apply of %#v differs from itself", e)
	}
	if after := frozen(r.t, r.pod); before != after {
		r.t.Errorf("Apply of %#v altered its input:\n%s\n%s", e, before, after)
	}
	if IsTerminal(phase) && next.Phase != phase {
		r.t.Errorf("phase went from %s to %s at %#v", phase, next.Phase, e)
	}
	if r.pod.Stop != nil && next.Stop == nil {
		r.t.Errorf("the pod is not to end any more after %#v", e)
	}
	r.pod = next
	Status(r.pod, r.node, r.now)
}

// begin begins some of what is planned, and checks the plan.
func (r *random) begin() {
	actions, wake := Plan(r.pod, r.node, r.now)
	again, wakeAgain := Plan(r.pod, r.node, r.now)
	if !slices.Equal(actions, again) || wake != wakeAgain {
		r.t.Errorf("Plan differs from itself:\n%v %v\n%v %v", actions, wake, again, wakeAgain)
	}
	keys := map[string]bool{}
	for _, a := range actions {
		if _, busy := r.pod.Doing[a.Key()]; busy || keys[a.Key()] {
			r.t.Errorf("%s is planned twice", a.Key())
		}
		keys[a.Key()] = true
		if r.pod.Stop != nil && slices.Contains([]Kind{Admit, RunSandbox, Create, Start, PostStart, Pull}, a.Kind) {
			r.t.Errorf("%s is planned though the pod is to end", a.Key())
		}
	}
	for _, a := range actions {
		if a.Kind == Save {
			r.saved = r.pod.Record()
		}
		r.apply(Begun{At: r.now, Action: a})
		r.alone(a)
	}
}

// alone checks that no instance is made or started beside a live one.
func (r *random) alone(a Action) {
	if a.Kind != Create && a.Kind != Start {
		return
	}
	for _, c := range r.runtime.Containers {
		if c.Name == a.Container && c.ID != a.ID && c.State == Running {
			r.t.Errorf("%s is begun while %s runs", a.Key(), c.ID)
		}
	}
}

// event is something that happens, or nil.
func (r *random) event() Event {
	switch r.Intn(14) {
	case 0:
		r.change()
		return Changed{At: r.now}
	case 1:
		if spec := r.spec(); r.Intn(5) == 0 {
			return Wanted{At: r.now, Spec: spec, Origin: "test", Hashes: hashesOf(spec)}
		}
	case 2:
		if r.Intn(10) == 0 {
			return Ended{At: r.now, Grace: time.Duration(r.Intn(30)-1) * time.Second, Unwanted: r.Intn(2) == 0}
		}
	case 3:
		if m := members(r.pod.Spec); len(r.runtime.Containers) > 0 {
			name := m[r.Intn(len(m))].Name
			if c := r.newest(name); c != nil {
				return Probed{At: r.now, Container: name, ContainerID: c.ID, Probe: Probe(r.Intn(3)), Result: Result(r.Intn(2) + 1)}
			}
		}
	case 4:
		if r.pod.Verdict.State == Waiting {
			return Judged{At: r.now} // it may ask again
		}
		return Tick{At: r.now}
	case 5:
		clear(r.answers)
		r.verbRestart(args{words: []string{[]string{"kept", "lost"}[r.Intn(2)]}}, nil)
	case 6, 7:
		if keys := sortedKeys(r.pod.Doing); len(keys) > 0 {
			r.do(r.pod.Doing[keys[r.Intn(len(keys))]].Action)
			return Changed{At: r.now}
		}
	}
	return r.finished()
}

// do has the runtime do an action whose answer comes later.
func (r *random) do(a Action) {
	if _, done := r.answers[a.Key()]; !done && a.Kind != Admit && a.Kind != Forget && !r.impossible(a) {
		r.answers[a.Key()] = r.effect(a, args{})
	}
}

// change has something happen in the runtime.
func (r *random) change() {
	if len(r.runtime.Containers) > 0 {
		c := &r.runtime.Containers[r.Intn(len(r.runtime.Containers))]
		switch r.Intn(5) {
		case 0, 1, 2:
			r.exit(c, int32(r.Intn(2)), args{})
		case 3:
			if c.State == Running {
				c.State = Unknown
			}
		case 4:
			id := c.ID
			r.runtime.Containers = slices.DeleteFunc(r.runtime.Containers, func(c Container) bool { return c.ID == id })
		}
	}
	if len(r.runtime.Sandboxes) > 0 && r.Intn(8) == 0 {
		r.loseSandbox(r.runtime.Sandboxes[0].ID)
	}
}

// finished ends an action in flight, well or badly, in doubt or not.
func (r *random) finished() Event {
	if len(r.pod.Doing) == 0 {
		return nil
	}
	keys := sortedKeys(r.pod.Doing)
	d := r.pod.Doing[keys[r.Intn(len(keys))]]
	if d.Action.Kind == Admit {
		return Judged{At: r.now, Verdict: Verdict{State: []VerdictState{Waiting, Granted, Granted, Granted, Granted, Granted, Granted, Refused}[r.Intn(8)], Reason: "OutOfcpu"}}
	}
	if e, done := r.answers[d.Action.Key()]; done {
		delete(r.answers, d.Action.Key())
		if e.At = r.now; r.Intn(8) == 0 {
			e = Done{At: r.now, Action: d.Action, Failure: &Failure{Reason: startFailed, Uncertain: true}}
		}
		return e
	}
	if d.Canceled || r.impossible(d.Action) {
		return Done{At: r.now, Action: d.Action, Failure: &Failure{Reason: startFailed, Canceled: d.Canceled}}
	}
	luck := r.Intn(12)
	if luck == 0 {
		return Done{At: r.now, Action: d.Action, Failure: &Failure{Reason: "ErrImagePull", Uncertain: r.Intn(2) == 0}}
	}
	e := r.effect(d.Action, args{})
	if luck == 1 {
		return Done{At: r.now, Action: d.Action, Failure: &Failure{Reason: startFailed, Uncertain: true}}
	}
	return e
}

// frozen is the whole value as text, to be compared later.
func frozen(t *testing.T, p Pod) string {
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestConverges lets random things happen, then a perfect world: a pod that is
// wanted and not finished runs in the end, and one that is not is gone.
func TestConverges(t *testing.T) {
	for seed := range int64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := &random{Rand: rand.New(rand.NewSource(seed)), world: newWorld(t)}
			spec := r.spec()
			r.pod = New(Wanted{At: r.now, Spec: spec, Origin: "test", Hashes: hashesOf(spec)}, View{}, nil)
			for range 100 {
				r.step()
			}
			r.quiet()
			r.endInits()
			if r.pod.Stop == nil && r.pod.Verdict.State == Granted {
				r.proveRuns()
			}
			r.apply(Ended{At: r.now, Unwanted: true})
			r.quiet()
			if !r.gone {
				t.Errorf("the pod is not gone: %v, waits %v", sortedKeys(r.pod.Doing), Waits(r.pod, r.node, r.now))
			}
			if len(r.runtime.Sandboxes)+len(r.runtime.Containers) > 0 {
				t.Errorf("left in the runtime: %+v", r.runtime)
			}
		})
	}
}

// quiet lets everything work, and time pass, until nothing more is to do.
func (r *random) quiet() {
	r.apply(Changed{At: r.now})
	for range 200 {
		r.start()
		if r.pod.Verdict.State == Waiting {
			r.apply(Judged{At: r.now})
		}
		r.passProbes()
		for _, key := range sortedKeys(r.pod.Doing) {
			if d, ok := r.pod.Doing[key]; ok {
				r.work(d.Action)
			}
		}
		actions, wake := Plan(r.pod, r.node, r.now)
		idle := len(actions)+len(r.pod.Doing) == 0 && r.pod.Verdict.State != Waiting
		if r.gone || idle && wake.IsZero() {
			return
		}
		if idle && wake.After(r.now) {
			r.now = wake
			r.apply(Tick{At: r.now})
		}
	}
	r.t.Errorf("no end of things to do: %v", Waits(r.pod, r.node, r.now))
}

// impossible says that the runtime cannot do the action any more.
func (r *random) impossible(a Action) bool {
	switch a.Kind {
	case Start:
		c := r.byID(a.ID)
		return c == nil || c.State != Created
	case Create:
		return !slices.ContainsFunc(r.runtime.Sandboxes, func(s Sandbox) bool { return s.ID == a.ID && s.Ready })
	}
	return false
}

// work ends an action well, if that is possible.
func (r *random) work(a Action) {
	if _, done := r.answers[a.Key()]; !done && r.impossible(a) {
		r.apply(Done{At: r.now, Action: a, Failure: &Failure{Reason: startFailed}})
		return
	}
	r.finish(a, args{})
}

// endInits lets the init containers that run end well, one after another.
func (r *random) endInits() {
	for range inits(r.pod.Spec) {
		for _, m := range inits(r.pod.Spec) {
			if c := r.newest(m.Name); m.role == initial && c != nil && c.State == Running {
				r.exit(c, 0, args{})
				r.quiet()
			}
		}
	}
}

// passProbes has every container that runs be well.
func (r *random) passProbes() {
	for _, c := range r.runtime.Containers {
		if m := r.pod.Containers[c.Name]; c.State == Running && (m.Instance.Startup != Success || m.Instance.Liveness != Success) {
			r.apply(Probed{At: r.now, Container: c.Name, ContainerID: c.ID, Probe: Startup, Result: Success})
			r.apply(Probed{At: r.now, Container: c.Name, ContainerID: c.ID, Probe: Liveness, Result: Success})
		}
	}
}

// proveRuns checks that of each container that is to run one instance does,
// and that the pod's sandbox is one. Init containers end when they are asked.
func (r *random) proveRuns() {
	live := map[string]int{}
	for _, c := range r.runtime.Containers {
		if c.State == Running || c.State == Unknown {
			live[c.Name]++
		}
	}
	for name := range maps.Keys(live) {
		if live[name] > 1 {
			r.t.Errorf("%d instances of %s run", live[name], name)
		}
	}
	for _, m := range mains(r.pod.Spec) {
		if k := r.pod.Containers[m.Name].Known; live[m.Name] == 0 && (k == nil || r.pod.again(m, *k)) && r.pod.Phase == v1.PodRunning {
			r.t.Errorf("%s does not run: %v", m.Name, Waits(r.pod, r.node, r.now))
		}
	}
	up := 0
	for _, s := range r.runtime.Sandboxes {
		if s.Ready {
			up++
		}
	}
	if up > 1 {
		r.t.Errorf("%d sandboxes are up", up)
	}
}
