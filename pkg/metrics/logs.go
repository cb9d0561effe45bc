package metrics

import (
	"sync/atomic"

	"k8s.io/component-base/metrics"
)

// Log is what the logs of a container take.
type Log struct {
	UID, Namespace, Pod, Container string
	Bytes                          uint64 // on disk
}

// logs asks what logs take when it is scraped.
type logs struct {
	metrics.BaseStableCollector
	ask  atomic.Pointer[func() []Log]
	desc *metrics.Desc
}

func newLogs(m maker) *logs {
	l := &logs{desc: metrics.NewDesc("kubelet_container_log_filesystem_used_bytes", "What the logs of a running container take on disk.",
		[]string{"uid", "namespace", "pod", "container"}, nil, metrics.ALPHA, "")}
	m.registry.CustomMustRegister(l)
	return l
}

// Logs has it asked at each scrape what logs take. The function must be safe for
// concurrent use.
func (s *Storage) Logs(ask func() []Log) {
	if s != nil {
		s.logs.ask.Store(&ask)
	}
}

// DescribeWithStability implements metrics.StableCollector.
func (l *logs) DescribeWithStability(ch chan<- *metrics.Desc) { ch <- l.desc }

// CollectWithStability implements metrics.StableCollector.
func (l *logs) CollectWithStability(ch chan<- metrics.Metric) {
	ask := l.ask.Load()
	if ask == nil {
		return
	}
	for _, of := range (*ask)() {
		ch <- metrics.NewLazyConstMetric(l.desc, metrics.GaugeValue, float64(of.Bytes), of.UID, of.Namespace, of.Pod, of.Container)
	}
}
