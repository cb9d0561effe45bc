package exposition

import (
	"strconv"
	"time"

	info "github.com/google/cadvisor/info/v1"

	"github.com/nodeagent/nodeagent/pkg/stats"
)

// The families of /metrics/cadvisor but for disks: those of cAdvisor's sets Cpu,
// CpuLoad, Memory, Network, Process, OOM and Pressure. The set CpuLoad is zero,
// as a kubelet's is: the figures would need a watch over every task.

// lastSeen is the time of the scrape itself.
const lastSeen = "container_last_seen"

// one makes a family with one series of each container.
func one(name, help string, kind kind, value func(*info.ContainerStats) float64) family {
	return family{
		head:  head{name: name, help: help, kind: kind},
		stats: func(r *rows, c *stats.Container) { r.add(value(c.Stats)) },
	}
}

// many makes a family with more labels.
func many(name, help string, kind kind, labels []string, values func(*rows, *info.ContainerStats)) family {
	return family{
		head:  head{name: name, help: help, kind: kind, labels: labels},
		stats: func(r *rows, c *stats.Container) { values(r, c.Stats) },
	}
}

func seconds(ns uint64) float64 { return float64(ns) / float64(time.Second) }

var wholeFamilies = []family{
	{
		head: head{name: "cadvisor_version_info", kind: gauge,
			help:   "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.",
			labels: []string{"kernelVersion", "osVersion", "dockerVersion", "cadvisorVersion", "cadvisorRevision"}},
		whole: func(r *rows, c *Cadvisor) {
			if v := c.Version; v != nil {
				r.add(1, v.KernelVersion, v.ContainerOsVersion, v.DockerVersion, v.CadvisorVersion, v.CadvisorRevision)
			}
		},
	},
	{
		head: head{name: "container_scrape_error", kind: gauge,
			help: "1 if there was an error while getting container metrics, 0 otherwise"},
		whole: func(r *rows, c *Cadvisor) { r.add(failed(c.Failed || c.Version == nil)) },
	},
	{
		head: head{name: "machine_scrape_error", kind: gauge,
			help: "1 if there was an error while getting machine metrics, 0 otherwise."},
		whole: func(r *rows, c *Cadvisor) { r.add(failed(c.Machine == nil)) },
	},
}

func failed(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func ofMachine(name, help string, values func(*rows, *info.MachineInfo), labels ...string) family {
	return family{head: head{name: name, help: help, kind: gauge, labels: labels}, machine: values}
}

var machineFamilies = []family{
	ofMachine("machine_cpu_physical_cores", "Number of physical CPU cores.",
		func(r *rows, m *info.MachineInfo) { r.add(float64(m.NumPhysicalCores)) }),
	ofMachine("machine_cpu_cores", "Number of logical CPU cores.",
		func(r *rows, m *info.MachineInfo) { r.add(float64(m.NumCores)) }),
	ofMachine("machine_cpu_sockets", "Number of CPU sockets.",
		func(r *rows, m *info.MachineInfo) { r.add(float64(m.NumSockets)) }),
	ofMachine("machine_cpu_books", "Number of CPU books.",
		func(r *rows, m *info.MachineInfo) { r.add(float64(m.NumBooks)) }),
	ofMachine("machine_cpu_drawers", "Number of CPU drawers.",
		func(r *rows, m *info.MachineInfo) { r.add(float64(m.NumDrawers)) }),
	ofMachine("machine_memory_bytes", "Amount of memory installed on the machine.",
		func(r *rows, m *info.MachineInfo) { r.add(float64(m.MemoryCapacity)) }),
	ofMachine("machine_swap_bytes", "Amount of swap memory available on the machine.",
		func(r *rows, m *info.MachineInfo) { r.add(float64(m.SwapCapacity)) }),
	ofMachine("machine_dimm_count", "Number of RAM DIMM (all types memory modules) value labeled by dimm type.",
		func(r *rows, m *info.MachineInfo) {
			for name, of := range m.MemoryByType {
				r.add(float64(of.DimmCount), name)
			}
		}, "type"),
	ofMachine("machine_dimm_capacity_bytes", "Total RAM DIMM capacity (all types memory modules) value labeled by dimm type.",
		func(r *rows, m *info.MachineInfo) {
			for name, of := range m.MemoryByType {
				r.add(float64(of.Capacity), name)
			}
		}, "type"),
	ofMachine("machine_nvm_capacity", "NVM capacity value labeled by NVM mode (memory mode or app direct mode).",
		func(r *rows, m *info.MachineInfo) {
			r.add(float64(m.NVMInfo.MemoryModeCapacity), "memory_mode")
			r.add(float64(m.NVMInfo.AppDirectModeCapacity), "app_direct_mode")
		}, "mode"),
	ofMachine("machine_nvm_avg_power_budget_watts", "NVM power budget.",
		func(r *rows, m *info.MachineInfo) { r.add(float64(m.NVMInfo.AvgPowerBudget)) }),
}

func ofSpec(name, help string, values func(*rows, *info.ContainerSpec)) family {
	return family{head: head{name: name, help: help, kind: gauge}, spec: values}
}

// memorySpec is for a bound on memory; 0 is none.
func memorySpec(name, help string, value func(*info.MemorySpec) uint64) family {
	return ofSpec(name, help, func(r *rows, s *info.ContainerSpec) {
		if !s.HasMemory {
			return
		}
		v := value(&s.Memory)
		if v >= stats.Unlimited {
			v = 0
		}
		r.add(float64(v))
	})
}

var specFamilies = []family{
	ofSpec("container_start_time_seconds", "Start time of the container since unix epoch in seconds.",
		func(r *rows, s *info.ContainerSpec) { r.add(float64(s.CreationTime.Unix())) }),
	ofSpec("container_spec_cpu_period", "CPU period of the container.",
		func(r *rows, s *info.ContainerSpec) {
			if s.HasCpu {
				r.add(float64(s.Cpu.Period))
			}
		}),
	ofSpec("container_spec_cpu_quota", "CPU quota of the container.",
		func(r *rows, s *info.ContainerSpec) {
			if s.HasCpu && s.Cpu.Quota != 0 {
				r.add(float64(s.Cpu.Quota))
			}
		}),
	ofSpec("container_spec_cpu_shares", "CPU share of the container.",
		func(r *rows, s *info.ContainerSpec) {
			if s.HasCpu {
				r.add(float64(s.Cpu.Limit))
			}
		}),
	memorySpec("container_spec_memory_limit_bytes", "Memory limit for the container.",
		func(m *info.MemorySpec) uint64 { return m.Limit }),
	memorySpec("container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.",
		func(m *info.MemorySpec) uint64 { return m.SwapLimit }),
	memorySpec("container_spec_memory_reservation_limit_bytes", "Memory reservation limit for the container.",
		func(m *info.MemorySpec) uint64 { return m.Reservation }),
}

// throttle is for what only a container with a CPU limit has.
func throttle(name, help string, value func(*info.CpuCFS) float64) family {
	return family{
		head: head{name: name, help: help, kind: counter},
		stats: func(r *rows, c *stats.Container) {
			if c.Spec.Cpu.Quota != 0 {
				r.add(value(&c.Stats.Cpu.CFS))
			}
		},
	}
}

var cpuFamilies = []family{
	one(lastSeen, "Last time a container was seen by the exporter", gauge, nil),
	one("container_health_state", "The result of the container's health check", gauge,
		func(s *info.ContainerStats) float64 {
			switch s.Health.Status {
			case "healthy":
				return 1
			case "": // it has none
				return -1
			}
			return 0
		}),
	one("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", counter,
		func(s *info.ContainerStats) float64 { return seconds(s.Cpu.Usage.User) }),
	one("container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", counter,
		func(s *info.ContainerStats) float64 { return seconds(s.Cpu.Usage.System) }),
	many("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", counter, []string{"cpu"}, cpuUsage),
	throttle("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.",
		func(c *info.CpuCFS) float64 { return float64(c.Periods) }),
	throttle("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.",
		func(c *info.CpuCFS) float64 { return float64(c.ThrottledPeriods) }),
	throttle("container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.",
		func(c *info.CpuCFS) float64 { return seconds(c.ThrottledTime) }),
	throttle("container_cpu_cfs_burst_periods_total", "Number of periods when burst occurs.",
		func(c *info.CpuCFS) float64 { return float64(c.BurstsPeriods) }),
	throttle("container_cpu_cfs_burst_seconds_total", "Total time duration the container has been bursted.",
		func(c *info.CpuCFS) float64 { return seconds(c.BurstTime) }),
	one("container_cpu_load_average_10s", "Value of container cpu load average over the last 10 seconds.", gauge,
		func(s *info.ContainerStats) float64 { return float64(s.Cpu.LoadAverage) }),
	one("container_cpu_load_d_average_10s", "Value of container cpu load.d average over the last 10 seconds.", gauge,
		func(s *info.ContainerStats) float64 { return float64(s.Cpu.LoadDAverage) }),
	many("container_tasks_state", "Number of tasks in given state", gauge, []string{"state"},
		func(r *rows, s *info.ContainerStats) {
			r.add(float64(s.TaskStats.NrSleeping), "sleeping")
			r.add(float64(s.TaskStats.NrRunning), "running")
			r.add(float64(s.TaskStats.NrStopped), "stopped")
			r.add(float64(s.TaskStats.NrUninterruptible), "uninterruptible")
			r.add(float64(s.TaskStats.NrIoWait), "iowaiting")
		}),
}

// cpuUsage is by CPU where a sample has that; CPUs that were not used have none.
func cpuUsage(r *rows, s *info.ContainerStats) {
	if len(s.Cpu.Usage.PerCpu) == 0 && s.Cpu.Usage.Total > 0 {
		r.add(seconds(s.Cpu.Usage.Total), "total")
	}
	for i, v := range s.Cpu.Usage.PerCpu {
		if v > 0 {
			name := strconv.Itoa(i)
			if i < 10 {
				name = "0" + name
			}
			r.add(seconds(v), "cpu"+name)
		}
	}
}

func memory(name, help string, kind kind, value func(*info.MemoryStats) uint64) family {
	return one(name, help, kind, func(s *info.ContainerStats) float64 { return float64(value(&s.Memory)) })
}

var memoryFamilies = []family{
	memory("container_memory_cache", "Number of bytes of page cache memory.", gauge,
		func(m *info.MemoryStats) uint64 { return m.Cache }),
	memory("container_memory_rss", "Size of RSS in bytes.", gauge,
		func(m *info.MemoryStats) uint64 { return m.RSS }),
	memory("container_memory_kernel_usage", "Size of kernel memory allocated in bytes.", gauge,
		func(m *info.MemoryStats) uint64 { return m.KernelUsage }),
	memory("container_memory_mapped_file", "Size of memory mapped files in bytes.", gauge,
		func(m *info.MemoryStats) uint64 { return m.MappedFile }),
	memory("container_memory_swap", "Container swap usage in bytes.", gauge,
		func(m *info.MemoryStats) uint64 { return m.Swap }),
	memory("container_memory_failcnt", "Number of memory usage hits limits", counter,
		func(m *info.MemoryStats) uint64 { return m.Failcnt }),
	memory("container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", gauge,
		func(m *info.MemoryStats) uint64 { return m.Usage }),
	memory("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", gauge,
		func(m *info.MemoryStats) uint64 { return m.MaxUsage }),
	memory("container_memory_working_set_bytes", "Current working set in bytes.", gauge,
		func(m *info.MemoryStats) uint64 { return m.WorkingSet }),
	memory("container_memory_total_active_file_bytes", "Current total active file in bytes.", gauge,
		func(m *info.MemoryStats) uint64 { return m.TotalActiveFile }),
	memory("container_memory_total_inactive_file_bytes", "Current total inactive file in bytes.", gauge,
		func(m *info.MemoryStats) uint64 { return m.TotalInactiveFile }),
	many("container_memory_failures_total", "Cumulative count of memory allocation failures.", counter,
		[]string{"failure_type", "scope"}, func(r *rows, s *info.ContainerStats) {
			r.add(float64(s.Memory.ContainerData.Pgfault), "pgfault", "container")
			r.add(float64(s.Memory.ContainerData.Pgmajfault), "pgmajfault", "container")
			r.add(float64(s.Memory.HierarchicalData.Pgfault), "pgfault", "hierarchy")
			r.add(float64(s.Memory.HierarchicalData.Pgmajfault), "pgmajfault", "hierarchy")
		}),
	one("container_oom_events_total", "Count of out of memory events observed for the container", counter,
		func(s *info.ContainerStats) float64 { return float64(s.OOMEvents) }),
}

// network is for what an interface did. A pod's network is its sandbox's: with the
// pod's own cgroup, which /stats/summary tells it of, it would be there twice.
func network(name, help string, value func(*info.InterfaceStats) uint64) family {
	return family{
		head: head{name: name, help: help, kind: counter, labels: []string{"interface"}},
		stats: func(r *rows, c *stats.Container) {
			for i := range c.Stats.Network.Interfaces {
				if of := &c.Stats.Network.Interfaces[i]; c.Kind != stats.KindPod {
					r.add(float64(value(of)), of.Name)
				}
			}
		},
	}
}

var networkFamilies = []family{
	network("container_network_receive_bytes_total", "Cumulative count of bytes received",
		func(i *info.InterfaceStats) uint64 { return i.RxBytes }),
	network("container_network_receive_packets_total", "Cumulative count of packets received",
		func(i *info.InterfaceStats) uint64 { return i.RxPackets }),
	network("container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving",
		func(i *info.InterfaceStats) uint64 { return i.RxDropped }),
	network("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving",
		func(i *info.InterfaceStats) uint64 { return i.RxErrors }),
	network("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted",
		func(i *info.InterfaceStats) uint64 { return i.TxBytes }),
	network("container_network_transmit_packets_total", "Cumulative count of packets transmitted",
		func(i *info.InterfaceStats) uint64 { return i.TxPackets }),
	network("container_network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting",
		func(i *info.InterfaceStats) uint64 { return i.TxDropped }),
	network("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting",
		func(i *info.InterfaceStats) uint64 { return i.TxErrors }),
}

func process(name, help string, value func(*info.ProcessStats) uint64) family {
	return one(name, help, gauge, func(s *info.ContainerStats) float64 { return float64(value(&s.Processes)) })
}

var processFamilies = []family{
	process("container_processes", "Number of processes running inside the container.",
		func(p *info.ProcessStats) uint64 { return p.ProcessCount }),
	process("container_file_descriptors", "Number of open file descriptors for the container.",
		func(p *info.ProcessStats) uint64 { return p.FdCount }),
	process("container_sockets", "Number of open sockets for the container.",
		func(p *info.ProcessStats) uint64 { return p.SocketCount }),
	process("container_threads_max", "Maximum number of threads allowed inside the container, infinity if value is zero",
		func(p *info.ProcessStats) uint64 { return p.ThreadsMax }),
	process("container_threads", "Number of threads running inside the container",
		func(p *info.ProcessStats) uint64 { return p.ThreadsCurrent }),
	many("container_ulimits_soft", "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice", gauge,
		[]string{"ulimit"}, func(r *rows, s *info.ContainerStats) {
			for _, u := range s.Processes.Ulimits {
				r.add(float64(u.SoftLimit), u.Name)
			}
		}),
}

func pressure(name, help string, total func(*info.ContainerStats) uint64) family {
	const microsecond = 1e6
	f := one(name, help, counter, func(s *info.ContainerStats) float64 { return float64(total(s)) / microsecond })
	f.pressure = true
	return f
}

var pressureFamilies = []family{
	pressure("container_pressure_cpu_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to CPU congestion.",
		func(s *info.ContainerStats) uint64 { return s.Cpu.PSI.Full.Total }),
	pressure("container_pressure_cpu_waiting_seconds_total", "Total time duration tasks in the container have waited due to CPU congestion.",
		func(s *info.ContainerStats) uint64 { return s.Cpu.PSI.Some.Total }),
	pressure("container_pressure_memory_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to memory congestion.",
		func(s *info.ContainerStats) uint64 { return s.Memory.PSI.Full.Total }),
	pressure("container_pressure_memory_waiting_seconds_total", "Total time duration tasks in the container have waited due to memory congestion.",
		func(s *info.ContainerStats) uint64 { return s.Memory.PSI.Some.Total }),
	pressure("container_pressure_io_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to IO congestion.",
		func(s *info.ContainerStats) uint64 { return s.DiskIo.PSI.Full.Total }),
	pressure("container_pressure_io_waiting_seconds_total", "Total time duration tasks in the container have waited due to IO congestion.",
		func(s *info.ContainerStats) uint64 { return s.DiskIo.PSI.Some.Total }),
}
