package cri

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	v1 "k8s.io/api/core/v1"
)

// PodOptions say how this node turns a pod into CRI configs.
type PodOptions struct {
	// RootDir is the agent's root, /var/lib/kubelet by default.
	RootDir string
	// LogsDir holds a folder of logs per pod, /var/log/pods by default.
	LogsDir string
	// ClusterDomain ends the names of pods with a subdomain.
	ClusterDomain string
	// CgroupParent is the pod's cgroup as an absolute path (behaviour row
	// 1.15-3), nil to leave it to the runtime.
	CgroupParent func(*v1.Pod) string
	// SeccompDefault gives containers without a profile the runtime's.
	SeccompDefault bool
	// CPUCFSQuota enforces cpu limits, over CPUCFSQuotaPeriod (100 ms).
	CPUCFSQuota       bool
	CPUCFSQuotaPeriod time.Duration
	// MemoryCapacity of the node in bytes, for oom_score_adj.
	MemoryCapacity int64
	// LimitedSwap lets some containers use swap on cgroup v2, each its share of
	// SwapCapacity, in bytes (memorySwap.swapBehavior).
	LimitedSwap  bool
	SwapCapacity int64
	// SingleProcessOOMKill lets the kernel kill one process of a container,
	// not all (cgroup v2; config field singleProcessOOMKill).
	SingleProcessOOMKill bool
}

// Machine is what the conversion needs to know of the machine itself.
type Machine struct {
	CgroupV2 bool
	// Swap says that the kernel accounts for swap.
	Swap bool
	// HugePageSizes by the kernel's names: 2MB, 1GB.
	HugePageSizes []string
	// MaskedPaths are hidden from unprivileged containers (behaviour row
	// 1.9-7).
	MaskedPaths []string
	SELinux     bool
}

var maskedPaths = []string{
	"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
	"/sys/firmware", "/sys/devices/virtual/powercap",
}

// readMachine looks at the machine once: none of this changes while it is up.
func readMachine() Machine {
	m := Machine{
		CgroupV2:      cgroups.IsCgroup2UnifiedMode(),
		HugePageSizes: cgroups.HugePageSizes(),
		MaskedPaths:   append([]string{}, maskedPaths...),
	}
	m.Swap = swapAccounted(m.CgroupV2)
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		m.SELinux = true
	}
	for cpu := range possibleCPUs() {
		path := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/thermal_throttle", cpu)
		if _, err := os.Stat(path); err == nil {
			m.MaskedPaths = append(m.MaskedPaths, path)
		}
	}
	return m
}

// possibleCPUs is one more than the highest CPU number the machine may get.
func possibleCPUs() int {
	raw, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		return 0 // no sysfs: nothing to mask either
	}
	list := strings.TrimSpace(string(raw))
	var last int
	if _, err := fmt.Sscanf(list[strings.LastIndexAny(list, ",-")+1:], "%d", &last); err != nil {
		slog.Warn("read list of possible CPUs", "list", list, "error", err)
		return 0
	}
	return last + 1
}

func swapAccounted(v2 bool) bool {
	if !v2 {
		_, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
		return err == nil
	}
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join("/sys/fs/cgroup", own[""], "memory.swap.max"))
	return err == nil
}
