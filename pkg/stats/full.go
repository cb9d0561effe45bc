package stats

import (
	"bytes"
	"strings"
	"time"

	info "github.com/google/cadvisor/info/v1"
)

// allLimits reads what beyond memory a cgroup is held to.
func (f *files) allLimits(r *reader, spec *info.ContainerSpec) {
	cpu, memory := f.in(r, "cpu"), f.in(r, "memory")
	spec.Processes.Limit, spec.HasProcesses = r.number(f.in(r, "pids"), "pids.max"), true
	if !f.v2 {
		spec.Memory.Reservation = r.number(memory, "memory.soft_limit_in_bytes")
		spec.Cpu.Limit, spec.Cpu.Period = r.number(cpu, "cpu.shares"), r.number(cpu, "cpu.cfs_period_us")
		spec.Cpu.Quota, _ = parse(bytes.TrimSpace(r.bytes(cpu, "cpu.cfs_quota_us"))) // -1 is none
		return
	}
	spec.Memory.Reservation = r.number(memory, "memory.min")
	if weight := r.number(cpu, "cpu.weight"); weight > 0 {
		spec.Cpu.Limit = 2 + (weight-1)*262142/9999 // as the shares of v1
	}
	quota, period, _ := bytes.Cut(bytes.TrimSpace(r.bytes(cpu, "cpu.max")), []byte(" "))
	spec.Cpu.Period, _ = parse(period)
	if n, ok := parse(quota); ok && string(quota) != "max" {
		spec.Cpu.Quota = n
	}
}

// rest reads what only /metrics/cadvisor tells, but for disks.
func (f *files) rest(r *reader, s *info.ContainerStats) {
	if f.v2 {
		f.rest2(r, s)
	} else {
		f.rest1(r, s)
	}
	s.Processes.ThreadsCurrent = r.number(f.in(r, "pids"), "pids.current")
}

// disks reads the traffic with disks.
func (f *files) disks(r *reader, io *info.DiskIoStats) {
	if f.v2 {
		disks2(r.bytes(f.in(r, "io"), "io.stat"), io)
	} else {
		io.IoServiceBytes = disks1(r.bytes(f.in(r, "blkio"), "blkio.throttle.io_service_bytes_recursive"))
		io.IoServiced = disks1(r.bytes(f.in(r, "blkio"), "blkio.throttle.io_serviced_recursive"))
	}
	for _, disks := range [][]info.PerDiskStats{io.IoServiceBytes, io.IoServiced, io.IoCostUsage, io.IoCostWait, io.IoCostIndebt, io.IoCostIndelay} {
		r.name(disks)
	}
}

func (f *files) rest2(r *reader, s *info.ContainerStats) {
	s.Memory.MaxUsage = r.number(f.in(r, "memory"), "memory.peak")
	r.pairs(f.in(r, "memory"), "memory.events", func(key []byte, n uint64) {
		switch string(key) {
		case "max":
			s.Memory.Failcnt = n
		case "oom_kill":
			s.OOMEvents = n
		}
	})
}

// ticks a second, in which v1 counts user and system time.
const ticks = 100

func (f *files) rest1(r *reader, s *info.ContainerStats) {
	r.pairs(f.in(r, "cpuacct"), "cpuacct.stat", func(key []byte, n uint64) {
		switch string(key) {
		case "user":
			s.Cpu.Usage.User = n * uint64(time.Second/ticks)
		case "system":
			s.Cpu.Usage.System = n * uint64(time.Second/ticks)
		}
	})
	r.pairs(f.in(r, "cpu"), "cpu.stat", func(key []byte, n uint64) {
		switch string(key) {
		case "nr_periods":
			s.Cpu.CFS.Periods = n
		case "nr_throttled":
			s.Cpu.CFS.ThrottledPeriods = n
		case "throttled_time":
			s.Cpu.CFS.ThrottledTime = n
		case "nr_bursts":
			s.Cpu.CFS.BurstsPeriods = n
		case "burst_time":
			s.Cpu.CFS.BurstTime = n
		}
	})
	s.Memory.MaxUsage = r.number(f.in(r, "memory"), "memory.max_usage_in_bytes")
	s.Memory.Failcnt = r.number(f.in(r, "memory"), "memory.failcnt")
	s.Memory.KernelUsage = r.number(f.in(r, "memory"), "memory.kmem.usage_in_bytes")
	r.pairs(f.in(r, "memory"), "memory.oom_control", func(key []byte, n uint64) {
		if string(key) == "oom_kill" {
			s.OOMEvents = n
		}
	})
}

// disks1 reads lines such as "8:0 Read 4096", one for each disk and operation.
func disks1(table []byte) (disks []info.PerDiskStats) {
	for line := range bytes.Lines(table) {
		fields := bytes.Fields(line)
		if len(fields) != 3 {
			continue // the total of all disks
		}
		major, minor, ok := device(fields[0])
		n, number := parse(fields[2])
		if !ok || !number {
			continue
		}
		if last := len(disks) - 1; last < 0 || disks[last].Major != major || disks[last].Minor != minor {
			disks = append(disks, info.PerDiskStats{Major: major, Minor: minor, Stats: map[string]uint64{}})
		}
		disks[len(disks)-1].Stats[string(fields[1])] = n
	}
	return disks
}

// disks2 reads lines such as "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 ...".
func disks2(table []byte, io *info.DiskIoStats) {
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		major, minor, ok := device([]byte(fields[0]))
		if !ok {
			continue
		}
		moved := info.PerDiskStats{Major: major, Minor: minor, Stats: map[string]uint64{}}
		served := info.PerDiskStats{Major: major, Minor: minor, Stats: map[string]uint64{}}
		for _, field := range fields[1:] {
			key, text, _ := strings.Cut(field, "=")
			n, _ := parse([]byte(text))
			switch key {
			case "rbytes":
				moved.Stats["Read"] = n
			case "wbytes":
				moved.Stats["Write"] = n
			case "dbytes":
				moved.Stats["Discard"] = n
			case "rios":
				served.Stats["Read"] = n
			case "wios":
				served.Stats["Write"] = n
			case "dios":
				served.Stats["Discard"] = n
			case "cost.usage":
				io.IoCostUsage = append(io.IoCostUsage, cost(major, minor, n))
			case "cost.wait":
				io.IoCostWait = append(io.IoCostWait, cost(major, minor, n))
			case "cost.indebt":
				io.IoCostIndebt = append(io.IoCostIndebt, cost(major, minor, n))
			case "cost.indelay":
				io.IoCostIndelay = append(io.IoCostIndelay, cost(major, minor, n))
			}
		}
		io.IoServiceBytes, io.IoServiced = append(io.IoServiceBytes, moved), append(io.IoServiced, served)
	}
}

// cost is a time in µs by the model of the disk, if it has one.
func cost(major, minor, us uint64) info.PerDiskStats {
	return info.PerDiskStats{Major: major, Minor: minor, Stats: map[string]uint64{"Count": us}}
}

func device(text []byte) (major, minor uint64, ok bool) {
	a, b, found := bytes.Cut(text, []byte(":"))
	major, first := parse(a)
	minor, second := parse(b)
	return major, minor, found && first && second
}
