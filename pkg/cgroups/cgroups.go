// Package cgroups places pods in the machine's cgroups: the tree of QoS tiers,
// a cgroup for each pod with its CPU, memory, process and huge page limits, and
// its removal once it is empty.
//
// The tree, its names and its values are the peer's, so that each can take over
// from the other. Both drivers and both versions go through
// opencontainers/cgroups; cgroup v1 and hybrid are tested on real hierarchies
// here, while of v2 and of the systemd driver only names and values are, and
// the waiting for emptiness: they need a machine of their own.
package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/cgroups/systemd"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Options are the parts of the agent's configuration that cgroups need.
type Options struct {
	// Root is cgroupRoot: the cgroup that kubepods is below. Default "/".
	Root string
	// Driver is cgroupDriver, or what CRI RuntimeConfig says: Cgroupfs, the
	// default, or Systemd.
	Driver string
	// PerQoS is cgroupsPerQOS. When false there is no tree, every method does
	// nothing, and the runtime puts pods where it likes.
	PerQoS bool
	// PodPidsLimit is podPidsLimit: processes per pod; none unless above 0.
	PodPidsLimit int64
	// CFSQuota is cpuCFSQuota: whether CPU limits are enforced.
	CFSQuota bool
	// CFSPeriod is cpuCFSQuotaPeriod. Default 100 ms.
	CFSPeriod time.Duration
	// Node is what all pods together may use: the node's capacity, less the
	// reservations if enforceNodeAllocatable has "pods" (behaviour row 1.15-10).
	Node Limits
}

// Limits bound all pods together. A zero is no limit.
type Limits struct {
	MilliCPU int64 // a weight against the rest of the machine, not a quota
	Memory   int64 // bytes
	PIDs     int64
}

// Tree is the pods' part of the machine's cgroups. Create, Remove and Parent may
// be called side by side.
type Tree struct {
	opts      Options
	facts     Facts
	burstable uint64 // shares that UpdateQoS wrote last
}

// New looks at the machine and changes nothing.
func New(opts Options) (*Tree, error) {
	if opts.Root == "" {
		opts.Root = "/"
	}
	if opts.Driver == "" {
		opts.Driver = Cgroupfs
	}
	if opts.CFSPeriod == 0 {
		opts.CFSPeriod = 100 * time.Millisecond
	}
	if !path.IsAbs(opts.Root) || path.Clean(opts.Root) != opts.Root {
		return nil, fmt.Errorf("cgroupRoot %q: want a clean absolute path below %s", opts.Root, unifiedMount)
	}
	switch {
	case opts.Driver != Cgroupfs && opts.Driver != Systemd:
		return nil, fmt.Errorf("cgroupDriver %q: want %q or %q", opts.Driver, Cgroupfs, Systemd)
	case opts.PerQoS && opts.Driver == Systemd && !systemd.IsRunningSystemd():
		return nil, fmt.Errorf("cgroupDriver %q: systemd does not run on this machine; set %q here and in the runtime", Systemd, Cgroupfs)
	case opts.Driver == Systemd && strings.Contains(opts.Root, "_"):
		return nil, fmt.Errorf("cgroupRoot %q: '_' can't be told from '-' in names of systemd slices", opts.Root)
	}
	facts, err := Check()
	if err != nil {
		return nil, err
	}
	return &Tree{opts: opts, facts: facts}, nil
}

// Setup makes kubepods and the two tiers below it. Those that exist stay as
// they are, with the pods in them.
func (t *Tree) Setup(ctx context.Context) error {
	if !t.opts.PerQoS {
		return nil
	}
	if err := t.facts.Err(); err != nil {
		return err
	}
	top := t.resources(Values{})
	if t.opts.Driver == Systemd {
		// systemd takes the cpuset controller away again from a slice that
		// doesn't name its CPUs.
		online, err := os.ReadFile("/sys/devices/system/cpu/online")
		if err != nil {
			return fmt.Errorf("set up cgroups: %w", err)
		}
		top.CpusetCpus = strings.TrimSpace(string(online))
	}
	if err := t.apply(ctx, t.name(v1.PodQOSGuaranteed), top); err != nil {
		return err
	}
	for _, class := range []v1.PodQOSClass{v1.PodQOSBurstable, v1.PodQOSBestEffort} {
		tier := t.resources(Values{})
		if class == v1.PodQOSBestEffort {
			tier = t.resources(Values{Shares: minShares})
		}
		if t.hasHugetlb() {
			tier.HugetlbLimit = hugetlb(func(int64) int64 { return unlimited })
		}
		if err := t.apply(ctx, t.name(class), tier); err != nil {
			return err
		}
	}
	return t.checkDelegation()
}

// checkDelegation tells apart on v2 what the kernel has and what may be used
// below kubepods, which is less if a cgroup on the way has processes of its own.
func (t *Tree) checkDelegation() error {
	if !t.v2() {
		return nil
	}
	dir := filepath.Join(unifiedMount, t.name(v1.PodQOSGuaranteed))
	controllers, err := controllersOf(dir)
	if err != nil {
		return fmt.Errorf("set up cgroups: %w", err)
	}
	if missing := t.facts.lacks(controllers); len(missing) > 0 {
		return fmt.Errorf("set up cgroups: controllers %s are not enabled in %s: write +%s to cgroup.subtree_control of each cgroup above it; one with processes of its own refuses that: move them, or set another cgroupRoot",
			strings.Join(missing, ", "), dir, strings.Join(missing, " +"))
	}
	return nil
}

// Enforce writes what all pods together may use. It fails, and may be tried
// again later, while they use more memory than that (behaviour row 1.15-12).
func (t *Tree) Enforce(ctx context.Context) error {
	if !t.opts.PerQoS {
		return nil
	}
	node := t.opts.Node
	r := t.resources(Values{Memory: node.Memory})
	if node.MilliCPU > 0 {
		r = t.resources(Values{Memory: node.Memory, Shares: shares(node.MilliCPU)})
	}
	if node.PIDs > 0 {
		r.PidsLimit = &node.PIDs
	}
	return t.set(ctx, t.name(v1.PodQOSGuaranteed), r)
}

// Parent is CRI's LinuxPodSandboxConfig.cgroup_parent: the absolute path with
// both drivers (behaviour row 1.15-3), "" when the runtime is to choose.
func (t *Tree) Parent(p *v1.Pod) string {
	if !t.opts.PerQoS {
		return ""
	}
	return Name(t.opts.Root, p.UID, pod.QoS(p), t.opts.Driver)
}

// Create makes the pod's cgroup with its values; one that exists gets them
// anew. Its tier must have been set up.
func (t *Tree) Create(ctx context.Context, p *v1.Pod) error {
	if !t.opts.PerQoS {
		return nil
	}
	return t.create(ctx, p, ResourceConfig(p, t.opts.CFSQuota, t.opts.CFSPeriod))
}

func (t *Tree) create(ctx context.Context, p *v1.Pod, v Values) error {
	if err := pod.CheckUID(p.UID); err != nil {
		return fmt.Errorf("create cgroup of pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	r := t.resources(v)
	if t.opts.PodPidsLimit > 0 {
		r.PidsLimit = &t.opts.PodPidsLimit
	}
	if t.hasHugetlb() {
		r.HugetlbLimit = hugetlb(func(page int64) int64 { return v.HugePages[page] })
	}
	if err := t.apply(ctx, t.Parent(p), r); err != nil {
		return fmt.Errorf("pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

// UpdateQoS gives the burstable tier the weight of its pods' CPU requests
// (behaviour row 1.15-7), and writes only what changed. One caller at a time.
func (t *Tree) UpdateQoS(ctx context.Context, pods []*v1.Pod) error {
	if !t.opts.PerQoS {
		return nil
	}
	var milliCPU int64
	for _, p := range pods {
		if pod.QoS(p) == v1.PodQOSBurstable {
			requests := resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})
			milliCPU += requests.Cpu().MilliValue()
		}
	}
	sum := shares(milliCPU)
	if sum == t.burstable {
		return nil
	}
	if err := t.set(ctx, t.name(v1.PodQOSBurstable), t.resources(Values{Shares: sum})); err != nil {
		return err
	}
	t.burstable = sum
	return nil
}

func (t *Tree) v2() bool { return t.facts.Version == "v2" }

func (t *Tree) hasHugetlb() bool { return slices.Contains(t.facts.Controllers, "hugetlb") }

// name of the cgroup that a class's pods are in.
func (t *Tree) name(class v1.PodQOSClass) string {
	return join(t.opts.Driver, tier(t.opts.Root, class))
}

func (t *Tree) resources(v Values) *cgroups.Resources {
	r := &cgroups.Resources{
		SkipDevices:     true, // containers have their own rules
		SkipFreezeOnSet: true,
		CpuQuota:        v.Quota,
		CpuPeriod:       v.Period,
		Memory:          v.Memory,
	}
	if v.Shares > 0 && t.v2() {
		r.CpuWeight = weight(v.Shares)
	} else {
		r.CpuShares = v.Shares
	}
	return r
}

// manager of one cgroup. It is given the paths, which it would else find out
// anew each time from the mounts.
func (t *Tree) manager(name string, r *cgroups.Resources) (cgroups.Manager, error) {
	paths := map[string]string{}
	for controller, mount := range t.facts.mounts {
		paths[controller] = filepath.Join(mount, name)
	}
	c := &cgroups.Cgroup{Path: name, Resources: r}
	if t.opts.Driver == Systemd {
		parent := path.Base(path.Dir(name))
		if parent == "/" {
			parent = "-.slice"
		}
		c = &cgroups.Cgroup{Systemd: true, Parent: parent, Name: path.Base(name), Resources: r}
	}
	return manager.NewWithPaths(c, paths)
}

// apply makes the cgroup if it isn't there, and sets its values.
func (t *Tree) apply(ctx context.Context, name string, r *cgroups.Resources) error {
	err := within(ctx, func() error {
		m, err := t.manager(name, r)
		if err != nil {
			return err
		}
		if err := m.Apply(-1); err != nil { // with no process in it
			return err
		}
		return m.Set(r)
	})
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("create cgroup %s: %w: remount %s writable", name, err, unifiedMount)
	}
	if err != nil {
		return fmt.Errorf("create cgroup %s: %w", name, err)
	}
	return nil
}

func (t *Tree) set(ctx context.Context, name string, r *cgroups.Resources) error {
	err := within(ctx, func() error {
		m, err := t.manager(name, r)
		if err != nil {
			return err
		}
		return m.Set(r)
	})
	if err != nil {
		return fmt.Errorf("set cgroup %s: %w", name, err)
	}
	return nil
}

// within ends the wait for f with ctx. The library takes no context: a call to
// a systemd that hangs goes on by itself, for at most its own 30 s.
func within(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
