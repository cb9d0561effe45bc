package ui

import (
	"net/http"
	"runtime"
	"time"

	"github.com/nodeagent/nodeagent/pkg/stats"
)

// Figures are what the node and its pods use.
type Figures struct {
	// Cores are those of the machine.
	Cores int            `json:"cores"`
	Node  Use            `json:"node"`
	Pods  map[string]Use `json:"pods"` // by UID
	// Containers, by name, and Network are of the pod that is asked for.
	Containers map[string]Use `json:"containers,omitempty"`
	Network    *Network       `json:"network,omitempty"`
}

// Use is what something uses.
type Use struct {
	// At is when it was measured.
	At time.Time `json:"at"`
	// CPU in 1e-3 cores, nil as long as there is no rate.
	CPU *float64 `json:"cpu,omitempty"`
	// Memory is the working set in bytes, Limit what there is, 0 for no limit.
	Memory uint64 `json:"memory"`
	Limit  uint64 `json:"limit,omitempty"`
}

// Network is how many bytes came to and went from the pod since it began.
type Network struct {
	At  time.Time `json:"at"`
	In  uint64    `json:"in"`
	Out uint64    `json:"out"`
}

// figures answers what all pods use, and with pod more of that one.
func (s *site) figures(w http.ResponseWriter, r *http.Request) {
	if s.Stats == nil {
		http.Error(w, "nothing is measured here", http.StatusNotFound)
		return
	}
	samples, err := s.Stats.Sample(r.Context(), stats.Usage)
	if err != nil {
		http.Error(w, "measure: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	one := r.URL.Query().Get("pod")
	out := Figures{Cores: runtime.NumCPU(), Pods: map[string]Use{}, Containers: map[string]Use{}}
	for _, c := range samples {
		switch {
		case c.Kind == stats.KindMachine:
			out.Node = use(c)
		case c.Kind == stats.KindPod:
			out.Pods[string(c.UID)] = use(c)
			if string(c.UID) == one && c.Spec.HasNetwork {
				out.Network = &Network{At: c.Stats.Timestamp, In: c.Stats.Network.RxBytes, Out: c.Stats.Network.TxBytes}
			}
		case c.Kind == stats.KindContainer && string(c.UID) == one:
			out.Containers[c.Name] = use(c)
		}
	}
	reply(w, r, out)
}

func use(c stats.Container) Use {
	u := Use{At: c.Stats.Timestamp, Memory: c.Stats.Memory.WorkingSet}
	if c.NanoCores != nil {
		milli := float64(*c.NanoCores) / 1e6
		u.CPU = &milli
	}
	if c.Spec.Memory.Limit < stats.Unlimited {
		u.Limit = c.Spec.Memory.Limit
	}
	return u
}
