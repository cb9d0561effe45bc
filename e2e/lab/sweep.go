package lab

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// ownerFile in a lab's folder has the pid of the process that made the lab.
const ownerFile = "owner"

func writeOwner(dir string) error {
	return os.WriteFile(filepath.Join(dir, ownerFile), []byte(strconv.Itoa(os.Getpid())), 0o644)
}

var sweepOnce sync.Once

// sweep takes down the labs whose tests were killed, or ended by a panic or a
// time limit, before they could clean up. It only tells of failures: another
// test process may be sweeping the same lab.
func sweep(tb TB) {
	owners, _ := filepath.Glob(filepath.Join(os.TempDir(), "lab-*-*", ownerFile))
	for _, file := range owners {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // swept by another
		}
		pid, err := strconv.Atoi(string(data))
		if err != nil || pid == os.Getpid() || processRuns(pid) {
			continue
		}
		dir := filepath.Dir(file)
		id, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), "lab-"), "-")
		tb.Logf("lab: taking down %s, left by process %d", dir, pid)
		if err := takeDown(id, dir); err != nil {
			tb.Logf("lab: take down %s: %v", dir, err)
		}
	}
}

func processRuns(pid int) bool {
	cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && len(cmdline) > 0
}

// takeDown ends all of a lab from its names alone.
func takeDown(id, dir string) error {
	runtimeDir := filepath.Join(dir, "containerd")
	r := &Runtime{RuntimeOptions: RuntimeOptions{ID: id, Dir: runtimeDir, RunDir: runtimeDir}}
	err := r.Stop()
	err = errors.Join(err, (&Network{Name: "lab-" + id}).Close())
	for _, link := range logLinks(dir) {
		err = errors.Join(err, removeIfThere(link))
	}
	return errors.Join(err, Clean(id, "/"+cgroupPrefix+id, dir))
}

// logLinks are the links to logs in dir. Agents make them in a folder that is
// the machine's, and remove them with a pod, but a lab ends with its pods.
func logLinks(dir string) []string {
	var found []string
	links, _ := filepath.Glob("/var/log/containers/*.log")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir+"/") {
			found = append(found, link)
		}
	}
	return found
}
