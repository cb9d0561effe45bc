package ui

import (
	"net/http"
	"time"

	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Figures are what the node and its pods use.
type Figures struct {
	// CPUs of the node in 1e-3 cores and its memory in bytes.
	Node Use            `json:"node"`
	Pods map[string]Use `json:"pods"`
	// Containers and Network are of the pod that is asked for.
	Containers map[string]Use `json:"containers,omitempty"`
	Network    *Network       `json:"network,omitempty"`
}

// Use is what something uses; what is not known is left out.
type Use struct {
	// At is when it was measured, CPU in 1e-3 cores, Memory the working set in
	// bytes, and Free what is left of it.
	At     time.Time `json:"at"`
	CPU    *float64  `json:"cpu,omitempty"`
	Memory *uint64   `json:"memory,omitempty"`
	Free   *uint64   `json:"free,omitempty"`
}

// Network is how many bytes came and went since the pod has its network.
type Network struct {
	At time.Time `json:"at"`
	In uint64    `json:"in"`
	// Out of the pod.
	Out uint64 `json:"out"`
}

// stats answers what all pods use, or with pod more of that one.
func (s *site) stats(w http.ResponseWriter, r *http.Request) {
	if s.Stats == nil {
		http.Error(w, "nothing is measured here", http.StatusNotFound)
		return
	}
	one := r.URL.Query().Get("pod")
	sum, err := s.Stats.Summary(r.Context(), one == "")
	if err != nil {
		http.Error(w, "measure: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	out := Figures{Node: use(sum.Node.CPU, sum.Node.Memory), Pods: map[string]Use{}}
	for _, p := range sum.Pods {
		out.Pods[p.PodRef.UID] = use(p.CPU, p.Memory)
		if p.PodRef.UID != one {
			continue
		}
		out.Containers = map[string]Use{}
		for _, c := range p.Containers {
			out.Containers[c.Name] = use(c.CPU, c.Memory)
		}
		if n := p.Network; n != nil && n.RxBytes != nil && n.TxBytes != nil {
			out.Network = &Network{At: n.Time.Time, In: *n.RxBytes, Out: *n.TxBytes}
		}
	}
	reply(w, r, out)
}

func use(c *statsapi.CPUStats, m *statsapi.MemoryStats) (u Use) {
	if c != nil && c.UsageNanoCores != nil {
		milli := float64(*c.UsageNanoCores) / 1e6
		u.At, u.CPU = c.Time.Time, &milli
	}
	if m != nil {
		u.Memory, u.Free = m.WorkingSetBytes, m.AvailableBytes
		if u.At.IsZero() {
			u.At = m.Time.Time
		}
	}
	return u
}
