package cri

import (
	"fmt"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	podresources "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Bounds of the kernel's cpu.shares and of cpu.cfs_quota_us (behaviour row
// 1.15-5).
const (
	minShares = 2
	maxShares = 262144
	minQuota  = 1000 // µs
)

// oom_score_adj by class (behaviour row 1.15-13).
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
)

func shares(milli int64) int64 {
	return min(max(milli*1024/1000, minShares), maxShares)
}

func quota(milli int64, period time.Duration) int64 {
	if milli == 0 {
		return 0
	}
	return max(milli*period.Microseconds()/1000, minQuota)
}

// linuxResources turns cpu and memory into CRI's form. A nil request means
// that of the limit.
func linuxResources(request, limit, memory *resource.Quantity, m Machine, o PodOptions) *runtimeapi.LinuxContainerResources {
	if request == nil {
		request = limit
	}
	r := &runtimeapi.LinuxContainerResources{
		CpuShares:          shares(request.MilliValue()),
		MemoryLimitInBytes: memory.Value(),
	}
	if o.CPUCFSQuota {
		r.CpuPeriod = o.CPUCFSQuotaPeriod.Microseconds()
		r.CpuQuota = quota(limit.MilliValue(), o.CPUCFSQuotaPeriod)
	}
	if m.CgroupV2 && !o.SingleProcessOOMKill {
		r.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return r
}

// containerResources is what the container asks for and may use (behaviour
// rows 1.9-11, 1.9-12).
func containerResources(p *v1.Pod, c *v1.Container, m Machine, o PodOptions) *runtimeapi.LinuxContainerResources {
	limits := effectiveLimits(p, c)
	r := linuxResources(cpuRequest(c.Resources.Requests), limits.Cpu(), limits.Memory(), m, o)
	r.OomScoreAdj = oomScoreAdj(p, c, o.MemoryCapacity)
	r.HugepageLimits = hugepages(p, c, m.HugePageSizes)
	if !m.Swap {
		return r
	}
	if !m.CgroupV2 {
		// The limit is of memory and swap together.
		r.MemorySwapLimitInBytes = r.MemoryLimitInBytes
		return r
	}
	if r.Unified == nil {
		r.Unified = map[string]string{}
	}
	r.Unified["memory.swap.max"] = strconv.FormatInt(swapLimit(p, c, o), 10)
	return r
}

// swapLimit is how many bytes of swap the container may use: the share of the
// node's that its memory request is of the node's memory (behaviour row 1.9-12).
func swapLimit(p *v1.Pod, c *v1.Container, o PodOptions) int64 {
	request := c.Resources.Requests.Memory().Value()
	if !o.LimitedSwap || !pod.MaySwap(p, c) || o.MemoryCapacity <= 0 || request > o.MemoryCapacity {
		return 0
	}
	return int64(float64(request) / float64(o.MemoryCapacity) * float64(o.SwapCapacity))
}

// effectiveLimits are the container's limits of cpu and memory, or the pod's
// where the container has none.
func effectiveLimits(p *v1.Pod, c *v1.Container) v1.ResourceList {
	out := v1.ResourceList{v1.ResourceCPU: *c.Resources.Limits.Cpu(), v1.ResourceMemory: *c.Resources.Limits.Memory()}
	if !podresources.IsPodLevelResourcesSet(p) {
		return out
	}
	for name, q := range out {
		if q.IsZero() {
			out[name] = p.Spec.Resources.Limits[name]
		}
	}
	return out
}

func cpuRequest(requests v1.ResourceList) *resource.Quantity {
	if q, ok := requests[v1.ResourceCPU]; ok {
		return &q
	}
	return nil
}

func sandboxResources(p *v1.Pod, m Machine, o PodOptions) *runtimeapi.LinuxContainerResources {
	without := podresources.PodResourcesOptions{ExcludeOverhead: true}
	limits := podresources.PodLimits(p, without)
	return linuxResources(cpuRequest(podresources.PodRequests(p, without)), limits.Cpu(), limits.Memory(), m, o)
}

func overhead(p *v1.Pod, m Machine, o PodOptions) *runtimeapi.LinuxContainerResources {
	if p.Spec.Overhead == nil {
		return &runtimeapi.LinuxContainerResources{}
	}
	cpu := p.Spec.Overhead.Cpu()
	return linuxResources(cpu, cpu, p.Spec.Overhead.Memory(), m, o)
}

// hugepages limits every page size the machine has, to 0 unless asked for.
func hugepages(p *v1.Pod, c *v1.Container, sizes []string) []*runtimeapi.HugepageLimit {
	wanted := map[string]uint64{}
	add := func(limits v1.ResourceList) {
		for name, q := range limits {
			if size, ok := pageSize(name); ok {
				wanted[size] = uint64(q.Value())
			}
		}
	}
	if podresources.IsPodLevelResourcesSet(p) {
		add(p.Spec.Resources.Limits)
	}
	add(c.Resources.Limits)
	var out []*runtimeapi.HugepageLimit
	for _, size := range sizes {
		out = append(out, &runtimeapi.HugepageLimit{PageSize: size, Limit: wanted[size]})
	}
	return out
}

// pageSize is the kernel's name of the page size of resource hugepages-2Mi:
// 2MB.
func pageSize(name v1.ResourceName) (string, bool) {
	const prefix = v1.ResourceHugePagesPrefix
	if len(name) <= len(prefix) || name[:len(prefix)] != prefix {
		return "", false
	}
	q, err := resource.ParseQuantity(string(name[len(prefix):]))
	if err != nil {
		return "", false
	}
	n := q.Value()
	units := []string{"B", "KB", "MB", "GB", "TB", "PB"}
	for n%1024 == 0 && n > 0 && len(units) > 1 {
		n /= 1024
		units = units[1:]
	}
	return fmt.Sprintf("%d%s", n, units[0]), true
}

// oomScoreAdj says whom the kernel kills first when the node's memory is
// used up (behaviour row 1.15-13). capacity is the node's memory in bytes.
func oomScoreAdj(p *v1.Pod, c *v1.Container, capacity int64) int64 {
	if p.Spec.PriorityClassName == "system-node-critical" && pod.IsCritical(p) {
		return oomGuaranteed
	}
	switch pod.QoS(p) {
	case v1.PodQOSGuaranteed:
		return oomGuaranteed
	case v1.PodQOSBestEffort:
		return oomBestEffort
	}
	if capacity <= 0 {
		return oomBestEffort - 1
	}
	share := podLevelShare(p)
	request := c.Resources.Requests.Memory().Value() + share
	adj := 1000 - 1000*request/capacity
	if sidecar(p, c) {
		// A sidecar must not be killed before the containers it serves.
		least := p.Spec.Containers[0].Resources.Requests.Memory().Value()
		for _, main := range p.Spec.Containers[1:] {
			least = min(least, main.Resources.Requests.Memory().Value())
		}
		adj = min(adj, 1000-1000*(least+share)/capacity)
	}
	return min(max(adj, 1000+oomGuaranteed), oomBestEffort-1)
}

// podLevelShare is what the pod requests beyond its containers, divided among
// them.
func podLevelShare(p *v1.Pod) int64 {
	if !podresources.IsPodLevelRequestsSet(p) || p.Spec.Resources.Requests.Memory().IsZero() {
		return 0
	}
	of := podresources.AggregateContainerRequests(p, podresources.PodResourcesOptions{})
	rest := p.Spec.Resources.Requests.Memory().Value() - of.Memory().Value()
	return rest / int64(len(p.Spec.Containers)+len(p.Spec.InitContainers))
}

func sidecar(p *v1.Pod, c *v1.Container) bool {
	if !pod.IsSidecar(c) || len(p.Spec.Containers) == 0 {
		return false
	}
	for i := range p.Spec.InitContainers {
		if p.Spec.InitContainers[i].Name == c.Name {
			return true
		}
	}
	return false
}
