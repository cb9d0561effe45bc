package exposition

import (
	"bytes"
	"io"
	"slices"
	"time"

	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// The families of /metrics/resource. Their help says, as Kubernetes' own metrics
// do, how far one may build on them. scrape_error, the former name of
// resource_scrape_error, is hidden since Kubernetes 1.30 and isn't written.

const (
	stable = "[STABLE] "
	alpha  = "[ALPHA] "
)

// figure is a value of a summary; the zero one says that it isn't known.
type figure struct {
	value float64
	known bool
	at    time.Time
}

// used is what the node, a pod or a container uses; nil where nothing is known.
type used struct {
	cpu    *statsapi.CPUStats
	memory *statsapi.MemoryStats
	swap   *statsapi.SwapStats
}

func cpuOf(u used) figure {
	if u.cpu == nil || u.cpu.UsageCoreNanoSeconds == nil {
		return figure{}
	}
	return figure{seconds(*u.cpu.UsageCoreNanoSeconds), true, u.cpu.Time.Time}
}

func workingSetOf(u used) figure {
	if u.memory == nil || u.memory.WorkingSetBytes == nil {
		return figure{}
	}
	return figure{float64(*u.memory.WorkingSetBytes), true, u.memory.Time.Time}
}

func swapOf(u used) figure {
	if u.swap == nil || u.swap.SwapUsageBytes == nil {
		return figure{}
	}
	return figure{float64(*u.swap.SwapUsageBytes), true, u.swap.Time.Time}
}

// swapLimitOf is what is used and what is still to be had.
func swapLimitOf(u used) figure {
	if u.swap == nil || u.swap.SwapAvailableBytes == nil {
		return figure{}
	}
	limit := float64(*u.swap.SwapAvailableBytes)
	if u.swap.SwapUsageBytes != nil {
		limit += float64(*u.swap.SwapUsageBytes)
	}
	return figure{limit, true, u.swap.Time.Time}
}

// resource is one family of /metrics/resource; one of its functions gives the
// series.
type resource struct {
	head
	container func(*statsapi.ContainerStats) figure
	pod       func(*statsapi.PodStats) figure
	node      func(*statsapi.NodeStats) figure
}

func ofContainer(f func(used) figure) func(*statsapi.ContainerStats) figure {
	return func(c *statsapi.ContainerStats) figure { return f(used{c.CPU, c.Memory, c.Swap}) }
}

func ofPod(f func(used) figure) func(*statsapi.PodStats) figure {
	return func(p *statsapi.PodStats) figure { return f(used{p.CPU, p.Memory, p.Swap}) }
}

func ofNode(f func(used) figure) func(*statsapi.NodeStats) figure {
	return func(n *statsapi.NodeStats) figure { return f(used{n.CPU, n.Memory, n.Swap}) }
}

// startOf is in seconds with their fraction, and has no time of its own.
func startOf(c *statsapi.ContainerStats) figure {
	if c.StartTime.Unix() <= 0 {
		return figure{}
	}
	return figure{float64(c.StartTime.UnixNano()) / float64(time.Second), true, time.Time{}}
}

var resourceErrors = head{name: "resource_scrape_error", kind: gauge,
	help: stable + "1 if there was an error while getting container metrics, 0 otherwise"}

// resources are all families but resourceErrors, which is the last by name.
var resources = func() []resource {
	all := []resource{
		{head: head{name: "container_cpu_usage_seconds_total", kind: counter,
			help: stable + "Cumulative cpu time consumed by the container in core-seconds"}, container: ofContainer(cpuOf)},
		{head: head{name: "container_memory_working_set_bytes", kind: gauge,
			help: stable + "Current working set of the container in bytes"}, container: ofContainer(workingSetOf)},
		{head: head{name: "container_start_time_seconds", kind: gauge,
			help: stable + "Start time of the container since unix epoch in seconds"}, container: startOf},
		{head: head{name: "container_swap_limit_bytes", kind: gauge,
			help: alpha + "Current amount of the container swap limit in bytes. Reported only on non-windows systems"}, container: ofContainer(swapLimitOf)},
		{head: head{name: "container_swap_usage_bytes", kind: gauge,
			help: alpha + "Current amount of the container swap usage in bytes. Reported only on non-windows systems"}, container: ofContainer(swapOf)},
		{head: head{name: "node_cpu_usage_seconds_total", kind: counter,
			help: stable + "Cumulative cpu time consumed by the node in core-seconds"}, node: ofNode(cpuOf)},
		{head: head{name: "node_memory_working_set_bytes", kind: gauge,
			help: stable + "Current working set of the node in bytes"}, node: ofNode(workingSetOf)},
		{head: head{name: "node_swap_usage_bytes", kind: gauge,
			help: alpha + "Current swap usage of the node in bytes. Reported only on non-windows systems"}, node: ofNode(swapOf)},
		{head: head{name: "pod_cpu_usage_seconds_total", kind: counter,
			help: stable + "Cumulative cpu time consumed by the pod in core-seconds"}, pod: ofPod(cpuOf)},
		{head: head{name: "pod_memory_working_set_bytes", kind: gauge,
			help: stable + "Current working set of the pod in bytes"}, pod: ofPod(workingSetOf)},
		{head: head{name: "pod_swap_usage_bytes", kind: gauge,
			help: alpha + "Current amount of the pod swap usage in bytes. Reported only on non-windows systems"}, pod: ofPod(swapOf)},
	}
	for i := range all {
		switch f := &all[i]; {
		case f.container != nil:
			f.layOut(containerOfPod)
		case f.pod != nil:
			f.layOut(podOnly)
		}
	}
	return all
}()

// Labels of containers and of pods in /metrics/resource.
var (
	containerOfPod = []string{"container", "namespace", "pod"}
	podOnly        = []string{"namespace", "pod"}
)

// named is a part of a summary with the labels of its series.
type named[T any] struct {
	of *T
	subject
}

// unique sorts parts by their labels. Of two with the same ones the first counts.
func unique[T any](all []named[T]) []named[T] {
	slices.SortStableFunc(all, func(a, b named[T]) int { return bytes.Compare(a.labels, b.labels) })
	return slices.CompactFunc(all, func(a, b named[T]) bool { return bytes.Equal(a.labels, b.labels) })
}

// WriteResource writes what the summary says of CPU, memory and swap, so that
// both agree; nil says that there is none, which the series tell. The families
// are sorted by name, and their series by labels. An error is the writer's.
func WriteResource(w io.Writer, s *statsapi.Summary) error {
	t := newText(w)
	if s != nil {
		t.summary(s)
	}
	t.begin(&resourceErrors)
	t.rows.add(failed(s == nil))
	t.put(&subject{}, time.Time{})
	return t.flush()
}

// newestFirst lists the pods so: one that ends may have the name of the next, and
// a scraper refuses two series alike.
func newestFirst(pods []statsapi.PodStats) []*statsapi.PodStats {
	all := make([]*statsapi.PodStats, len(pods))
	for i := range pods {
		all[i] = &pods[i]
	}
	slices.SortStableFunc(all, func(a, b *statsapi.PodStats) int { return b.StartTime.Compare(a.StartTime.Time) })
	return all
}

func (t *text) summary(s *statsapi.Summary) {
	var pods []named[statsapi.PodStats]
	var containers []named[statsapi.ContainerStats]
	for _, p := range newestFirst(s.Pods) {
		pods = append(pods, named[statsapi.PodStats]{p, about(podOnly, p.PodRef.Namespace, p.PodRef.Name)})
		for k := range p.Containers {
			c := &p.Containers[k]
			containers = append(containers, named[statsapi.ContainerStats]{c, about(containerOfPod, c.Name, p.PodRef.Namespace, p.PodRef.Name)})
		}
	}
	pods, containers = unique(pods), unique(containers)
	for i := range resources {
		f := &resources[i]
		t.begin(&f.head)
		switch {
		case f.node != nil:
			t.figure(&subject{}, f.node(&s.Node))
		case f.pod != nil:
			for k := range pods {
				t.figure(&pods[k].subject, f.pod(pods[k].of))
			}
		default:
			for k := range containers {
				t.figure(&containers[k].subject, f.container(containers[k].of))
			}
		}
	}
}

// figure writes one that is known.
func (t *text) figure(s *subject, f figure) {
	if f.known {
		t.rows.add(f.value)
		t.put(s, f.at)
	}
}
