package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cgroups"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/metrics"
)

// tree is the cgroup tree, which can only be made once the runtime has said
// which driver it uses (behaviour row 1.15-4).
type tree struct {
	options  cgroups.Options
	log      *slog.Logger
	runtime  *cri.Client // set once it is made
	metrics  *metrics.Storage
	made     atomic.Pointer[cgroups.Tree]
	enforced atomic.Bool
}

var errNoTree = errors.New("the cgroup tree is not made yet: the runtime has not answered")

// newTree prepares it. limit is what all pods together may use, if that is to be
// enforced.
func newTree(c *config.Config, limit v1.ResourceList, to *metrics.Storage, log *slog.Logger) *tree {
	k := &c.Kubelet
	t := &tree{log: log, metrics: to, options: cgroups.Options{
		Root: k.CgroupRoot, Driver: k.CgroupDriver, PerQoS: *k.CgroupsPerQOS,
		PodPidsLimit: *k.PodPidsLimit, CFSQuota: *k.CPUCFSQuota, CFSPeriod: k.CPUCFSQuotaPeriod.Duration,
	}}
	if slices.Contains(k.EnforceNodeAllocatable, "pods") {
		cpu := limit[v1.ResourceCPU]
		t.options.Node = cgroups.Limits{MilliCPU: cpu.MilliValue(), Memory: quantity(limit, v1.ResourceMemory)}
	}
	return t
}

// connect makes the tree, if it is not made, with the runtime's driver.
func (t *tree) connect(ctx context.Context) error {
	if t.made.Load() != nil {
		return nil
	}
	options := t.options
	driver, ok, err := t.runtime.CgroupDriver(ctx)
	if err != nil {
		return err
	}
	if ok {
		options.Driver = driver
	}
	made, err := cgroups.New(options)
	if err != nil {
		return err
	}
	if err := made.Setup(ctx); err != nil {
		return err
	}
	if err := t.enforce(ctx, made); err != nil {
		t.log.Warn("the limit of all pods together is not set yet (enforceNodeAllocatable); tried again as pods come and go", "error", err)
	}
	t.made.Store(made)
	return nil
}

// enforce limits all pods together. It fails while what runs already uses more
// than that, which is no reason to end anything (behaviour row 1.15-12).
func (t *tree) enforce(ctx context.Context, made *cgroups.Tree) error {
	if t.enforced.Load() {
		return nil
	}
	err := made.Enforce(ctx)
	t.enforced.Store(err == nil)
	return err
}

// Parent is the pod's cgroup, for CRI and for what the pod uses.
func (t *tree) Parent(p *v1.Pod) string {
	if made := t.made.Load(); made != nil {
		return made.Parent(p)
	}
	return ""
}

// Tiers implements stats.Places.
func (t *tree) Tiers() []string {
	if made := t.made.Load(); made != nil {
		return made.Tiers()
	}
	return nil
}

// took times an operation until its end.
func (t *tree) took(operation string) (end func()) {
	began := time.Now()
	return func() { t.metrics.Cgroup(operation, time.Since(began)) }
}

// Create implements syncloop.Cgroups.
func (t *tree) Create(ctx context.Context, p *v1.Pod) error {
	if made := t.made.Load(); made != nil {
		defer t.took("create")()
		return made.Create(ctx, p)
	}
	return errNoTree
}

// Grow implements syncloop.Cgroups.
func (t *tree) Grow(ctx context.Context, from, to *v1.Pod) error {
	if made := t.made.Load(); made != nil {
		defer t.took("create")()
		return made.Grow(ctx, from, to)
	}
	return errNoTree
}

// MemoryUsage implements syncloop.Cgroups.
func (t *tree) MemoryUsage(ctx context.Context, p *v1.Pod) (int64, error) {
	if made := t.made.Load(); made != nil {
		return made.MemoryUsage(ctx, p)
	}
	return 0, errNoTree
}

// Remove implements syncloop.Cgroups.
func (t *tree) Remove(ctx context.Context, uid types.UID) error {
	if made := t.made.Load(); made != nil {
		defer t.took("destroy")()
		return made.Remove(ctx, uid)
	}
	return errNoTree
}

// UpdateQoS implements syncloop.Cgroups.
func (t *tree) UpdateQoS(ctx context.Context, pods []*v1.Pod) error {
	if made := t.made.Load(); made != nil {
		defer t.took("update")()
		_ = t.enforce(ctx, made) // told when it failed first
		return made.UpdateQoS(ctx, pods)
	}
	return errNoTree
}
