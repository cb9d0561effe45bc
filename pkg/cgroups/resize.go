package cgroups

import (
	"context"
	"fmt"

	"github.com/opencontainers/cgroups"
	v1 "k8s.io/api/core/v1"
)

// Grow makes the pod's cgroup as Create does, with the greater of the values of
// from and to, which differ in their resources only: while a pod is resized the
// limits of its containers must fit in, those before as those after.
func (t *Tree) Grow(ctx context.Context, from, to *v1.Pod) error {
	if !t.opts.PerQoS {
		return nil
	}
	config := func(p *v1.Pod) Values { return ResourceConfig(p, t.opts.CFSQuota, t.opts.CFSPeriod) }
	return t.create(ctx, to, greater(config(from), config(to)))
}

// greater is the greater of each value. No limit is the greatest of limits; as
// it is written as none, what the cgroup has is left.
func greater(a, b Values) Values {
	out := b
	out.Shares = max(a.Shares, b.Shares)
	switch {
	case a.Quota == 0 || b.Quota == 0:
		out.Quota, out.Period = 0, 0
	case a.Quota == -1 || b.Quota == -1:
		out.Quota = -1
	default:
		out.Quota = max(a.Quota, b.Quota)
	}
	if out.Memory = max(a.Memory, b.Memory); a.Memory == 0 || b.Memory == 0 {
		out.Memory = 0
	}
	return out
}

// MemoryUsage of the pod's cgroup in bytes, caches included. Without a cgroup of
// its own it is 0.
func (t *Tree) MemoryUsage(ctx context.Context, p *v1.Pod) (int64, error) {
	if !t.opts.PerQoS {
		return 0, nil
	}
	found := make(chan int64, 1)
	err := within(ctx, func() error {
		m, err := t.manager(t.Parent(p), &cgroups.Resources{})
		if err != nil {
			return err
		}
		stats, err := m.GetStats()
		if err != nil {
			return err
		}
		found <- int64(stats.MemoryStats.Usage.Usage)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read stats of cgroup %s: %w", t.Parent(p), err)
	}
	return <-found, nil
}
