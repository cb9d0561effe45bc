package stats

import (
	"bytes"
	"path/filepath"
	"time"

	info "github.com/google/cadvisor/info/v1"
)

// hierarchies are where the kernel tells of cgroups.
type hierarchies struct {
	v2 bool
	// dir is the folder of a cgroup in a controller's hierarchy, "" if there is
	// none; of v2 any name gives the one there is.
	dir func(controller, cgroup string) string
}

// files are the paths of one cgroup's files.
type files struct {
	hierarchies
	cgroup string
}

func (f files) path(controller, name string) string {
	if f.v2 {
		return f.dir("", f.cgroup) + "/" + name
	}
	dir := f.dir(controller, f.cgroup)
	if dir == "" {
		return "/nonexistent" // as if the kernel had no such file
	}
	return dir + "/" + name
}

// usage reads what everybody asks for: CPU, memory, swap, processes, and the
// pressure where the kernel counts it by cgroup (v2). It says whether there is
// such a cgroup.
func (f files) usage(r *reader, spec *info.ContainerSpec, s *info.ContainerStats) bool {
	s.Timestamp = time.Now()
	if f.v2 {
		if !f.cpu2(r, s) {
			return false
		}
		s.Memory.Usage = r.number(f.path("memory", "memory.current"))
		s.Memory.Swap = r.number(f.path("memory", "memory.swap.current"))
		spec.Memory.Limit = r.number(f.path("memory", "memory.max"))
		spec.Memory.SwapLimit = r.number(f.path("memory", "memory.swap.max"))
		s.Cpu.PSI = r.pressure(f.path("cpu", "cpu.pressure"))
		s.Memory.PSI = r.pressure(f.path("memory", "memory.pressure"))
		s.DiskIo.PSI = r.pressure(f.path("io", "io.pressure"))
	} else {
		total, ok := r.given(f.path("cpuacct", "cpuacct.usage"))
		if !ok {
			return false
		}
		s.Cpu.Usage.Total = total
		s.Memory.Usage = r.number(f.path("memory", "memory.usage_in_bytes"))
		spec.Memory.Limit = r.number(f.path("memory", "memory.limit_in_bytes"))
		spec.Memory.SwapLimit = r.number(f.path("memory", "memory.memsw.limit_in_bytes"))
	}
	f.memory(r, &s.Memory)
	spec.HasCpu, spec.HasMemory, spec.HasDiskIo = true, true, true
	return true
}

// processes that are in this cgroup itself, and the first of them.
func (f files) processes(r *reader) (count uint64, first string) {
	list := r.bytes(f.path("cpu", "cgroup.procs"))
	line, _, _ := bytes.Cut(list, []byte("\n"))
	return uint64(bytes.Count(list, []byte("\n"))), string(line)
}

// memory reads memory.stat, whose names differ: v1 has a cgroup's own figures,
// and those with all below it as total_.
func (f files) memory(r *reader, m *info.MemoryStats) {
	r.pairs(f.path("memory", "memory.stat"), func(key []byte, n uint64) {
		switch string(key) {
		case "file", "total_cache":
			m.Cache = n
		case "anon", "total_rss":
			m.RSS = n
		case "total_swap":
			m.Swap = n
		case "file_mapped", "total_mapped_file":
			m.MappedFile = n
		case "pgfault":
			m.ContainerData.Pgfault = n
		case "pgmajfault":
			m.ContainerData.Pgmajfault = n
		case "total_pgfault":
			m.HierarchicalData.Pgfault = n
		case "total_pgmajfault":
			m.HierarchicalData.Pgmajfault = n
		case "total_inactive_file":
			m.TotalInactiveFile = n
		case "total_active_file":
			m.TotalActiveFile = n
		case "inactive_file":
			if f.v2 {
				m.TotalInactiveFile = n
			}
		case "active_file":
			if f.v2 {
				m.TotalActiveFile = n
			}
		case "kernel":
			m.KernelUsage = n
		}
	})
	if f.v2 {
		m.HierarchicalData.Pgfault, m.HierarchicalData.Pgmajfault = m.ContainerData.Pgfault, m.ContainerData.Pgmajfault
	}
	m.WorkingSet = less(m.Usage, m.TotalInactiveFile)
}

// cpu2 reads cpu.stat of v2, which has time and throttling in one.
func (f files) cpu2(r *reader, s *info.ContainerStats) (ok bool) {
	const us = uint64(time.Microsecond)
	r.pairs(f.path("cpu", "cpu.stat"), func(key []byte, n uint64) {
		ok = true
		switch string(key) {
		case "usage_usec":
			s.Cpu.Usage.Total = n * us
		case "user_usec":
			s.Cpu.Usage.User = n * us
		case "system_usec":
			s.Cpu.Usage.System = n * us
		case "nr_periods":
			s.Cpu.CFS.Periods = n
		case "nr_throttled":
			s.Cpu.CFS.ThrottledPeriods = n
		case "throttled_usec":
			s.Cpu.CFS.ThrottledTime = n * us
		case "nr_bursts":
			s.Cpu.CFS.BurstsPeriods = n
		case "burst_usec":
			s.Cpu.CFS.BurstTime = n * us
		}
	})
	return ok
}

// less is a-b, and never below nothing: the two were not read at one moment.
func less(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}

// began is about when the cgroup was made, which the kernel doesn't tell: its
// folders are as old as when somebody first looked.
func (f files) began(stat func(path string) (time.Time, error)) (oldest time.Time) {
	for _, controller := range []string{"cpu", "memory"} {
		path := filepath.Clean(f.path(controller, ""))
		if at, err := stat(path); err == nil && (oldest.IsZero() || at.Before(oldest)) {
			oldest = at
		}
	}
	return oldest
}
