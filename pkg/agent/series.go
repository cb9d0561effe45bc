package agent

import (
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cgroups"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/metrics"
)

// series are the metrics of this agent.
func (a *Agent) series() *metrics.Series {
	major, minor, _ := strings.Cut(config.Release(), ".")
	s := metrics.New(metrics.Build{Node: a.config.Node.Name, GitVersion: config.GitVersion(), Major: major, Minor: minor})
	version := 1
	if facts, err := cgroups.Check(); err == nil && facts.Version == "v2" {
		version = 2
	}
	s.Storage.CgroupVersion(version)
	return s
}

// told tells the metrics of the newest copy of a pod that the apiserver has.
func told(to *metrics.Pods, p *v1.Pod) {
	waits := func(s v1.ContainerStatus) bool { return s.State.Running == nil }
	if len(p.Status.ContainerStatuses) > 0 && !slices.ContainsFunc(p.Status.ContainerStatuses, waits) {
		to.Told(string(p.UID), time.Now())
	}
}
