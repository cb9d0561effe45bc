package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is USER_HZ, in which the kernel tells processor time on every
// architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// cpuTime is what a process has used, in user and kernel mode.
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// Fields 14 and 15; the second is in parentheses and may have any byte.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read stat of process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// memory is what a process holds in RAM, in MiB: anonymous, and with files.
type memory struct{ anonymous, resident float64 }

func memoryOf(pid int) (m memory, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	m.anonymous, m.resident = statusField(status, "RssAnon")/1024, statusField(status, "VmRSS")/1024
	return m, nil
}

// wakeups counts how often the threads of a process went to sleep so far.
func wakeups(pid int) (total float64) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid)) // the only error is a bad pattern
	for _, f := range files {
		status, _ := os.ReadFile(f) // a thread that ended has none
		total += statusField(status, "voluntary_ctxt_switches")
	}
	return total
}

// statusField is 0 if there is none of that name.
func statusField(status []byte, name string) float64 {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			v, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return v
		}
	}
	return 0
}

// emptyMemory is that of a program which links what the agent links.
func emptyMemory(program string) (memory, error) {
	cmd := exec.Command(program)
	input, err := cmd.StdinPipe()
	if err != nil {
		return memory{}, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return memory{}, err
	}
	if err := cmd.Start(); err != nil {
		return memory{}, err
	}
	defer func() { _ = cmd.Wait() }() // it ends with its input
	defer input.Close()
	// Once it answers, every package is initialised.
	if _, err := input.Write([]byte{'\n'}); err != nil {
		return memory{}, err
	}
	if _, err := output.Read(make([]byte, 1)); err != nil {
		return memory{}, err
	}
	return memoryOf(cmd.Process.Pid)
}
