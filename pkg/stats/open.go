package stats

import (
	"bytes"
	"strconv"

	info "github.com/google/cadvisor/info/v1"
	"golang.org/x/sys/unix"
)

// held counts the descriptors and sockets that the processes in this cgroup itself
// hold, and how many the first of them, which the others come from, may hold.
// Processes that end meanwhile are left out.
func (f *files) held(r *reader, p *info.ProcessStats) {
	pids := bytes.Fields(bytes.Clone(r.bytes(f.in(r, "cpu"), "cgroup.procs")))
	for _, pid := range pids {
		descriptors, sockets := r.descriptors("/proc/" + string(pid) + "/fd")
		p.FdCount += descriptors
		p.SocketCount += sockets
	}
	if len(pids) > 0 {
		p.Ulimits = r.openLimit("/proc/" + string(pids[0]) + "/limits")
	}
}

// descriptors of a process are links in a folder of the kernel's.
func (r *reader) descriptors(folder string) (descriptors, sockets uint64) {
	fd, err := unix.Open(folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0 // it has ended
	}
	defer func() { _ = unix.Close(fd) }() // opened to read: nothing to lose
	var link [8]byte
	for {
		n, err := unix.ReadDirent(fd, r.buf)
		if err != nil || n <= 0 {
			return descriptors, sockets
		}
		_, _, r.names = unix.ParseDirent(r.buf[:n], -1, r.names[:0])
		for _, name := range r.names {
			descriptors++
			if n, _ := unix.Readlinkat(fd, name, link[:]); string(link[:max(n, 0)]) == "socket:[" {
				sockets++
			}
		}
	}
}

// openLimit is the line "Max open files  1024  524288  files" of a process'
// limits, as cAdvisor names it; unlimited is -1.
func (r *reader) openLimit(path string) []info.UlimitSpec {
	for line := range bytes.Lines(r.bytes(cwd, path)) { // of one that has ended there is none
		rest, ok := bytes.CutPrefix(line, []byte("Max open files"))
		fields := bytes.Fields(rest)
		if !ok || len(fields) < 2 {
			continue
		}
		return []info.UlimitSpec{{Name: "max_open_files", SoftLimit: bound(fields[0]), HardLimit: bound(fields[1])}}
	}
	return nil
}

func bound(text []byte) int64 {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return -1 // unlimited
	}
	return n
}
