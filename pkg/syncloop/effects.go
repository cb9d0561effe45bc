package syncloop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/objects"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/probe"
)

// pullDeadline bounds a pull that makes progress; one that makes none is ended
// by the runtime much earlier.
const pullDeadline = time.Hour

// do runs one action against the world and says how it ended. The wish ends
// when the pod no longer wants the action, ctx only with the agent: a call that
// was sent is not cancelled by a change of mind.
func (a *actor) do(ctx, wish context.Context, turn *waiter, p pod.Pod, act pod.Action) pod.Event {
	done := pod.Done{Action: act}
	var err error
	switch act.Kind {
	case pod.Admit:
		verdict, failure := a.admit(ctx, p)
		if failure == nil {
			return pod.Judged{At: time.Now(), Verdict: verdict}
		}
		err = failure
	case pod.Allocate:
		e, failure := a.allocate(ctx, p)
		if failure == nil {
			return e
		}
		err = failure
	case pod.RunSandbox, pod.Create, pod.Start:
		err = a.inSlot(ctx, wish, turn, p, &done)
	case pod.Pull:
		wish, cancel := context.WithTimeout(wish, pullDeadline)
		defer cancel()
		secrets, missing := a.pullSecrets(p.Spec)
		done.Told = missing
		var message string
		done.Image, message, err = a.loop.Runtime.Pull(wish, p.Spec, cri.PullRequest{Container: act.Container, Secrets: secrets,
			Begun: func(message string) {
				a.mail.put(pod.Said{At: time.Now(), Note: pod.Note{Reason: "Pulling", Message: message, Container: act.Container}})
			},
			Queued: func(what string) { a.queue(act, what) }})
		if err == nil {
			done.Told = append(done.Told, pod.Note{Reason: "Pulled", Message: message})
		}
	case pod.PostStart, pod.PreStop:
		done.Told, err = a.hook(wish, p, act)
	default:
		if act.Kind == pod.Mount {
			ctx = wish
		}
		ctx, cancel := context.WithTimeout(ctx, a.loop.Timeout+act.Grace)
		defer cancel()
		err = a.settle(ctx, p, &done)
	}
	done.At = time.Now()
	if err != nil {
		done.Failure = cri.Failure(err)
		done.Failure.Awaited = objects.IsUnread(err)
	}
	return done
}

// pullSecrets are the pod's registry credentials, and what people are told of
// those that aren't there (behaviour row 1.10-9). The image may be had without.
func (a *actor) pullSecrets(p *v1.Pod) (secrets []*v1.Secret, told []pod.Note) {
	var missing []string
	for _, ref := range p.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue // an apiserver lets it pass
		}
		s, err := a.loop.Objects.Secret(p.Namespace, ref.Name)
		if err != nil {
			missing = append(missing, ref.Name)
			continue
		}
		secrets = append(secrets, s)
	}
	if len(missing) > 0 {
		told = []pod.Note{{Warning: true, Reason: "FailedToRetrieveImagePullSecret", Message: fmt.Sprintf(
			"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", strings.Join(missing, ", "))}}
	}
	return secrets, told
}

// admit asks the ledger and writes the grant before anybody acts on it.
func (a *actor) admit(ctx context.Context, p pod.Pod) (pod.Verdict, error) {
	claim := ledger.ClaimOf(p.Spec)
	v := a.loop.ask(ctx, claim)
	if v.State != pod.Granted {
		a.loop.preempt(a.loop.grants.victims(claim.UID))
		return v, nil
	}
	p.Verdict = v
	var err error
	if v.Users != (pod.IDs{}) {
		err = a.loop.Volumes.KeepUsers(p.UID(), v.Users)
	}
	if err == nil && p.Setup.Recorded == nil {
		err = a.loop.Records.Write(string(p.UID()), p.Record())
	}
	if err == nil {
		return v, nil
	}
	if p.Setup.Recorded == nil && !lives(p.View) { // what runs keeps what it has
		// User IDs that are on disk are the pod's; others must not get them.
		dropErr := a.loop.Volumes.DropUsers(p.UID())
		if dropErr == nil {
			a.loop.release(claim)
		}
		err = errors.Join(err, dropErr)
	}
	return pod.Verdict{}, fmt.Errorf("write the grant of the pod: %w", err)
}

// slotPatience is how long a call may keep its start slot: many times what a
// call takes on a node that is well.
const slotPatience = 10 * time.Second

// inSlot runs a create or start call in a start slot, which the actor gives back
// once it has taken in how the call ended.
func (a *actor) inSlot(ctx, wish context.Context, turn *waiter, p pod.Pod, done *pod.Done) error {
	request, err := a.look(wish, p, done.Action)
	if err != nil {
		if turn != nil {
			a.loop.slots.leave(turn)
		}
		return err
	}
	if turn == nil {
		turn = a.loop.slots.join(rankOf(p, done.Action))
	}
	if err := a.takeTurn(wish, turn, done.Action); err != nil {
		return err
	}
	a.loop.Metrics.SlotWait(time.Since(turn.joined))
	// A call that hangs goes on without its slot, which others can use.
	late := time.AfterFunc(slotPatience, a.loop.slots.release)
	defer func() {
		if late.Stop() {
			a.held.Add(1)
		}
	}()
	timeout := a.loop.Timeout
	if done.Action.Kind == pod.RunSandbox {
		timeout *= 2 // it may wait for a network, as with the kubelet
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return a.start(ctx, p, request, done)
}

// takeTurn waits for the action's start slot, and says so if it does not have one
// at once.
func (a *actor) takeTurn(wish context.Context, turn *waiter, act pod.Action) error {
	if turn.came() {
		return turn.wait(wish)
	}
	a.queue(act, "a start slot")
	defer a.queue(act, "")
	return turn.wait(wish)
}

// queue says that the action waits for a turn of that kind; "" that it has it.
func (a *actor) queue(act pod.Action, what string) {
	a.mail.put(pod.Queued{At: time.Now(), Key: act.Key(), For: what})
}

func rankOf(p pod.Pod, act pod.Action) rank {
	_, failed := p.Setup.Failures[act.Key()]
	failed = failed || p.Containers[act.Container].Failure != nil
	prio := pod.Priority(p.Spec)
	return rank{critical: prio >= pod.SystemCritical, failed: failed, priority: prio, since: p.Started}
}

func (a *actor) start(ctx context.Context, p pod.Pod, request cri.CreateRequest, done *pod.Done) error {
	act := done.Action
	switch act.Kind {
	case pod.RunSandbox:
		req, notes, err := a.loop.sandbox(p, act)
		done.Told = notes
		if err != nil {
			return err
		}
		s, err := a.loop.Runtime.RunSandbox(ctx, p.Spec, req)
		done.Sandbox = &s
		return err
	case pod.Create:
		c, err := a.loop.Runtime.Create(ctx, p.Spec, request)
		done.Container = &c
		return err
	}
	for _, c := range p.View.Containers {
		if c.ID == act.ID {
			started, err := a.loop.Runtime.Start(ctx, p.Spec, c)
			done.Container = &started
			return err
		}
	}
	return fmt.Errorf("start container %s: instance %s is gone", act.Container, act.ID)
}

// look is what comes before the call itself and needs no slot: what a new
// instance is made from, and the size of one that another process made.
func (a *actor) look(ctx context.Context, p pod.Pod, act pod.Action) (request cri.CreateRequest, err error) {
	switch act.Kind {
	case pod.Create:
		return a.request(ctx, p, act)
	case pod.Start:
		err = a.size(ctx, p, act)
	}
	return request, err
}

// looksFirst says that the container is to be made from parts of volumes: to
// find them may take for ever, on a dead mount; or that the instance is to be
// sized before it is started. Nobody queues meanwhile.
func looksFirst(p pod.Pod, act pod.Action) bool {
	if act.Kind == pod.Start {
		return p.Unsure(act.Container, act.ID)
	}
	c := pod.FindContainer(p.Spec, act.Container)
	return act.Kind == pod.Create && c != nil && slices.ContainsFunc(c.VolumeMounts, func(m v1.VolumeMount) bool {
		return m.SubPath != "" || m.SubPathExpr != ""
	})
}

// request is what is asked of the runtime for a new instance.
func (a *actor) request(ctx context.Context, p pod.Pod, act pod.Action) (cri.CreateRequest, error) {
	req := cri.CreateRequest{
		Container: act.Container, SandboxID: act.ID, Attempt: act.Attempt, ImageRef: act.Image,
		Mounts: a.volumes(), PodIPs: sandboxIPs(p.View, act.ID), Users: p.Verdict.Users,
	}
	c := pod.FindContainer(p.Spec, act.Container)
	if c == nil {
		return req, cri.ConfigError(act.Container, errors.New("the pod has no such container any more"))
	}
	var err error
	if req.Handler, err = a.loop.handler(p.Spec); err != nil {
		return req, cri.ConfigError(act.Container, err)
	}
	if req.Env, err = a.loop.Env.Container(p.Spec, c, env.Surroundings{PodIPs: req.PodIPs, HostIPs: a.loop.Node().HostIPs, Volumes: req.Mounts}); err != nil {
		return req, cri.ConfigError(act.Container, err)
	}
	ctx, cancel := context.WithTimeout(ctx, a.loop.Timeout)
	defer cancel()
	if req.SubPaths, err = a.loop.Volumes.BindSubPaths(ctx, p.Spec, c, req.Mounts, env.Values(req.Env)); err != nil {
		return req, cri.ConfigError(act.Container, err)
	}
	return req, nil
}

func sandboxIPs(view pod.View, id string) []string {
	for _, s := range view.Sandboxes {
		if s.ID == id {
			return s.IPs
		}
	}
	return nil
}

// settle runs every action that needs no slot.
func (a *actor) settle(ctx context.Context, p pod.Pod, done *pod.Done) error {
	l, act := a.loop, done.Action
	switch act.Kind {
	case pod.Prepare:
		// By the folder an agent that knows nothing of the pod finds its cgroup.
		if err := l.Volumes.Prepare(p.Spec); err != nil {
			return err
		}
		return l.Cgroups.Grow(ctx, p.Actuated(), p.Spec)
	case pod.Actuate:
		return a.actuate(ctx, p)
	case pod.Mount:
		return a.mount(ctx, p.Spec, done)
	case pod.Observe:
		view, err := l.Runtime.View(ctx, p.UID())
		done.View = &view
		return err
	case pod.StopContainer:
		return l.Runtime.Stop(ctx, act.ID, act.Grace)
	case pod.Remove:
		return l.Runtime.Remove(ctx, act.ID)
	case pod.StopSandbox:
		return l.Runtime.StopSandbox(ctx, act.ID)
	case pod.RemoveSandbox:
		return l.Runtime.RemoveSandbox(ctx, act.ID)
	case pod.Unmount:
		return l.Volumes.Unmount(ctx, p.UID())
	case pod.Clean:
		return l.Cgroups.Remove(ctx, p.UID())
	case pod.Erase:
		if err := l.publishNow(ctx, state{uid: p.UID()}); err != nil {
			return fmt.Errorf("forget what the pod was granted: %w", err)
		}
		return errors.Join(l.Volumes.RemovePod(ctx, p.UID()), l.Runtime.RemoveLogs(ctx, p.Spec.Namespace, p.Spec.Name, p.UID()), l.Records.Delete(string(p.UID())))
	case pod.Release:
		if err := l.Volumes.DropUsers(p.UID()); err != nil {
			return err
		}
		l.release(ledger.ClaimOf(p.Spec))
		return nil
	case pod.Save:
		r := p.Record()
		done.Record = &r
		return l.Records.Write(string(p.UID()), r)
	}
	return fmt.Errorf("no such action: %s", act.Kind)
}

func (a *actor) volumes() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mounts
}

// hook runs the container's postStart or preStop hook, the latter within its
// grace.
func (a *actor) hook(ctx context.Context, p pod.Pod, act pod.Action) ([]pod.Note, error) {
	c := pod.FindContainer(p.Spec, act.Container)
	if c == nil || c.Lifecycle == nil {
		return nil, nil
	}
	h := c.Lifecycle.PostStart
	if act.Kind == pod.PreStop {
		h = c.Lifecycle.PreStop
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, act.Grace)
		defer cancel()
	}
	if h == nil {
		return nil, nil
	}
	return a.loop.Hooks.Run(ctx, probe.Hook{LifecycleHandler: h, Container: c, ContainerID: act.ID, Host: p.Address(a.loop.Node())})
}
