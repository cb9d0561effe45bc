package stats

import (
	"bytes"

	info "github.com/google/cadvisor/info/v1"
)

// network is what was last read of one, by the cgroup whose first process sees it.
type network struct {
	files  hierarchies
	cgroup string
	stats  info.NetworkStats
	up     bool
}

// tell reads the interfaces that the first process in the cgroup sees, unless they
// are those last read. It says whether there is one.
func (n *network) tell(r *reader, of *Container, cgroup string) bool {
	if cgroup != n.cgroup {
		f := files{hierarchies: n.files, cgroup: cgroup}
		_, first := f.processes(r)
		f.close()
		if n.cgroup, n.up = cgroup, first != ""; n.up {
			n.stats = interfaces(r.bytes(cwd, "/proc/"+first+"/net/dev"))
		}
	}
	if n.up {
		of.Stats.Network, of.Spec.HasNetwork = n.stats, len(n.stats.Interfaces) > 0
	}
	return n.up
}

// ours are the machine's ends of pods' interfaces, which are counted with the
// pods, and the loopback, as cAdvisor leaves them out.
var ours = [][]byte{[]byte("lo"), []byte("veth"), []byte("docker"), []byte("nerdctl")}

// interfaces reads the kernel's /proc/net/dev.
func interfaces(table []byte) (n info.NetworkStats) {
	for line := range bytes.Lines(table) {
		name, rest, ok := bytes.Cut(line, []byte(":"))
		name = bytes.TrimSpace(name)
		fields := bytes.Fields(rest)
		if !ok || len(fields) < 16 || left(name) {
			continue // the head, or not to be counted
		}
		var v [16]uint64
		for i := range v {
			v[i], _ = parse(fields[i])
		}
		n.Interfaces = append(n.Interfaces, info.InterfaceStats{
			Name:    string(name),
			RxBytes: v[0], RxPackets: v[1], RxErrors: v[2], RxDropped: v[3],
			TxBytes: v[8], TxPackets: v[9], TxErrors: v[10], TxDropped: v[11],
		})
	}
	if len(n.Interfaces) > 0 {
		n.InterfaceStats = n.Interfaces[0]
	}
	return n
}

func left(name []byte) bool {
	for _, prefix := range ours {
		if bytes.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
