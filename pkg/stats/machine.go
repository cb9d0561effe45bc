package stats

import (
	"bytes"
	"time"
)

// machine reads the root of the cgroups. What the kernel keeps only for cgroups
// below it stands in /proc.
func (s *Sampler) machine(r *reader, u *unit, d Depth) reading {
	got := s.one(r, u, Container{Kind: KindMachine, Cgroup: "/", Started: s.boot}, d)
	if len(got.containers) == 0 {
		return got
	}
	stats, spec := got.containers[0].Stats, got.containers[0].Spec
	var total, swapTotal, swapFree uint64
	for line := range bytes.Lines(r.bytes(cwd, "/proc/meminfo")) {
		fields := bytes.Fields(line) // MemTotal: 8058932 kB
		if len(fields) < 2 {
			continue
		}
		n, _ := parse(fields[1])
		switch string(fields[0]) {
		case "MemTotal:":
			total = n << 10
		case "SwapTotal:":
			swapTotal = n << 10
		case "SwapFree:":
			swapFree = n << 10
		}
	}
	spec.Memory.Limit, spec.Memory.SwapLimit = total, swapTotal
	if s.files.v2 { // the sum that v1 gives for its root
		stats.Memory.Usage = stats.Memory.RSS + stats.Memory.Cache
		stats.Memory.WorkingSet = less(stats.Memory.Usage, stats.Memory.TotalInactiveFile)
		stats.Memory.Swap = less(swapTotal, swapFree)
	}
	stats.Cpu.PSI = r.pressure(cwd, "/proc/pressure/cpu")
	stats.Memory.PSI = r.pressure(cwd, "/proc/pressure/memory")
	stats.DiskIo.PSI = r.pressure(cwd, "/proc/pressure/io")
	stats.Network = interfaces(r.bytes(cwd, "/proc/self/net/dev"))
	spec.HasNetwork = len(stats.Network.Interfaces) > 0
	if d == Full {
		stats.Filesystem = mounted(r)
		spec.HasFilesystem = true
		stats.Processes.Ulimits = r.openLimit("/proc/1/limits")
	}
	return got
}

// bootTime is when the machine was started.
func bootTime() time.Time {
	var r reader
	var at time.Time
	r.pairs(cwd, "/proc/stat", func(key []byte, n uint64) {
		if string(key) == "btime" {
			at = time.Unix(int64(n), 0)
		}
	})
	return at
}
