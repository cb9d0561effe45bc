package metrics

import (
	"time"

	"k8s.io/component-base/metrics"
)

// Storage are the series of volumes, cgroups and logs.
type Storage struct {
	operations *metrics.HistogramVec
	cgroups    *metrics.HistogramVec
	version    *metrics.Gauge
	logs       *logs
}

func newStorage(m maker) *Storage {
	return &Storage{
		logs: newLogs(m),
		operations: m.histograms("storage_operation_duration_seconds", "How long it took to make one volume of a pod ready (volume_mount) or to take it away (volume_unmount).",
			[]float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600}, "volume_plugin", "operation_name", "status", "migrated"),
		cgroups: m.histograms("kubelet_cgroup_manager_duration_seconds", "How long it took to make or set a pod's cgroup (create), to remove it (destroy), or to set what the QoS tiers share (update).", metrics.DefBuckets, "operation_type"),
		version: m.gauge("kubelet_cgroup_version", "The version of the machine's cgroups: 1 or 2."),
	}
}

// Mounted tells that a volume was made ready, or not.
func (s *Storage) Mounted(plugin string, took time.Duration, failed bool) {
	s.volume(plugin, "volume_mount", took, failed)
}

// Unmounted tells that a volume was taken away, or not.
func (s *Storage) Unmounted(plugin string, took time.Duration, failed bool) {
	s.volume(plugin, "volume_unmount", took, failed)
}

func (s *Storage) volume(plugin, operation string, took time.Duration, failed bool) {
	if s == nil {
		return
	}
	status := "success"
	if failed {
		status = "fail-unknown"
	}
	s.operations.WithLabelValues(plugin, operation, status, "false").Observe(took.Seconds())
}

// Cgroup tells of an operation on cgroups: create, update or destroy.
func (s *Storage) Cgroup(operation string, took time.Duration) {
	if s != nil {
		s.cgroups.WithLabelValues(operation).Observe(took.Seconds())
	}
}

// CgroupVersion tells the version of the machine's cgroups.
func (s *Storage) CgroupVersion(v int) {
	if s != nil {
		s.version.Set(float64(v))
	}
}
