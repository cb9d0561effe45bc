package stats

import (
	info "github.com/google/cadvisor/info/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// Unlimited is from where a limit is none: the kernel rounds the greatest there
// is.
const Unlimited = 1 << 62

func cpuStats(c Container) *statsapi.CPUStats {
	return &statsapi.CPUStats{
		Time: metav1.NewTime(c.Stats.Timestamp), UsageNanoCores: c.NanoCores,
		UsageCoreNanoSeconds: &c.Stats.Cpu.Usage.Total, PSI: pressure(&c.Stats.Cpu.PSI),
	}
}

func memoryStats(c Container) *statsapi.MemoryStats {
	m := &c.Stats.Memory
	out := &statsapi.MemoryStats{
		Time: metav1.NewTime(c.Stats.Timestamp), UsageBytes: &m.Usage, WorkingSetBytes: &m.WorkingSet, RSSBytes: &m.RSS,
		PageFaults: &m.HierarchicalData.Pgfault, MajorPageFaults: &m.HierarchicalData.Pgmajfault, PSI: pressure(&m.PSI),
	}
	if c.Spec.Memory.Limit < Unlimited {
		available := less(c.Spec.Memory.Limit, m.WorkingSet)
		out.AvailableBytes = &available
	}
	return out
}

func swapStats(c Container) *statsapi.SwapStats {
	out := &statsapi.SwapStats{Time: metav1.NewTime(c.Stats.Timestamp), SwapUsageBytes: &c.Stats.Memory.Swap}
	if c.Spec.Memory.SwapLimit < Unlimited {
		available := less(c.Spec.Memory.SwapLimit, c.Stats.Memory.Swap)
		out.SwapAvailableBytes = &available
	}
	return out
}

func ioStats(c Container) *statsapi.IOStats {
	return &statsapi.IOStats{Time: metav1.NewTime(c.Stats.Timestamp), PSI: pressure(&c.Stats.DiskIo.PSI)}
}

// pressure has all zeros where the kernel doesn't count it (v1), as a kubelet
// tells it.
func pressure(p *info.PSIStats) *statsapi.PSIStats {
	data := func(d info.PSIData) statsapi.PSIData {
		return statsapi.PSIData{Total: d.Total, Avg10: d.Avg10, Avg60: d.Avg60, Avg300: d.Avg300}
	}
	return &statsapi.PSIStats{Full: data(p.Full), Some: data(p.Some)}
}

// networkStats is nil of what has no interfaces of its own. What stands for all is
// eth0.
func networkStats(c Container) *statsapi.NetworkStats {
	if len(c.Stats.Network.Interfaces) == 0 {
		return nil
	}
	out := &statsapi.NetworkStats{Time: metav1.NewTime(c.Stats.Timestamp)}
	for i := range c.Stats.Network.Interfaces {
		n := &c.Stats.Network.Interfaces[i]
		one := statsapi.InterfaceStats{Name: n.Name, RxBytes: &n.RxBytes, RxErrors: &n.RxErrors, TxBytes: &n.TxBytes, TxErrors: &n.TxErrors}
		if n.Name == "eth0" {
			out.InterfaceStats = one
		}
		out.Interfaces = append(out.Interfaces, one)
	}
	return out
}

// sampled is what the runtime says of a container whose cgroup is not on this
// machine (a virtual one) or not where it should be, as if it had been sampled.
func sampled(c Container, u cri.Usage) Container {
	c.Spec, c.Stats = &info.ContainerSpec{CreationTime: c.Started, HasCpu: true, HasMemory: true}, &info.ContainerStats{Timestamp: u.At}
	c.Spec.Memory.Limit, c.Spec.Memory.SwapLimit = 1<<64-1, 1<<64-1
	c.Stats.Cpu.Usage.Total = u.CPU
	m := &c.Stats.Memory
	m.Usage, m.WorkingSet, m.RSS, m.Swap = u.Memory, u.WorkingSet, u.RSS, u.Swap
	m.HierarchicalData = info.MemoryStatsMemoryData{Pgfault: u.PageFaults, Pgmajfault: u.MajorPageFaults}
	m.ContainerData = m.HierarchicalData
	return c
}
