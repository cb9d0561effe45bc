package metrics

import (
	"sync/atomic"

	"k8s.io/component-base/metrics"
)

// Counts are how many there are of what at one moment.
type Counts struct {
	Sandboxes  int            // pods whose sandbox is up
	Containers map[string]int // by state: created, running, exited, unknown
	Desired    map[bool]int   // pods that sources want; static ones are true
	Active     map[bool]int   // pods that were let in and have not ended
	Working    map[Working]int
	Mirrors    int // static pods that were let in, which an apiserver is to show
	Ephemeral  int // containers for debugging
	Volumes    map[Volume]int
	Resizes    map[string]int // that wait, by reason: deferred or infeasible
	Resizing   int            // granted, but not set everywhere yet
	Steps      map[string]int // in flight, by kind
	Unread     int            // events that the pods' actors have yet to take in
	Waiting    int            // calls that wait for a start slot
}

// Working is how far pods are.
type Working struct {
	Lifecycle string // sync, terminating or terminated
	Config    string // desired or orphan
	Static    bool
}

// Volume is what volumes are counted by.
type Volume struct {
	Plugin string // kubernetes.io/configmap
	State  string // desired_state_of_world or actual_state_of_world
}

// NewCounts are none yet.
func NewCounts() Counts {
	return Counts{Containers: map[string]int{}, Desired: map[bool]int{}, Active: map[bool]int{}, Working: map[Working]int{},
		Volumes: map[Volume]int{}, Resizes: map[string]int{}, Steps: map[string]int{}}
}

// counts asks for the counts when it is scraped.
type counts struct {
	metrics.BaseStableCollector
	ask  atomic.Pointer[func() Counts]
	rows []row
}

// row is one series of the counts.
type row struct {
	*metrics.Desc
	values func(n Counts, put func(value int, labels ...string))
}

func newCounts(m maker) *counts {
	c := &counts{}
	add := func(name, help string, labels []string, values func(n Counts, put func(int, ...string))) {
		c.rows = append(c.rows, row{metrics.NewDesc(name, help, labels, nil, metrics.ALPHA, ""), values})
	}
	one := func(name, help string, value func(Counts) int) {
		add(name, help, nil, func(n Counts, put func(int, ...string)) { put(value(n)) })
	}
	// by is of what is counted by one label, with the values that are there always.
	by := func(name, help, label string, always []string, of func(Counts) map[string]int) {
		add(name, help, []string{label}, func(n Counts, put func(int, ...string)) {
			all := of(n)
			for _, v := range always {
				all[v] += 0
			}
			for v, k := range all {
				put(k, v)
			}
		})
	}
	static := func(name, help string, of func(Counts) map[bool]int) {
		add(name, help, []string{"static"}, func(n Counts, put func(int, ...string)) {
			put(of(n)[false], trueOrEmpty(false))
			put(of(n)[true], trueOrEmpty(true))
		})
	}
	one("kubelet_running_pods", "Pods whose sandbox is up.", func(n Counts) int { return n.Sandboxes })
	by("kubelet_running_containers", "Containers that the runtime has, by their state.", "container_state",
		[]string{"created", "running", "exited", "unknown"}, func(n Counts) map[string]int { return n.Containers })
	static("kubelet_desired_pods", "Pods that the sources want; static is true or empty.", func(n Counts) map[bool]int { return n.Desired })
	static("kubelet_active_pods", "Pods that were let in and have not ended; static is true or empty.", func(n Counts) map[bool]int { return n.Active })
	add("kubelet_working_pods", "Pods by how far they are, and whether a source still wants them; static is true or empty.",
		[]string{"lifecycle", "config", "static"}, func(n Counts, put func(int, ...string)) {
			for w, k := range n.Working {
				put(k, w.Lifecycle, w.Config, trueOrEmpty(w.Static))
			}
		})
	one("kubelet_mirror_pods", "Static pods that were let in, and so have an image at the apiserver.", func(n Counts) int { return n.Mirrors })
	one("kubelet_managed_ephemeral_containers", "Containers for debugging in the pods of the node.", func(n Counts) int { return n.Ephemeral })
	add("volume_manager_total_volumes", "Volumes of the pods that were let in (desired) and those of them that are ready (actual).",
		[]string{"plugin_name", "state"}, func(n Counts, put func(int, ...string)) {
			for v, k := range n.Volumes {
				put(k, v.Plugin, v.State)
			}
		})
	by("kubelet_pod_pending_resizes", "Pods whose new resources are not granted.", "reason",
		[]string{"deferred", "infeasible"}, func(n Counts) map[string]int { return n.Resizes })
	one("kubelet_pod_in_progress_resizes", "Pods whose new resources are granted, but not set everywhere yet.", func(n Counts) int { return n.Resizing })
	by("nodeagent_pod_steps_in_flight", "Steps for pods that are under way, by their kind.", "step", nil, func(n Counts) map[string]int { return n.Steps })
	one("nodeagent_pod_events_unread", "Events that have yet to be taken in by the pods they are about.", func(n Counts) int { return n.Unread })
	one("nodeagent_start_slot_waiting", "Sandbox, create and start calls that wait for a start slot.", func(n Counts) int { return n.Waiting })
	m.registry.CustomMustRegister(c)
	return c
}

// Count has the counts asked for at each scrape. The function must be quick, and
// safe for concurrent use.
func (p *Pods) Count(ask func() Counts) {
	if p != nil {
		p.counts.ask.Store(&ask)
	}
}

// DescribeWithStability implements metrics.StableCollector.
func (c *counts) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, r := range c.rows {
		ch <- r.Desc
	}
}

// CollectWithStability implements metrics.StableCollector.
func (c *counts) CollectWithStability(ch chan<- metrics.Metric) {
	ask := c.ask.Load()
	if ask == nil {
		return
	}
	n := (*ask)()
	for _, r := range c.rows {
		r.values(n, func(value int, labels ...string) {
			ch <- metrics.NewLazyConstMetric(r.Desc, metrics.GaugeValue, float64(value), labels...)
		})
	}
}
