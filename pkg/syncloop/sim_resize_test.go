package syncloop

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// milli is what all containers of the pod request, in thousandths of a CPU.
func milli(p *v1.Pod) (sum int64) {
	for _, c := range p.Spec.Containers {
		sum += c.Resources.Requests.Cpu().MilliValue()
	}
	return sum
}

func milliOf(p *v1.Pod, name string) int64 {
	return pod.FindContainer(p, name).Resources.Requests.Cpu().MilliValue()
}

// resize draws other resources for a container of the pod.
func (d *draft) resize(r *rand.Rand) {
	d.version++
	p := d.pod.DeepCopy()
	c := &p.Spec.Containers[r.IntN(len(p.Spec.Containers))]
	c.Resources.Requests = v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(int64(50+r.IntN(900)), resource.DecimalSI)}
	d.pod = p
}

// Update gives a container that runs what it is allocated; it must fit into its
// pod's cgroup.
func (a *agent) Update(ctx context.Context, p *v1.Pod, name, id string) error {
	defer a.once("update " + id)()
	var turn int
	a.world.locked(func() {
		if c := a.world.runtime.containers[id]; c != nil {
			c.updates++
			turn = c.updates
		}
	})
	return a.do(ctx, call{doing: "update " + id, changes: true, limit: callLimit, work: func(string) (<-chan struct{}, error) {
		c := a.world.runtime.containers[id]
		if c == nil || c.State == pod.Exited || turn < c.updated {
			return nil, nil
		}
		c.updated = turn
		want := milliOf(p, name)
		if has := a.world.disk.milli[p.UID]; has < want && !a.world.tardy {
			a.world.violated("container %s is given %dm, more than the %dm of its pod", id, want, has)
		}
		c.milli = want
		a.world.say("runtime: container %s has %dm", id, want)
		return nil, nil
	}})
}

func (a *agent) MemoryUsage(context.Context, string) (int64, error) { return 0, nil }

func (g groups) MemoryUsage(context.Context, *v1.Pod) (int64, error) { return 0, nil }

func (g groups) Create(ctx context.Context, p *v1.Pod) error {
	return g.touch(ctx, "make cgroup of "+string(p.UID), func() { g.world.disk.setCgroup(p.UID, milli(p)) })
}

func (g groups) Grow(ctx context.Context, from, to *v1.Pod) error {
	return g.touch(ctx, "grow cgroup of "+string(to.UID), func() { g.world.disk.setCgroup(to.UID, max(milli(from), milli(to))) })
}

func (d *disk) setCgroup(uid types.UID, milli int64) {
	d.cgroups[uid], d.milli[uid] = true, milli
	for _, c := range d.world.runtime.containers {
		if c.pod.UID == uid && c.State == pod.Running && c.milli > milli {
			d.world.violated("the cgroup of %s is set to %dm, container %s has %dm", uid, milli, c.ID, c.milli)
		}
	}
}

// unsized says what of the pod's resources is not as it should be in the end.
func (w *world) unsized(p pod.Pod, wanted *v1.Pod) string {
	r := p.Resize
	switch want := pod.ResourcesOf(wanted).On(p.Spec); {
	case r.Ask || r.Actuated != nil:
		return fmt.Sprintf("is being resized: %+v", r)
	case want != p.Spec && r.Answer.State == pod.Unasked:
		return fmt.Sprintf("has other resources than it is wanted to have: %v, %+v", r.Desired != nil, r.Answer)
	case want == p.Spec && r.Answer.State != pod.Unasked:
		return "has what is wanted, and waits for it"
	}
	for _, uid := range w.agent.loop.grants.due() {
		if uid == p.UID() {
			return "waits for resources that are there"
		}
	}
	for _, c := range w.runtime.containers {
		if spec := pod.FindContainer(p.Spec, c.Name); c.pod.UID == p.UID() && c.State == pod.Running && spec != nil && c.milli != milliOf(p.Spec, c.Name) {
			return fmt.Sprintf("container %s has %dm of %dm", c.ID, c.milli, milliOf(p.Spec, c.Name))
		}
	}
	if w.disk.cgroups[p.UID()] && w.disk.milli[p.UID()] != milli(p.Spec) {
		return fmt.Sprintf("its cgroup has %dm of %dm", w.disk.milli[p.UID()], milli(p.Spec))
	}
	return ""
}

// states are the files for other agents, as the loop calls them: what they say
// is granted is what the pods' records say, or soon will.
type states struct{ *agent }

func (s states) Write(allocated, actuated map[types.UID]pod.Resources) error {
	defer s.once("write states")()
	return s.touch(context.Background(), "write states", func() {
		s.world.disk.states, s.world.disk.actuated = maps.Clone(allocated), maps.Clone(actuated)
	})
}
