package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// labEnv marks every process that a lab starts; shims inherit it from containerd.
const labEnv = "NODEAGENT_LAB"

// waitExit returns when the process is gone or a zombie, or fails after the
// timeout. Unlike wait(2) it needs not be the parent.
func waitExit(pid int, timeout time.Duration) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wait for process %d: pidfd_open: %w", pid, err)
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(timeout)
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(time.Until(deadline), 0).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for process %d: poll: %w", pid, err)
		case n == 0:
			return fmt.Errorf("wait for process %d: still there after %v", pid, timeout)
		default:
			return nil
		}
	}
}

// signalProcess sends a signal; a process that is gone already is no error.
func signalProcess(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %v to process %d: %w", sig, pid, err)
	}
	return nil
}

// Terminate asks a process to end by SIGTERM, and makes it end by SIGKILL
// after the grace. A stopped process is continued so that it can answer.
func Terminate(pid int, grace time.Duration) error {
	if err := signalProcess(pid, syscall.SIGTERM); err != nil {
		return err
	}
	if err := signalProcess(pid, syscall.SIGCONT); err != nil {
		return err
	}
	if waitExit(pid, grace) == nil {
		return nil
	}
	if err := signalProcess(pid, syscall.SIGKILL); err != nil {
		return err
	}
	return waitExit(pid, 10*time.Second)
}

// processesOf finds what a lab has running, by the mark in its environment
// (containerd, shims, agents), by a root file system under dir (containers),
// or by a command line that names dir. Zombies don't count.
func processesOf(id, dir string) map[int]string {
	found := map[int]string{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return found
	}
	mark := []byte("\x00" + labEnv + "=" + id + "\x00")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		proc := filepath.Join("/proc", e.Name())
		// A process that ends meanwhile has none of these files.
		cmdline, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		if len(cmdline) == 0 {
			continue // a kernel thread or a zombie
		}
		environ, _ := os.ReadFile(filepath.Join(proc, "environ"))
		marked := bytes.Contains(append([]byte{0}, environ...), mark)
		if marked || rootIsUnder(proc, dir) {
			found[pid] = strings.TrimSpace(string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// rootIsUnder says whether a process's root is an overlay whose layers are in dir.
func rootIsUnder(proc, dir string) bool {
	table, _ := os.ReadFile(filepath.Join(proc, "mountinfo"))
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && fields[4] == "/" {
			return strings.Contains(line, "="+dir+"/") || strings.Contains(line, ":"+dir+"/")
		}
	}
	return false
}

// inExec tells a process without a command line because it is in the middle
// of exec(2) from one that has ended and only waits to be reaped.
func inExec(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The state follows the name, which is in parentheses and may have any byte.
	_, state, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte{' '})
	return len(state) > 0 && state[0] != 'Z' && state[0] != 'X'
}
