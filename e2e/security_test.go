package e2e

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const waitShort = 30 * time.Second

// pid is the host's process ID of the container's first process.
func (b *bed) pid(id string) string {
	b.t.Helper()
	r, err := b.CRI.Runtime.ContainerStatus(context.Background(), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	b.must(err)
	var info struct{ Pid int }
	b.must(json.Unmarshal([]byte(r.Info["info"]), &info))
	if info.Pid == 0 {
		b.t.Fatalf("container %s has no process", id)
	}
	return strconv.Itoa(info.Pid)
}

// procStatus is /proc/<pid>/status of the container's first process, as the
// host sees it.
func (b *bed) procStatus(id string) string {
	b.t.Helper()
	data, err := os.ReadFile("/proc/" + b.pid(id) + "/status")
	b.must(err)
	return string(data)
}

// field is one line of procStatus.
func (b *bed) field(id, name string) string {
	b.t.Helper()
	for line := range strings.Lines(b.procStatus(id)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Join(strings.Fields(rest), " ")
		}
	}
	b.t.Fatalf("no field %s", name)
	return ""
}

// namespace names the container's namespace of that kind.
func (b *bed) namespace(id, kind string) string {
	b.t.Helper()
	return b.namespaceOf(b.pid(id), kind)
}

func (b *bed) namespaceOf(pid, kind string) string {
	b.t.Helper()
	name, err := os.Readlink("/proc/" + pid + "/ns/" + kind)
	b.must(err)
	return name
}

func ownerOf(info os.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }
