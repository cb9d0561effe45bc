package cri

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Update gives a running instance the resources of its container's spec
// (CRI UpdateContainerResources).
func (c *Client) Update(ctx context.Context, p *v1.Pod, container, id string) error {
	spec, err := containerNamed(p, container)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	_, err = c.runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: id, Linux: containerResources(p, spec, c.machine, c.opts.Pods)})
	return done("update resources of container "+container, err)
}

// Swaps says that some containers may use swap: LimitedSwap is configured, and
// the machine can do so.
func (c *Client) Swaps() bool {
	return c.opts.Pods.LimitedSwap && c.machine.CgroupV2 && c.machine.Swap
}

// MemoryUsage is what the container uses in bytes, caches included.
func (c *Client) MemoryUsage(ctx context.Context, id string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	r, err := c.runtime.ContainerStats(ctx, &runtimeapi.ContainerStatsRequest{ContainerId: id})
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, failed("", "read stats of container "+id, err)
	}
	used := r.GetStats().GetMemory()
	switch {
	case used.GetUsageBytes() != nil:
		return int64(used.UsageBytes.Value), nil
	case used.GetWorkingSetBytes() != nil: // containerd 1.6 says no more
		return int64(used.WorkingSetBytes.Value), nil
	}
	return 0, fmt.Errorf("read stats of container %s: %w", id, errors.New("the runtime does not say how much memory it uses"))
}

// resourcesOf is what the runtime says that an instance has; nil when it does
// not, as containerd 1.6 (behaviour row 1.3-25).
func resourcesOf(r *runtimeapi.LinuxContainerResources) *pod.Has {
	has := &pod.Has{}
	if r.GetCpuPeriod() > 0 && r.CpuQuota > 0 {
		has.CPULimit = resource.NewMilliQuantity(r.CpuQuota*1000/r.CpuPeriod, resource.DecimalSI)
	}
	if r.GetCpuShares() >= minShares {
		has.CPURequest = resource.NewMilliQuantity((r.CpuShares*1000+1023)/1024, resource.DecimalSI)
	}
	if r.GetMemoryLimitInBytes() > 0 {
		has.MemoryLimit = resource.NewQuantity(r.MemoryLimitInBytes, resource.BinarySI)
	}
	if *has == (pod.Has{}) {
		return nil
	}
	return has
}
