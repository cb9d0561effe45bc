package agent

import (
	"os"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/stats"
	"github.com/nodeagent/nodeagent/pkg/volumes"
)

// stats are the figures of the node and its pods.
func (a *Agent) stats(root string, pods stats.Pods, tree *tree, runtime *cri.Client, vols *volumes.Volumes) (*stats.Stats, error) {
	k := &a.config.Kubelet
	own := k.KubeletCgroups
	if own == "" {
		own = strings.TrimSuffix(ownCgroup(), "/") // the machine's figures are not the agent's
	}
	var systems []stats.System
	for _, s := range []stats.System{
		{Name: "kubelet", Cgroup: own, Started: time.Now()},
		{Name: "runtime", Cgroup: a.config.Node.RuntimeCgroups},
		{Name: "misc", Cgroup: k.SystemCgroups},
	} {
		if s.Cgroup != "" {
			s.Cgroup = path.Join("/", s.Cgroup)
			systems = append(systems, s)
		}
	}
	return stats.New(stats.Options{
		NodeName: a.config.Node.Name, Pods: pods, Places: tree, Runtime: runtime, Volumes: vols, Root: root, LogsDir: k.PodLogsDir,
		Systems: systems, VolumePeriod: k.VolumeStatsAggPeriod.Duration, Log: a.log,
	})
}

// ownCgroup is the one that the agent runs in, "" when its CPU and memory are
// counted in different ones.
func ownCgroup() string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	in := map[string]string{} // by controller; "" is that of v2
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // 4:cpu,cpuacct:/system.slice/x
		if len(parts) == 3 {
			for controller := range strings.SplitSeq(parts[1], ",") {
				in[controller] = parts[2]
			}
		}
	}
	switch {
	case cgroups.IsCgroup2UnifiedMode():
		return in[""]
	case in["cpu"] == in["memory"]:
		return in["cpu"]
	}
	return ""
}
