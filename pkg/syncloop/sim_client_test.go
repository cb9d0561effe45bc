package syncloop

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// callLimit bounds each call to the runtime.
const callLimit = 20 * time.Second

// agent is one process of the agent: what it calls, until it is killed.
type agent struct {
	world  *world
	number int
	loop   *Loop
	cancel context.CancelFunc
	dead   chan struct{} // closed when it is killed
	ended  chan struct{} // closed when Run has returned
	busy   map[string]int
	known  map[types.UID]pod.Record // when it was started
	began  time.Time
	series *metrics.Series
}

func (a *agent) isDead() bool {
	select {
	case <-a.dead:
		return true
	default:
		return false
	}
}

func (a *agent) Probe(ctx context.Context) (rt cri.Runtime, err error) {
	err = a.do(ctx, call{doing: "probe", limit: callLimit, work: func(string) (<-chan struct{}, error) {
		rt = cri.Runtime{Name: "containerd", Version: "v2"}
		return nil, nil
	}})
	return rt, err
}

func (a *agent) List(ctx context.Context) (found map[types.UID]cri.Found, err error) {
	err = a.do(ctx, call{doing: "list", limit: callLimit, work: func(string) (<-chan struct{}, error) {
		found = a.world.runtime.found()
		return nil, nil
	}})
	return found, err
}

func (a *agent) Alive(ctx context.Context) (alive map[types.UID][]string, err error) {
	err = a.do(ctx, call{doing: "audit", limit: callLimit, work: func(string) (<-chan struct{}, error) {
		alive = a.world.runtime.alive()
		return nil, nil
	}})
	return alive, err
}

func (a *agent) View(ctx context.Context, uid types.UID) (v pod.View, err error) {
	err = a.do(ctx, call{doing: "view " + string(uid), limit: callLimit, work: func(string) (<-chan struct{}, error) {
		v = a.world.runtime.found()[uid].View
		return nil, nil
	}})
	return v, err
}

func (a *agent) Events(ctx context.Context, changed func(types.UID)) error {
	m := a.world.runtime
	if m.noEvents {
		return cri.ErrNoEvents
	}
	s := &stream{changed: changed, agent: a.number}
	if err := a.wait(ctx, time.Millisecond, nil); err != nil {
		return err
	}
	a.world.locked(func() { m.streams[s] = true })
	defer a.world.locked(func() { delete(m.streams, s) })
	changed("")
	return await(a, ctx, make(chan struct{}))
}

func (a *agent) Pull(ctx context.Context, p *v1.Pod, r cri.PullRequest) (ref, message string, err error) {
	container := r.Container
	image := pod.FindContainer(p, container).Image
	defer a.once("pull " + string(p.UID) + "/" + container)()
	err = a.do(ctx, call{doing: fmt.Sprintf("pull %s for %s/%s", image, p.UID, container), reason: cri.ReasonPull, turn: string(p.UID) + "/" + container, limit: 5 * time.Minute,
		work: func(string) (<-chan struct{}, error) {
			if strings.Contains(image, "missing") {
				return nil, status.Error(codes.NotFound, "no such image")
			}
			a.world.runtime.images[image] = true
			return nil, nil
		}})
	return "sha256:" + image, "", err
}

// What a call made is read only of one that succeeded: one that was given up may
// be done later, in another goroutine.

func (a *agent) RunSandbox(ctx context.Context, p *v1.Pod, r cri.SandboxRequest) (pod.Sandbox, error) {
	m := a.world.runtime
	defer a.once("sandbox " + string(p.UID))()
	name := sandboxName(p, r.Attempt)
	a.world.locked(func() { a.world.checks.users(p, r.Users) })
	var made pod.Sandbox
	err := a.do(ctx, call{doing: "run sandbox " + name, changes: true, limit: callLimit, name: name, starts: p,
		ready: func() bool { return p.Spec.HostNetwork || p.UID == m.needs || m.serves() },
		work: func(id string) (<-chan struct{}, error) {
			made = m.addSandbox(id, p, r.Attempt).Sandbox
			return nil, nil
		}})
	if err != nil {
		return pod.Sandbox{}, err
	}
	return made, nil
}

func (a *agent) Create(ctx context.Context, p *v1.Pod, r cri.CreateRequest) (pod.Container, error) {
	m := a.world.runtime
	defer a.once("create " + string(p.UID) + "/" + r.Container)()
	name := containerName(p, r.Container, r.Attempt)
	a.world.locked(func() {
		a.world.checks.creating(a, p, r)
		a.world.checks.users(p, r.Users)
	})
	var made pod.Container
	err := a.do(ctx, call{doing: "create " + name, reason: cri.ReasonCreate, turn: string(p.UID) + "/" + r.Container, changes: true, limit: callLimit, name: name, starts: p,
		work: func(id string) (<-chan struct{}, error) {
			c, err := m.addContainer(id, p, r)
			if err == nil {
				made = c.Container
			}
			return nil, err
		}})
	if err != nil {
		return pod.Container{}, err
	}
	return made, nil
}

func (a *agent) Start(ctx context.Context, p *v1.Pod, c pod.Container) (pod.Container, error) {
	defer a.once("start " + c.ID)()
	var k *container
	a.world.locked(func() {
		if k = a.world.runtime.containers[c.ID]; k != nil {
			k.starting++
		}
	})
	var started pod.Container
	err := a.do(ctx, call{doing: "start " + c.ID, reason: cri.ReasonRun, turn: string(p.UID) + "/" + c.Name, changes: true, limit: callLimit, starts: p,
		refused: func() error {
			if k != nil && k.starting > 1 {
				return fmt.Errorf("container %s is already in starting state", c.ID)
			}
			return nil
		},
		over: func() {
			if k != nil {
				k.starting--
			}
		},
		work: func(string) (<-chan struct{}, error) {
			k, err := a.world.runtime.startContainer(c.ID)
			if err == nil {
				started = k.Container
			}
			return nil, err
		}})
	if err != nil {
		return c, err
	}
	a.world.locked(func() { a.world.checks.starter[c.ID] = a.number })
	return started, nil
}

func (a *agent) Stop(ctx context.Context, id string, grace time.Duration) error {
	defer a.once(fmt.Sprintf("stop %s %s", id, grace))()
	return a.do(ctx, call{doing: "stop " + id, changes: true, limit: callLimit + grace, work: func(string) (<-chan struct{}, error) {
		c := a.world.runtime.containers[id]
		if c == nil || c.State != pod.Running {
			return nil, nil
		}
		a.world.say("runtime: container %s is to end within %s", id, grace)
		a.world.runtime.term(c, grace)
		return c.ended, nil
	}})
}

func (a *agent) Remove(ctx context.Context, id string) error {
	defer a.once("remove " + id)()
	return a.do(ctx, call{doing: "remove " + id, changes: true, limit: callLimit, work: func(string) (<-chan struct{}, error) {
		if c := a.world.runtime.containers[id]; c != nil {
			if c.starting > 0 {
				return nil, fmt.Errorf("container %s is in starting state, can't be removed", id)
			}
			a.world.checks.removing(c)
			a.world.runtime.removeContainer(c)
		}
		return nil, nil
	}})
}

func (a *agent) StopSandbox(ctx context.Context, id string) error {
	defer a.once("stop sandbox " + id)()
	return a.do(ctx, call{doing: "stop sandbox " + id, changes: true, limit: callLimit, work: func(string) (<-chan struct{}, error) {
		if s := a.world.runtime.sandboxes[id]; s != nil {
			a.world.runtime.stopSandbox(s)
		}
		return nil, nil
	}})
}

func (a *agent) RemoveSandbox(ctx context.Context, id string) error {
	defer a.once("remove sandbox " + id)()
	return a.do(ctx, call{doing: "remove sandbox " + id, changes: true, limit: callLimit, work: func(string) (<-chan struct{}, error) {
		if s := a.world.runtime.sandboxes[id]; s != nil {
			a.world.runtime.removeSandbox(s)
		}
		return nil, nil
	}})
}

func (a *agent) LoggedRestarts(_, _ string, uid types.UID) (out map[string]int32) {
	a.world.locked(func() {
		out = map[string]int32{}
		for name, n := range a.world.runtime.logs[uid] {
			out[name] = n
		}
	})
	return out
}

func (a *agent) RemoveLogs(_ context.Context, _, _ string, uid types.UID) error {
	a.world.locked(func() { delete(a.world.runtime.logs, uid) })
	return nil
}

// once says that something must not be done twice at a time; what it returns
// says that it has ended.
func (a *agent) once(what string) (end func()) {
	a.world.locked(func() {
		if a.busy[what]++; a.busy[what] > 1 {
			a.world.violated("twice in flight: %s", what)
		}
	})
	return func() { a.world.locked(func() { a.busy[what]-- }) }
}
