package lab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// State is what exists on the machine on the lab's behalf, one line per
// mount, network namespace, cgroup, link, process, log link, address.
type State map[string]bool

// settle is how long Leaks waits for what ends by itself after its owner said
// so: shims exit and namespaces fall apart a moment after the CRI call.
const settle = 5 * time.Second

// Snapshot says what exists now.
func (l *Lab) Snapshot() State {
	state := l.facts()
	for _, c := range topCgroups() {
		state["cgroup "+c] = true
	}
	return state
}

// Leaks lists what exists now and didn't before, sorted. It waits up to five
// seconds for the list to become empty.
func (l *Lab) Leaks(before State) []string {
	deadline := time.Now().Add(settle)
	for {
		var leaks []string
		for fact := range maps.Keys(l.Snapshot()) {
			if !before[fact] {
				leaks = append(leaks, fact)
			}
		}
		if len(leaks) == 0 || time.Now().After(deadline) {
			slices.Sort(leaks)
			return leaks
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// facts is what bears the lab's mark. The runtime, the agents themselves and
// what these started are not in it while they run: their pids change in a
// restart.
func (l *Lab) facts() State {
	state := State{}
	add := func(kind string, names []string, err error) {
		if err != nil {
			state[fmt.Sprintf("%s unknown: %v", kind, err)] = true
		}
		for _, n := range names {
			state[kind+" "+n] = true
		}
	}
	mounts, err := mountsUnder(l.Dir)
	add("mount", mounts, err)
	cgroups, err := cgroupsUnder(l.CgroupRoot)
	add("cgroup", cgroups, err)
	add("process", l.strangers(), nil)
	add("log link", logLinks(l.Dir), nil)
	if l.Network != nil {
		links, err := l.Network.links()
		add("link", links, err)
	}
	add("netns", globBase(filepath.Join(netnsDir, "*"+l.ID+"*")), nil)
	if l.Runtime != nil {
		add("address", addresses(l.Runtime.IPAMDir()), nil)
		add("cni result", globBase(filepath.Join("/var/lib/cni/results", l.Runtime.networkName()+"-*")), nil)
	}
	return state
}

func (l *Lab) strangers() []string {
	known := map[int]bool{}
	if l.Runtime != nil {
		known[l.Runtime.Pid()] = true
	}
	for _, a := range l.agents {
		known[a.Pid()] = true
	}
	delete(known, 0)
	var names []string
	for pid, cmdline := range processesOf(l.ID, l.Dir) {
		if !known[pid] && !known[parent(pid)] {
			names = append(names, fmt.Sprintf("%d %s", pid, cmdline))
		}
	}
	return names
}

// parent is the process that started pid; 1 if that has ended, 0 if pid has.
func parent(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// pid (name) state ppid ...; a name may hold anything but ends last.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}

// links lists the links in the namespace, without the CNI bridge, which its
// plugin never removes. The bridge and the namespace have one name, so on the
// host a link of that name has lost its way.
func (n *Network) links() ([]string, error) {
	if _, err := os.Stat(n.Path()); os.IsNotExist(err) {
		return globBase(filepath.Join("/sys/class/net", n.Name)), nil
	}
	out, err := n.Command("ip", "-o", "link").Output()
	if err != nil {
		return nil, fmt.Errorf("list links of network %s: %w", n.Name, err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		_, rest, _ := strings.Cut(line, ": ")
		name, _, _ := strings.Cut(rest, ":")
		if name != n.Name {
			names = append(names, name)
		}
	}
	return append(names, globBase(filepath.Join("/sys/class/net", n.Name))...), nil
}

// addresses lists host-local's files of addresses given out.
func addresses(dir string) []string {
	var held []string
	for _, name := range globBase(filepath.Join(dir, "*")) {
		if name != "lock" && !strings.HasPrefix(name, "last_reserved_ip.") {
			held = append(held, name)
		}
	}
	return held
}

func globBase(pattern string) []string {
	paths, _ := filepath.Glob(pattern) // the only error is a bad pattern
	for i, p := range paths {
		paths[i] = filepath.Base(p)
	}
	return paths
}
