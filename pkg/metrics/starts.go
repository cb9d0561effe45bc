package metrics

import (
	"sync"
	"time"

	"k8s.io/component-base/metrics"
)

// starts time pods from their creation at the apiserver until the apiserver tells
// that they run, as Kubernetes' scalability objectives do.
type starts struct {
	sli, total *metrics.Histogram

	mu sync.Mutex
	up map[string]Start // by UID: their containers have started, but the apiserver has yet to tell
}

// Start is how a pod started.
type Start struct {
	Created time.Time // at the apiserver, by its clock
	// Waited is the time in which nothing kept the pod but its images or its init
	// containers.
	Waited time.Duration
	// Stateful pods mount what outlives them, and have no objective.
	Stateful bool
}

func newStarts(m maker) starts {
	return starts{up: map[string]Start{},
		sli:   m.histogram("kubelet_pod_start_sli_duration_seconds", "From a stateless pod's creation until the apiserver told that all its containers have started, without the time in which only images or init containers were waited for.", startBuckets),
		total: m.histogram("kubelet_pod_start_total_duration_seconds", "From a pod's creation until the apiserver told that all its containers have started.", startBuckets),
	}
}

// Up tells that all containers of a pod of the apiserver have started for the
// first time.
func (p *Pods) Up(uid string, s Start) {
	if p == nil {
		return
	}
	p.starts.mu.Lock()
	defer p.starts.mu.Unlock()
	p.starts.up[uid] = s
}

// Told tells that the apiserver's watch shows all containers of the pod started.
func (p *Pods) Told(uid string, now time.Time) {
	if p == nil {
		return
	}
	p.starts.mu.Lock()
	s, ok := p.starts.up[uid]
	delete(p.starts.up, uid)
	p.starts.mu.Unlock()
	if !ok {
		return
	}
	took := now.Sub(s.Created)
	p.starts.total.Observe(took.Seconds())
	if !s.Stateful {
		p.starts.sli.Observe(max(0, took-s.Waited).Seconds())
	}
}

// Gone tells that the pod is not to be waited for any longer.
func (p *Pods) Gone(uid string) {
	if p == nil {
		return
	}
	p.starts.mu.Lock()
	defer p.starts.mu.Unlock()
	delete(p.starts.up, uid)
}
