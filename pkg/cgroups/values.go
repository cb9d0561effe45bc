package cgroups

import (
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// The kernel's bounds of cpu.shares and of a quota.
const (
	minShares = 2
	maxShares = 262144
	minQuota  = 1000 // µs
	// unlimited is what the peer writes for huge pages without a limit.
	unlimited = 1 << 62
)

// Values are what a pod's cgroup is set to. A zero is left as the kernel has it.
type Values struct {
	Shares uint64 // cpu.shares; on v2 they become cpu.weight
	Quota  int64  // µs of CPU time in each Period; -1 for no limit
	Period uint64 // µs
	Memory int64  // bytes
	// HugePages is the limit by page size, both in bytes.
	HugePages map[int64]int64
}

// ResourceConfig are the values of a pod's cgroup (behaviour rows 1.15-5,
// 1.15-8): its requests summed up as CPU shares, and its limits where every
// container has one or the pod itself. With quota false, CPU limits are not
// enforced (cpuCFSQuota).
func ResourceConfig(p *v1.Pod, quota bool, period time.Duration) Values {
	requests := resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})
	allCPU, allMemory := true, true
	limits := resourcehelper.PodLimits(p, resourcehelper.PodResourcesOptions{
		ContainerFn: func(r v1.ResourceList, _ resourcehelper.ContainerType) {
			allCPU = allCPU && !r.Cpu().IsZero()
			allMemory = allMemory && !r.Memory().IsZero()
		},
	})
	if p.Spec.Resources != nil {
		allCPU = allCPU || !p.Spec.Resources.Limits.Cpu().IsZero()
		allMemory = allMemory || !p.Spec.Resources.Limits.Memory().IsZero()
	}
	v := Values{Shares: shares(requests.Cpu().MilliValue()), HugePages: hugePages(requests)}
	switch pod.QoS(p) {
	case v1.PodQOSBestEffort:
		v.Shares = minShares
		return v
	case v1.PodQOSGuaranteed:
		allCPU, allMemory = true, true
	}
	if allCPU {
		v.Period = uint64(period.Microseconds())
		v.Quota = -1
		if quota {
			v.Quota = cpuQuota(limits.Cpu().MilliValue(), int64(v.Period))
		}
	}
	if allMemory {
		v.Memory = limits.Memory().Value()
	}
	return v
}

func shares(milliCPU int64) uint64 {
	return uint64(min(max(milliCPU*1024/1000, minShares), maxShares))
}

// weight is cpu.weight for cpu.shares, linear as the peer writes it for the
// cgroups that it makes itself. Runtimes use another curve for those of
// containers; the two never are siblings.
func weight(shares uint64) uint64 {
	return 1 + (shares-minShares)*9999/(maxShares-minShares)
}

func cpuQuota(milliCPU, period int64) int64 {
	if milliCPU == 0 {
		return 0
	}
	return max(milliCPU*period/1000, minQuota)
}

func hugePages(requests v1.ResourceList) map[int64]int64 {
	limits := map[int64]int64{}
	for name, q := range requests {
		size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix)
		if !ok {
			continue
		}
		if page, err := resource.ParseQuantity(size); err == nil { // validated with the pod
			limits[page.Value()] += q.Value()
		}
	}
	return limits
}

// hugetlb is the limit for each page size that the kernel has.
func hugetlb(limit func(page int64) int64) []*cgroups.HugepageLimit {
	var limits []*cgroups.HugepageLimit
	for _, name := range cgroups.HugePageSizes() { // 2MB, 1GB
		page, err := resource.ParseQuantity(strings.TrimSuffix(name, "B") + "i")
		if err != nil {
			continue // a name that the kernel doesn't use today
		}
		limits = append(limits, &cgroups.HugepageLimit{Pagesize: name, Limit: uint64(limit(page.Value()))})
	}
	return limits
}
