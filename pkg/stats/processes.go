package stats

import (
	"bytes"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// processes are how many threads the machine has, and how many it may have.
func processes(now time.Time) *statsapi.RlimitStats {
	var r reader
	out := &statsapi.RlimitStats{Time: metav1.NewTime(now)}
	for _, path := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		if n, ok := r.given(cwd, path); ok && (out.MaxPID == nil || int64(n) < *out.MaxPID) {
			most := int64(n)
			out.MaxPID = &most
		}
	}
	// 0.20 0.18 0.12 1/80 11206: running / all
	if fields := bytes.Fields(r.bytes(cwd, "/proc/loadavg")); len(fields) > 3 {
		_, all, _ := bytes.Cut(fields[3], []byte("/"))
		if n, ok := parse(all); ok {
			now := int64(n)
			out.NumOfRunningProcesses = &now
		}
	}
	return out
}
