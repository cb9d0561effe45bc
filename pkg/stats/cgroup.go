package stats

import (
	"bytes"
	"time"

	info "github.com/google/cadvisor/info/v1"
	"golang.org/x/sys/unix"
)

// hierarchies are where the kernel tells of cgroups.
type hierarchies struct {
	v2 bool
	// dir is the folder of a cgroup in a controller's hierarchy, "" if there is
	// none; v2 has one hierarchy, of the name "".
	dir func(controller, cgroup string) string
}

// folder of the cgroup in the controller's hierarchy, "" if there is none.
func (h hierarchies) folder(controller, cgroup string) string {
	if h.v2 {
		controller = ""
	}
	return h.dir(controller, cgroup)
}

// files are those of one cgroup. Its folders are opened once, to be closed in the
// end: a file is then found in half the time.
type files struct {
	hierarchies
	cgroup string
	open   []folder
}

type folder struct {
	controller string
	fd         int // none if it isn't there
}

// in is the folder of the cgroup in the controller's hierarchy.
func (f *files) in(r *reader, controller string) int {
	if f.v2 {
		controller = ""
	}
	for _, o := range f.open {
		if o.controller == controller {
			return o.fd
		}
	}
	o := folder{controller, none}
	if dir := f.dir(controller, f.cgroup); dir != "" {
		o.fd = r.folder(dir)
	}
	f.open = append(f.open, o)
	return o.fd
}

func (f *files) close() {
	for _, o := range f.open {
		if o.fd != none {
			_ = unix.Close(o.fd) // opened to find files in it: nothing to lose
		}
	}
	f.open = f.open[:0]
}

// usage reads what changes first: CPU time, memory, and on v2 swap and the pressure,
// which the kernel counts by cgroup there. It says whether there is such a cgroup.
func (f *files) usage(r *reader, s *info.ContainerStats) bool {
	s.Timestamp = time.Now()
	if f.v2 {
		if !f.cpu2(r, s) {
			return false
		}
		s.Memory.Usage = r.number(f.in(r, "memory"), "memory.current")
		s.Memory.Swap = r.number(f.in(r, "memory"), "memory.swap.current")
		s.Cpu.PSI = r.pressure(f.in(r, "cpu"), "cpu.pressure")
		s.Memory.PSI = r.pressure(f.in(r, "memory"), "memory.pressure")
		s.DiskIo.PSI = r.pressure(f.in(r, "io"), "io.pressure")
	} else {
		total, ok := r.given(f.in(r, "cpuacct"), "cpuacct.usage")
		if !ok {
			return false
		}
		s.Cpu.Usage.Total = total
		s.Memory.Usage = r.number(f.in(r, "memory"), "memory.usage_in_bytes")
	}
	return true
}

// limits reads what the cgroup is held to: its memory, with Full all else, and the
// descriptors it holds.
func (f *files) limits(r *reader, l *limits, d Depth) {
	memory, spec := f.in(r, "memory"), &l.spec
	if f.v2 {
		spec.Memory.Limit, spec.Memory.SwapLimit = r.number(memory, "memory.max"), r.number(memory, "memory.swap.max")
	} else {
		spec.Memory.Limit, spec.Memory.SwapLimit = r.number(memory, "memory.limit_in_bytes"), r.number(memory, "memory.memsw.limit_in_bytes")
	}
	spec.HasCpu, spec.HasMemory, spec.HasDiskIo = true, true, true
	if d < Full {
		return
	}
	f.allLimits(r, spec)
	f.held(r, &l.holds)
	if spec.Processes.Limit < Unlimited {
		l.holds.ThreadsMax = spec.Processes.Limit // without one it is 0
	}
}

// processes that are in this cgroup itself, and the first of them.
func (f *files) processes(r *reader) (count uint64, first string) {
	list := r.bytes(f.in(r, "cpu"), "cgroup.procs")
	line, _, _ := bytes.Cut(list, []byte("\n"))
	return uint64(bytes.Count(list, []byte("\n"))), string(line)
}

// memory reads memory.stat, whose names differ: v1 has a cgroup's own figures,
// and those with all below it as total_.
func (f *files) memory(r *reader, m *info.MemoryStats) {
	r.pairs(f.in(r, "memory"), "memory.stat", func(key []byte, n uint64) {
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
func (f *files) cpu2(r *reader, s *info.ContainerStats) (ok bool) {
	const us = uint64(time.Microsecond)
	r.pairs(f.in(r, "cpu"), "cpu.stat", func(key []byte, n uint64) {
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
