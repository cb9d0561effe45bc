package agent

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/node"
)

// machine is what the machine has, and what pods may have of it.
type machine struct {
	capacity v1.ResourceList
	// allocatable is what is promised to pods, limit what they are held to
	// together. The hard eviction thresholds are taken off the former only (row
	// 1.15-10): the kernel must not kill before eviction had its chance.
	allocatable, limit v1.ResourceList
	swap               int64    // bytes
	ips                []string // the primary first; a cluster's Node may say others later
}

// machineOf is this machine. joined says that it is to be a node of a cluster.
func machineOf(c *config.Config, root string, joined bool) (m machine, err error) {
	k := &c.Kubelet
	if m.capacity, err = capacityOf(c, root); err != nil {
		return m, err
	}
	if m.allocatable, err = node.Allocatable(m.capacity, k.KubeReserved, k.SystemReserved, evictionReserve(k.EvictionHard, m.capacity)); err != nil {
		return m, err
	}
	if m.limit, err = node.Allocatable(m.capacity, k.KubeReserved, k.SystemReserved); err != nil {
		return m, err
	}
	if m.ips, err = node.Addresses(c.Node.IPs); err != nil {
		return m, err
	}
	if joined {
		finder := node.Finder{Name: c.Node.Name, Configured: c.Node.IPs}
		if ips, err := finder.Known(); err == nil { // the report tells the error
			m.ips = ips
		}
	}
	m.swap, err = node.Swap()
	return m, err
}

// bootID is the kernel's name of this boot, empty should it have none.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // every Linux has it
	return strings.TrimSpace(string(id))
}

func quantity(list v1.ResourceList, name v1.ResourceName) int64 {
	q := list[name]
	return q.Value()
}

// capacityOf is what the machine has, and how many pods as configured.
func capacityOf(c *config.Config, root string) (v1.ResourceList, error) {
	pods := int64(c.Kubelet.MaxPods)
	if perCore := int64(c.Kubelet.PodsPerCore); perCore > 0 {
		pods = min(pods, perCore*int64(runtime.NumCPU()))
	}
	return node.Capacity(root, pods)
}

// evictionReserve is what the hard eviction thresholds keep from pods.
func evictionReserve(hard map[string]string, capacity v1.ResourceList) map[string]string {
	out := map[string]string{}
	for signal, name := range map[string]v1.ResourceName{"memory.available": v1.ResourceMemory, "nodefs.available": v1.ResourceEphemeralStorage} {
		text, ok := hard[signal]
		if !ok {
			continue
		}
		var percent float32 // as the kubelet counts: to the byte, its Node says the same
		if n, err := fmt.Sscanf(text, "%f%%", &percent); n == 1 && err == nil && text[len(text)-1] == '%' {
			text = resource.NewQuantity(int64(float64(percent/100)*float64(quantity(capacity, name))), resource.BinarySI).String()
		}
		out[string(name)] = text
	}
	return out
}
