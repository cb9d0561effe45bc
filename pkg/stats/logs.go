package stats

import "github.com/nodeagent/nodeagent/pkg/metrics"

// Logs are what the logs of running containers take on disk now, for the metrics
// (behaviour row 1.21-7). Those without a folder yet are left out.
func (s *Stats) Logs() []metrics.Log {
	var out []metrics.Log
	for _, p := range s.live() {
		for _, c := range running(p) {
			bytes, _, err := s.logsIn(p.Spec, c.Name)
			if err != nil {
				continue
			}
			out = append(out, metrics.Log{UID: string(p.UID()), Namespace: p.Spec.Namespace, Pod: p.Spec.Name, Container: c.Name, Bytes: bytes})
		}
	}
	return out
}
