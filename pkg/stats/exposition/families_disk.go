package exposition

import (
	"strconv"

	info "github.com/google/cadvisor/info/v1"
)

// The families of cAdvisor's sets DiskUsage and DiskIO. File systems are the
// node's and stand with its root cgroup; what containers and pods use of them is
// in /stats/summary.

func filesystem(name, help string, kind kind, value func(*info.FsStats) float64) family {
	return many(name, help, kind, []string{"device"}, func(r *rows, s *info.ContainerStats) {
		for i := range s.Filesystem {
			r.add(value(&s.Filesystem[i]), s.Filesystem[i].Device)
		}
	})
}

// disk makes a family of what a cgroup did to each disk, by operation, divided by
// unit; fs, if not nil, tells the same of the node's file systems.
func disk(name, help string, kind kind, disks func(*info.DiskIoStats) []info.PerDiskStats, operation string, unit float64,
	fs func(*info.FsStats) uint64) family {
	return many(name, help, kind, []string{"device"}, func(r *rows, s *info.ContainerStats) {
		for _, d := range disks(&s.DiskIo) {
			r.add(float64(d.Stats[operation])/unit, d.Device)
		}
		for i := range s.Filesystem {
			if fs != nil {
				r.add(float64(fs(&s.Filesystem[i]))/unit, s.Filesystem[i].Device)
			}
		}
	})
}

func bytesOf(d *info.DiskIoStats) []info.PerDiskStats     { return d.IoServiceBytes }
func servicedOf(d *info.DiskIoStats) []info.PerDiskStats  { return d.IoServiced }
func sectorsOf(d *info.DiskIoStats) []info.PerDiskStats   { return d.Sectors }
func mergedOf(d *info.DiskIoStats) []info.PerDiskStats    { return d.IoMerged }
func timeOf(d *info.DiskIoStats) []info.PerDiskStats      { return d.IoServiceTime }
func queuedOf(d *info.DiskIoStats) []info.PerDiskStats    { return d.IoQueued }
func costUsageOf(d *info.DiskIoStats) []info.PerDiskStats { return d.IoCostUsage }
func costWaitOf(d *info.DiskIoStats) []info.PerDiskStats  { return d.IoCostWait }
func inDebtOf(d *info.DiskIoStats) []info.PerDiskStats    { return d.IoCostIndebt }
func inDelayOf(d *info.DiskIoStats) []info.PerDiskStats   { return d.IoCostIndelay }

// Units that the kernel counts in, as parts of the family's.
const (
	asIs  = 1
	nano  = 1e9
	micro = 1e6
)

var diskFamilies = []family{
	filesystem("container_fs_inodes_free", "Number of available Inodes", gauge,
		func(f *info.FsStats) float64 { return float64(f.InodesFree) }),
	filesystem("container_fs_inodes_total", "Number of Inodes", gauge,
		func(f *info.FsStats) float64 { return float64(f.Inodes) }),
	filesystem("container_fs_limit_bytes", "Number of bytes that can be consumed by the container on this filesystem.", gauge,
		func(f *info.FsStats) float64 { return float64(f.Limit) }),
	filesystem("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", gauge,
		func(f *info.FsStats) float64 { return float64(f.Usage) }),
	filesystem("container_fs_io_time_weighted_seconds_total", "Cumulative weighted I/O time in seconds", counter,
		func(f *info.FsStats) float64 { return seconds(f.WeightedIoTime) }),
	disk("container_fs_reads_bytes_total", "Cumulative count of bytes read", counter, bytesOf, "Read", asIs, nil),
	disk("container_fs_reads_total", "Cumulative count of reads completed", counter, servicedOf, "Read", asIs,
		func(f *info.FsStats) uint64 { return f.ReadsCompleted }),
	disk("container_fs_sector_reads_total", "Cumulative count of sector reads completed", counter, sectorsOf, "Read", asIs,
		func(f *info.FsStats) uint64 { return f.SectorsRead }),
	disk("container_fs_reads_merged_total", "Cumulative count of reads merged", counter, mergedOf, "Read", asIs,
		func(f *info.FsStats) uint64 { return f.ReadsMerged }),
	disk("container_fs_read_seconds_total", "Cumulative count of seconds spent reading", counter, timeOf, "Read", nano,
		func(f *info.FsStats) uint64 { return f.ReadTime }),
	disk("container_fs_writes_bytes_total", "Cumulative count of bytes written", counter, bytesOf, "Write", asIs, nil),
	disk("container_fs_writes_total", "Cumulative count of writes completed", counter, servicedOf, "Write", asIs,
		func(f *info.FsStats) uint64 { return f.WritesCompleted }),
	disk("container_fs_sector_writes_total", "Cumulative count of sector writes completed", counter, sectorsOf, "Write", asIs,
		func(f *info.FsStats) uint64 { return f.SectorsWritten }),
	disk("container_fs_writes_merged_total", "Cumulative count of writes merged", counter, mergedOf, "Write", asIs,
		func(f *info.FsStats) uint64 { return f.WritesMerged }),
	disk("container_fs_write_seconds_total", "Cumulative count of seconds spent writing", counter, timeOf, "Write", nano,
		func(f *info.FsStats) uint64 { return f.WriteTime }),
	disk("container_fs_io_current", "Number of I/Os currently in progress", gauge, queuedOf, "Total", asIs,
		func(f *info.FsStats) uint64 { return f.IoInProgress }),
	disk("container_fs_io_time_seconds_total", "Cumulative count of seconds spent doing I/Os", counter, timeOf, "Total", nano,
		func(f *info.FsStats) uint64 { return f.IoTime }),
	disk("container_fs_io_cost_usage_seconds_total", "Cumulative IOCost usage in seconds", counter, costUsageOf, "Count", micro, nil),
	disk("container_fs_io_cost_wait_seconds_total", "Cumulative IOCost wait in seconds", counter, costWaitOf, "Count", micro, nil),
	disk("container_fs_io_cost_indebt_seconds_total", "Cumulative IOCost debt in seconds", counter, inDebtOf, "Count", micro, nil),
	disk("container_fs_io_cost_indelay_seconds_total", "Cumulative IOCost delay in seconds", counter, inDelayOf, "Count", micro, nil),
	many("container_blkio_device_usage_total", "Blkio Device bytes usage", counter,
		[]string{"device", "major", "minor", "operation"}, func(r *rows, s *info.ContainerStats) {
			for _, d := range s.DiskIo.IoServiceBytes {
				major, minor := strconv.FormatUint(d.Major, 10), strconv.FormatUint(d.Minor, 10)
				for operation, v := range d.Stats {
					r.add(float64(v), d.Device, major, minor, operation)
				}
			}
		}),
}
