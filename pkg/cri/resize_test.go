package cri

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// TestSwapLimit is of a node with 8 GiB of memory and 2 GiB of swap.
func TestSwapLimit(t *testing.T) {
	memory := func(request, limit string) v1.ResourceRequirements {
		r := v1.ResourceRequirements{Requests: v1.ResourceList{}, Limits: v1.ResourceList{}}
		if request != "" {
			r.Requests[v1.ResourceMemory] = resource.MustParse(request)
		}
		if limit != "" {
			r.Limits[v1.ResourceMemory] = resource.MustParse(limit)
		}
		return r
	}
	critical := int32(pod.SystemCritical)
	for _, tt := range []struct {
		name      string
		resources v1.ResourceRequirements
		none      bool // NoSwap
		v1        bool
		priority  *int32
		want      string // of memory.swap.max
	}{
		{name: "its share", resources: memory("1Gi", "2Gi"), want: "268435456"},
		{name: "its share, without a limit", resources: memory("2Gi", ""), want: "536870912"},
		{name: "NoSwap", resources: memory("1Gi", "2Gi"), none: true, want: "0"},
		{name: "request and limit are the same", resources: memory("1Gi", "1Gi"), want: "0"},
		{name: "best effort", want: "0"},
		{name: "critical", resources: memory("1Gi", "2Gi"), priority: &critical, want: "0"},
		{name: "more than the node has", resources: memory("9Gi", "10Gi"), want: "0"},
		{name: "cgroup v1", resources: memory("1Gi", "2Gi"), v1: true, want: ""},
	} {
		p := &v1.Pod{Spec: v1.PodSpec{Priority: tt.priority, Containers: []v1.Container{{Name: "main", Resources: tt.resources}}}}
		o := PodOptions{LimitedSwap: !tt.none, MemoryCapacity: 8 << 30, SwapCapacity: 2 << 30}
		r := containerResources(p, &p.Spec.Containers[0], Machine{CgroupV2: !tt.v1, Swap: true}, o)
		if got := r.Unified["memory.swap.max"]; got != tt.want {
			t.Errorf("%s: memory.swap.max is %q, want %q", tt.name, got, tt.want)
		}
		if tt.v1 && r.MemorySwapLimitInBytes != r.MemoryLimitInBytes {
			t.Errorf("%s: memory and swap together %d", tt.name, r.MemorySwapLimitInBytes)
		}
	}
}

// TestResourcesOf: what the kernel has is told in what it was asked for.
func TestResourcesOf(t *testing.T) {
	if has := resourcesOf(nil); has != nil {
		t.Errorf("a runtime that does not say: %+v", has)
	}
	for milli := int64(3); milli < 4000; milli++ {
		has := resourcesOf(&runtimeapi.LinuxContainerResources{CpuShares: shares(milli), CpuPeriod: 100000, CpuQuota: milli * 100})
		if got := has.CPULimit.MilliValue(); got != milli {
			t.Errorf("limit of %dm is told as %dm", milli, got)
		}
		if got := has.CPURequest.MilliValue(); got != milli {
			t.Errorf("request of %dm is told as %dm", milli, got)
		}
	}
}
