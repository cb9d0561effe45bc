package node

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// SystemInfo is what identifies the machine and its system, read below root,
// usually "/" (behaviour row 1.17-12). What a machine doesn't have is empty.
func SystemInfo(root, agentVersion string) (v1.NodeSystemInfo, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return v1.NodeSystemInfo{}, fmt.Errorf("version of the kernel: %w", err)
	}
	swap, err := Swap()
	if err != nil {
		return v1.NodeSystemInfo{}, err
	}
	info := v1.NodeSystemInfo{
		MachineID: firstLine(root, "etc/machine-id", "var/lib/dbus/machine-id"),
		SystemUUID: firstLine(root, "sys/class/dmi/id/product_uuid", "proc/device-tree/system-id", "proc/device-tree/vm,uuid",
			"etc/machine-id"),
		BootID:          firstLine(root, "proc/sys/kernel/random/boot_id"),
		KernelVersion:   unix.ByteSliceToString(name.Release[:]),
		OSImage:         osImage(root),
		KubeletVersion:  agentVersion,
		OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
	}
	if swap > 0 {
		info.Swap = &v1.NodeSwapStatus{Capacity: &swap}
	}
	return info, nil
}

// firstLine is what the first file says that can be read.
func firstLine(root string, names ...string) string {
	for _, name := range names {
		if b, err := os.ReadFile(filepath.Join(root, name)); err == nil {
			return strings.Trim(string(b), " \t\r\n\x00")
		}
	}
	return ""
}

// osImage is the system's name for people, as in os-release.
func osImage(root string) string {
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		f, err := os.Open(filepath.Join(root, name))
		if err != nil {
			continue
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if value, ok := strings.CutPrefix(s.Text(), "PRETTY_NAME="); ok {
				return strings.Trim(value, `"'`)
			}
		}
		return "Linux"
	}
	return "Unknown"
}
