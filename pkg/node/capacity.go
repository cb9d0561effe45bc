// Package node is what this machine is as a node: what it has, what of it pods
// may use, and its addresses.
package node

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Capacity is what the machine has: cpu, memory, ephemeral-storage of the file
// system that root is on, hugepages by size, and pods as configured.
func Capacity(root string, pods int64) (v1.ResourceList, error) {
	memory, err := meminfo("MemTotal")
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return nil, fmt.Errorf("size of the file system of %s: %w", root, err)
	}
	capacity := v1.ResourceList{
		v1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		v1.ResourceMemory:           *resource.NewQuantity(memory, resource.BinarySI),
		v1.ResourceEphemeralStorage: *resource.NewQuantity(int64(fs.Blocks)*fs.Bsize, resource.BinarySI),
		v1.ResourcePods:             *resource.NewQuantity(pods, resource.DecimalSI),
	}
	for name, bytes := range hugepages("/sys/kernel/mm/hugepages") {
		capacity[name] = *resource.NewQuantity(bytes, resource.BinarySI)
	}
	return capacity, nil
}

// Swap is the machine's swap in bytes, 0 when there is none.
func Swap() (int64, error) { return meminfo("SwapTotal") }

// meminfo is a figure of /proc/meminfo in bytes.
func meminfo(key string) (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("size of memory: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) >= 2 && fields[0] == key+":" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("size of memory: %s: %w", s.Text(), err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("size of memory: no %s in /proc/meminfo", key)
}

// hugepages are the bytes set aside in pages of each size; a size without any
// is listed with 0.
func hugepages(dir string) map[v1.ResourceName]int64 {
	out := map[v1.ResourceName]int64{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return out // the kernel has none
	}
	for _, e := range entries {
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name(), "nr_hugepages"))
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			continue
		}
		size := resource.NewQuantity(kib<<10, resource.BinarySI)
		out[v1.ResourceName(v1.ResourceHugePagesPrefix+size.String())] = n * kib << 10
	}
	return out
}

// Allocatable is what pods may have: the capacity less each reservation, and
// memory less the hugepages too (behaviour row 1.15-11). Reservations are by
// resource name; a negative rest is 0.
func Allocatable(capacity v1.ResourceList, reserved ...map[string]string) (v1.ResourceList, error) {
	out := capacity.DeepCopy()
	for _, r := range reserved {
		for name, text := range r {
			q, err := resource.ParseQuantity(text)
			if err != nil {
				return nil, fmt.Errorf("reservation of %s: %q: %w", name, text, err)
			}
			take(out, v1.ResourceName(name), q)
		}
	}
	for name, q := range capacity {
		if strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix) {
			take(out, v1.ResourceMemory, q)
		}
	}
	return out, nil
}

func take(from v1.ResourceList, name v1.ResourceName, q resource.Quantity) {
	left, ok := from[name]
	if !ok {
		return
	}
	left.Sub(q)
	if left.Sign() < 0 {
		left.Set(0)
	}
	from[name] = left
}
