package stats

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	info "github.com/google/cadvisor/info/v1"
	"golang.org/x/sys/unix"
)

// mounted are the file systems of the machine's disks, each once, with what the
// disks did for them. Those in memory and those that containers are layered from
// are left out: what they hold is counted as memory and on the disks.
func mounted(r *reader) []info.FsStats {
	var all []info.FsStats
	seen := map[string]bool{}
	disks := diskStats(r)
	for line := range bytes.Lines(bytes.Clone(r.bytes(cwd, "/proc/self/mountinfo"))) {
		number, place, device := onDisk(string(line))
		if device == "" || seen[number] {
			continue
		}
		var fs unix.Statfs_t
		if unix.Statfs(place, &fs) != nil {
			continue // unmounted meanwhile, or hidden
		}
		seen[number] = true
		one := disks[number]
		one.Device, one.Type, one.HasInodes = device, "vfs", true
		block := uint64(fs.Bsize)
		one.Limit, one.Usage, one.Available = fs.Blocks*block, (fs.Blocks-fs.Bfree)*block, fs.Bavail*block
		one.Inodes, one.InodesFree = fs.Files, fs.Ffree
		all = append(all, one)
	}
	return all
}

// onDisk is a line of the mount table taken apart; nothing of a file system that is
// not on a disk. Those in user space (FUSE) name a device too, and one whose
// program hangs would never answer.
func onDisk(line string) (number, place, device string) {
	// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
	left, right, ok := strings.Cut(line, " - ")
	at, from := strings.Fields(left), strings.Fields(right)
	if !ok || len(at) < 5 || len(from) < 2 || strings.HasPrefix(from[0], "fuse") || !strings.HasPrefix(from[1], "/dev/") {
		return "", "", ""
	}
	return at[2], unescaped(at[4]), unescaped(from[1])
}

// unescaped is a path of the mount table as it is: blanks stand there as \040.
func unescaped(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// diskStats reads /proc/diskstats by major:minor. The kernel counts times in
// milliseconds, cAdvisor's type is read as nanoseconds.
func diskStats(r *reader) map[string]info.FsStats {
	const ms = uint64(time.Millisecond)
	all := map[string]info.FsStats{}
	for line := range bytes.Lines(r.bytes(cwd, "/proc/diskstats")) {
		fields := bytes.Fields(line) // 8 0 sda 40 0 280 223 7 0 22 108 0 330 330
		if len(fields) < 14 {
			continue
		}
		var v [11]uint64
		for i := range v {
			v[i], _ = parse(fields[3+i])
		}
		all[fmt.Sprintf("%s:%s", fields[0], fields[1])] = info.FsStats{
			ReadsCompleted: v[0], ReadsMerged: v[1], SectorsRead: v[2], ReadTime: v[3] * ms,
			WritesCompleted: v[4], WritesMerged: v[5], SectorsWritten: v[6], WriteTime: v[7] * ms,
			IoInProgress: v[8], IoTime: v[9] * ms, WeightedIoTime: v[10] * ms,
		}
	}
	return all
}

// name the disks of a cgroup's traffic.
func (r *reader) name(disks []info.PerDiskStats) {
	for i := range disks {
		disks[i].Device = r.disk(disks[i].Major, disks[i].Minor)
	}
}

// disk is its device file; "" of one that is gone. A reader remembers it: it lives
// for one round.
func (r *reader) disk(major, minor uint64) string {
	key := [2]uint64{major, minor}
	name, known := r.disks[key]
	if !known {
		if to, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", major, minor)); err == nil {
			name = "/dev/" + filepath.Base(to)
		}
		if r.disks == nil {
			r.disks = map[[2]uint64]string{}
		}
		r.disks[key] = name
	}
	return name
}
