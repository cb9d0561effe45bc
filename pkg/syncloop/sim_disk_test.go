package syncloop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/probe"
)

// disk is what the machine keeps beside the runtime: folders, mounts, cgroups
// and the agent's records. All is guarded by world.mu.
type disk struct {
	world   *world
	folders map[types.UID]bool
	mounts  map[types.UID]bool
	// tokens is how long what volumes show is good for, 0 for ever; mounted are
	// the times at which volumes were mounted.
	tokens  time.Duration
	mounted []time.Time
	cgroups map[types.UID]bool
	milli   map[types.UID]int64 // CPU requests that the cgroups were set to
	users   map[types.UID]pod.IDs
	records map[string][]byte
	// What other agents are told is allocated and actuated.
	states, actuated map[types.UID]pod.Resources
	// allocated are the CPU requests that the records grant.
	allocated map[types.UID]int64
	// last is the record written last, and what it said before.
	last   string
	before []byte
	lost   map[types.UID]bool // pods of which a record was lost
}

func newDisk(w *world) *disk {
	return &disk{world: w, folders: map[types.UID]bool{}, mounts: map[types.UID]bool{}, cgroups: map[types.UID]bool{}, milli: map[types.UID]int64{}, users: map[types.UID]pod.IDs{},
		records: map[string][]byte{}, allocated: map[types.UID]int64{}, lost: map[types.UID]bool{}}
}

// touch is one operation on the disk: it takes its time and may fail, and is
// never done after the agent was killed.
func (a *agent) touch(ctx context.Context, what string, f func()) error {
	var wait time.Duration
	var err error
	a.world.locked(func() {
		d := a.world.dice("disk %s", what)
		wait = between(d, 100*time.Microsecond, 5*time.Millisecond)
		if !a.world.quiet && chance(d, 3) {
			wait = between(d, time.Second, 10*time.Second)
		}
		if !a.world.quiet && chance(d, 4) {
			err = errors.New("injected: no space left on device")
		}
	})
	if sleep(ctx, wait) != nil {
		return ctx.Err()
	}
	a.world.locked(func() {
		if a.isDead() {
			err = errors.New("dead")
			return
		}
		if err == nil {
			f()
		}
		a.world.say("agent %d: %s: %v", a.number, what, err)
		a.world.checks.all()
	})
	return err
}

func (a *agent) Prepare(p *v1.Pod) error {
	return a.touch(context.Background(), "prepare "+string(p.UID), func() { a.world.disk.folders[p.UID] = true })
}

func (a *agent) Mount(ctx context.Context, p *v1.Pod) (paths map[string]string, renew time.Time, err error) {
	defer a.once("mount " + string(p.UID))()
	a.world.locked(func() {
		good := a.world.disk.tokens
		if d := a.world.dice("token of %s", p.UID); !a.world.quiet && chance(d, 20) {
			good = between(d, time.Second, 10*time.Minute)
		}
		if good > 0 {
			renew = time.Now().Add(good)
		}
		if a.world.disk.mounts[p.UID] {
			paths = map[string]string{} // usable as they are, should this fail
		}
	})
	return paths, renew, a.touch(ctx, "mount "+string(p.UID), func() {
		if !a.world.disk.folders[p.UID] {
			a.world.violated("volumes of %s are mounted before its folder is there", p.UID)
		}
		a.world.disk.mounts[p.UID] = true
		a.world.disk.mounted = append(a.world.disk.mounted, time.Now())
	})
}

// onDeadMount is a part that is never found.
const onDeadMount = "dead"

// BindSubPaths may hang for as long as it is waited for, as on a dead mount.
func (a *agent) BindSubPaths(ctx context.Context, p *v1.Pod, c *v1.Container, _, _ map[string]string) (map[int]string, error) {
	if len(c.VolumeMounts) == 0 {
		return nil, nil
	}
	what := fmt.Sprintf("bind subPaths of %s/%s", p.UID, c.Name)
	defer a.once(what)()
	hangs := c.VolumeMounts[0].SubPath == onDeadMount
	a.world.locked(func() { hangs = hangs || !a.world.quiet && chance(a.world.dice("hang %s", what), 10) })
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, a.touch(ctx, what, func() {
		if !a.world.disk.mounts[p.UID] {
			a.world.violated("subPaths of %s are bound while its volumes are not mounted", p.UID)
		}
	})
}

func (a *agent) Unmount(ctx context.Context, uid types.UID) error {
	defer a.once("unmount " + string(uid))()
	return a.touch(ctx, "unmount "+string(uid), func() {
		a.world.checks.unmounting(uid)
		delete(a.world.disk.mounts, uid)
	})
}

func (a *agent) RemovePod(ctx context.Context, uid types.UID) error {
	return a.touch(ctx, "remove folder of "+string(uid), func() {
		if a.world.disk.mounts[uid] {
			a.world.violated("folder of %s is removed while volumes are mounted", uid)
		}
		delete(a.world.disk.folders, uid)
		delete(a.world.disk.users, uid)
	})
}

func (a *agent) KeepUsers(uid types.UID, ids pod.IDs) error {
	return a.touch(context.Background(), "write user IDs of "+string(uid), func() {
		a.world.disk.folders[uid] = true
		a.world.disk.users[uid] = ids
	})
}

func (a *agent) DropUsers(uid types.UID) error {
	return a.touch(context.Background(), "remove user IDs of "+string(uid), func() { delete(a.world.disk.users, uid) })
}

func (a *agent) PodDirs() (out []types.UID, err error) {
	a.world.locked(func() { out = slices.Sorted(maps.Keys(a.world.disk.folders)) })
	return out, nil
}

// groups are the pods' cgroups, as the loop calls them.
type groups struct{ *agent }

func (g groups) Remove(ctx context.Context, uid types.UID) error {
	return g.touch(ctx, "remove cgroup of "+string(uid), func() { delete(g.world.disk.cgroups, uid) })
}

func (g groups) UpdateQoS(context.Context, []*v1.Pod) error { return nil }

// records are the agent's records, as the loop calls them.
type records struct{ *agent }

func (r records) Write(name string, v any) error {
	defer r.once("write or delete record " + name)()
	content, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return r.touch(context.Background(), "write record "+name, func() {
		d := r.world.disk
		d.last, d.before = name, d.records[name]
		d.records[name] = content
		d.allocated[types.UID(name)] = milli(v.(pod.Record).Spec)
	})
}

func (r records) Delete(name string) error {
	defer r.once("write or delete record " + name)()
	return r.touch(context.Background(), "delete record "+name, func() {
		d := r.world.disk
		delete(d.records, name)
		delete(d.allocated, types.UID(name))
		if d.last == name {
			d.last = ""
		}
	})
}

// lose undoes the last write, as a power cut would.
func (d *disk) lose() {
	if d.last == "" {
		return
	}
	d.world.say("disk: the last write of record %s is lost", d.last)
	d.lost[types.UID(d.last)] = true
	d.records[d.last] = d.before
	if d.before == nil {
		delete(d.records, d.last)
	}
	d.last = ""
}

// known are the records as an agent reads them when it starts.
func (d *disk) known() map[types.UID]pod.Record {
	out := map[types.UID]pod.Record{}
	for name, content := range d.records {
		var r pod.Record
		if err := json.Unmarshal(content, &r); err != nil {
			panic(err)
		}
		out[types.UID(name)] = r
	}
	return out
}

// hooks run for as long as their sleep says, fail when it is three, and end with
// their container.
type hooks struct{ *agent }

func (h hooks) Run(ctx context.Context, k probe.Hook) ([]pod.Note, error) {
	return nil, h.sleep(ctx, k.ContainerID, k.LifecycleHandler)
}

func (h hooks) sleep(ctx context.Context, id string, hook *v1.LifecycleHandler) error {
	seconds := hook.Sleep.Seconds
	defer h.once(fmt.Sprintf("hook %p in %s", hook, id))() // postStart may be ending while preStop begins
	var ended chan struct{}
	h.world.locked(func() {
		if c := h.world.runtime.containers[id]; c != nil && c.State == pod.Running {
			ended = c.ended
			h.world.say("agent %d: hook of %d s begins in %s", h.number, seconds, id)
		}
	})
	if ended == nil {
		return errors.New("the container does not run")
	}
	defer h.world.locked(func() { h.world.checks.hooked[id] = true })
	select {
	case <-time.After(time.Duration(seconds) * time.Second):
		if seconds == 3 {
			return errors.New("injected: hook failed")
		}
		return nil
	case <-ended:
		return errors.New("the container ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}
