package stats

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Summary is the answer to /stats/summary (behaviour rows 1.21-1, 1.21-2); with
// only_cpu_and_memory it is that and swap, of the node and its pods.
//
// Every pod with a running container is in it, every such container is in its
// pod, each figure with the time of its own. What is not known is left out.
func (s *Stats) Summary(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.Summary, error) {
	v := view{stats: s, now: time.Now(), pods: s.live(), brief: onlyCPUAndMemory, disks: map[string]*statsapi.FsStats{}}
	if err := v.look(ctx); err != nil {
		return nil, err
	}
	summary := &statsapi.Summary{Node: v.node(), Pods: []statsapi.PodStats{}}
	for _, p := range v.pods {
		summary.Pods = append(summary.Pods, v.pod(p))
	}
	if !v.brief {
		v.nodeDisks(ctx, &summary.Node)
	}
	return summary, nil
}

// view is what one answer is made of.
type view struct {
	stats   *Stats
	now     time.Time
	pods    []pod.Pod
	brief   bool
	samples []Container
	byID    map[string]Container // containers
	byPod   map[types.UID]Container
	usage   map[string]cri.Usage
	sizes   map[types.UID]sizes
	disks   map[string]*statsapi.FsStats // by folder; nil of one that doesn't answer
	root    *statsapi.FsStats
}

func (v *view) look(ctx context.Context) (err error) {
	if v.samples, err = v.stats.Sample(ctx, Usage); err != nil {
		return err
	}
	v.byID, v.byPod = map[string]Container{}, map[types.UID]Container{}
	for _, c := range v.samples {
		switch c.Kind {
		case KindContainer:
			v.byID[c.ID] = c
		case KindPod:
			v.byPod[c.UID] = c
		}
	}
	// What was the last is told when the runtime doesn't answer.
	if !v.brief || v.lacks() {
		v.usage, _ = v.stats.usage.get(ctx, firstWait, nil)
	}
	if v.brief {
		return nil
	}
	if v.root, err = fileSystem(v.stats.options.Root, v.now); err != nil {
		return fmt.Errorf("the node's file system: %w", err)
	}
	if v.stats.options.VolumePeriod > 0 {
		v.sizes, _ = v.stats.sizes.get(ctx, newWait, v.oldest)
	}
	return nil
}

// lacks says whether there is a container that runs without a sample.
func (v *view) lacks() bool {
	for _, p := range v.pods {
		for _, c := range running(p) {
			if _, ok := v.byID[c.ID]; !ok {
				return true
			}
		}
	}
	return false
}

func (v *view) node() statsapi.NodeStats {
	n := statsapi.NodeStats{NodeName: v.stats.options.NodeName, StartTime: metav1.NewTime(v.stats.boot)}
	pods := false
	for _, c := range v.samples {
		switch {
		case c.Kind == KindMachine:
			n.CPU, n.Memory, n.Swap = cpuStats(c), memoryStats(c), swapStats(c)
			if !v.brief {
				n.IO, n.Network = ioStats(c), networkStats(c)
			}
		case c.Kind == KindSystem:
			n.SystemContainers = append(n.SystemContainers, v.container(c))
		case c.Kind == KindTier && !pods: // the first is that of all pods
			pods = true
			c.Name = statsapi.SystemContainerPods
			n.SystemContainers = append(n.SystemContainers, v.container(c))
		}
	}
	return n
}

// nodeDisks adds what the node says of its disks and processes.
func (v *view) nodeDisks(ctx context.Context, n *statsapi.NodeStats) {
	n.Fs, n.Rlimit = v.root, processes(v.now)
	images, err := v.stats.images.get(ctx, firstWait, nil)
	if err != nil && images == (imageFS{}) {
		return
	}
	n.Runtime = &statsapi.RuntimeStats{ImageFs: v.disk(images.images), ContainerFs: v.disk(images.containers)}
}

// disk is what the runtime takes of a file system, and how that is now.
func (v *view) disk(u cri.FileSystem) *statsapi.FsStats {
	if u.Mountpoint == "" {
		return nil
	}
	fs, ok := v.disks[u.Mountpoint]
	if !ok {
		fs, _ = fileSystem(u.Mountpoint, v.now) // of a folder that can't be seen from here, only what is used is told
		v.disks[u.Mountpoint] = fs
	}
	if fs == nil {
		fs = &statsapi.FsStats{}
	}
	return with(*fs, u.At, u.Bytes, u.Inodes)
}

// container is what the sample says of it.
func (v *view) container(c Container) statsapi.ContainerStats {
	out := statsapi.ContainerStats{Name: c.Name, StartTime: metav1.NewTime(c.Started), CPU: cpuStats(c), Memory: memoryStats(c), Swap: swapStats(c)}
	if !v.brief {
		out.IO = ioStats(c)
	}
	return out
}

func (v *view) pod(p pod.Pod) statsapi.PodStats {
	out := statsapi.PodStats{
		PodRef:    statsapi.PodReference{Name: p.Spec.Name, Namespace: p.Spec.Namespace, UID: string(p.Spec.UID)},
		StartTime: metav1.NewTime(p.Started), Containers: []statsapi.ContainerStats{},
	}
	if len(p.View.Sandboxes) > 0 {
		out.StartTime = metav1.NewTime(p.View.Sandboxes[0].CreatedAt)
	}
	if c, ok := v.byPod[p.Spec.UID]; ok {
		out.CPU, out.Memory, out.Swap = cpuStats(c), memoryStats(c), swapStats(c)
		if !v.brief {
			out.IO, out.Network = ioStats(c), networkStats(c)
		}
	}
	var count uint64
	for _, instance := range running(p) {
		c, ok := v.byID[instance.ID]
		if u, told := v.usage[instance.ID]; !ok && told {
			c, ok = sampled(Container{Started: instance.CreatedAt}, u), true
		}
		one := statsapi.ContainerStats{Name: instance.Name, StartTime: metav1.NewTime(instance.CreatedAt)}
		if ok {
			c.Name = instance.Name
			one = v.container(c)
			count += c.Stats.Processes.ProcessCount
		}
		if !v.brief {
			v.containerDisks(p.Spec, instance, &one)
		}
		out.Containers = append(out.Containers, one)
	}
	if !v.brief {
		out.ProcessStats = &statsapi.ProcessStats{ProcessCount: &count}
		out.VolumeStats = volumeStats(p.Spec, v.sizes[p.Spec.UID])
		out.EphemeralStorage = v.ephemeral(p.Spec, &out)
	}
	return out
}

// containerDisks adds the writable layer, as the runtime counted it, and the logs.
func (v *view) containerDisks(p *v1.Pod, instance pod.Container, out *statsapi.ContainerStats) {
	out.Rootfs = v.disk(v.usage[instance.ID].Layer)
	if bytes, count, err := v.stats.logsIn(p, instance.Name); err == nil {
		out.Logs = with(*v.root, v.now, bytes, count)
	}
}

// ephemeral sums up what the pod takes of the node's disk: writable layers and
// logs, volumes that go with it, and its hosts file.
func (v *view) ephemeral(p *v1.Pod, out *statsapi.PodStats) *statsapi.FsStats {
	var bytes, inodes uint64
	add := func(fs *statsapi.FsStats) {
		if fs != nil && fs.UsedBytes != nil {
			bytes += *fs.UsedBytes
			inodes += *fs.InodesUsed
		}
	}
	for i := range out.Containers {
		add(out.Containers[i].Rootfs)
		add(out.Containers[i].Logs)
	}
	for i := range out.VolumeStats {
		if ephemeral(p, out.VolumeStats[i].Name) {
			add(&out.VolumeStats[i].FsStats)
		}
	}
	if b, n, err := v.stats.logsIn(p, ""); err == nil {
		bytes, inodes = bytes+b, inodes+n
	}
	var st unix.Stat_t
	if unix.Lstat(filepath.Join(v.stats.options.Root, "pods", string(p.UID), "etc-hosts"), &st) == nil {
		bytes, inodes = bytes+uint64(st.Blocks)*512, inodes+1
	}
	return with(*v.root, v.now, bytes, inodes)
}
