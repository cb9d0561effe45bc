package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// busy is a pod with one container that uses all the CPU it may, and one that
// holds some memory.
const busy = `
apiVersion: v1
kind: Pod
metadata: {name: busy}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: spins
    image: BUSYBOX
    command: [sh, -c, "while :; do :; done"]
    resources: {limits: {cpu: 100m, memory: 32Mi}}
  - name: holds
    image: BUSYBOX
    command: [sh, -c, "a=$(head -c 20000000 /dev/zero | tr '\\0' x); sleep 100000 & wait"]
    resources: {limits: {cpu: 500m, memory: 128Mi}}
`

// TestTop: through the cluster's own metrics-server, which scrapes the node with
// a service account's token and no more rights than its manifests give it,
// kubectl top tells what nodes, pods and containers use.
func TestTop(t *testing.T) {
	plane := cluster(t)
	j := joinedBed(t, plane, lab.Containerd2)
	j.join()
	j.create(strings.ReplaceAll(busy, "BUSYBOX", lab.BusyboxImage))
	j.waitReady("busy")
	j.must(plane.StartMetricsServer(t))
	var spins, holds used
	j.eventually("kubectl top pod has figures", 3*time.Minute, func() error {
		out, err := plane.Kubectl("top", "pod", "busy", "--containers", "--no-headers", "-n", j.ns)
		if err != nil {
			return err
		}
		top := parseTop(t, out, 1)
		if spins, holds = top["spins"], top["holds"]; len(top) != 2 || holds.memory < 19<<20 {
			return fmt.Errorf("got %q", out)
		}
		return nil
	})
	if spins.cpu < 60 || spins.cpu > 130 {
		t.Errorf("a container that spins within 100m uses %dm", spins.cpu)
	}
	if limit := uint64(128 << 20); holds.memory > limit || spins.memory > holds.memory {
		t.Errorf("memory: %d and %d", spins.memory, holds.memory)
	}
	whole := parseTop(t, j.top("pod", "busy"), 0)["busy"]
	if whole.cpu < spins.cpu/2 || whole.memory < holds.memory/2 {
		t.Errorf("the pod uses %+v, its containers %+v and %+v", whole, spins, holds)
	}
	node := parseTop(t, j.top("node", j.Node), 0)[j.Node]
	if node.cpu == 0 || node.memory < holds.memory {
		t.Errorf("the node uses %+v", node)
	}
}

func (j *joined) top(args ...string) string {
	j.t.Helper()
	out, err := j.plane.Kubectl(append(append([]string{"top"}, args...), "--no-headers", "-n", j.ns)...)
	j.must(err)
	return out
}

// used is what kubectl top says: CPU in thousandths of a core, memory in bytes.
type used struct{ cpu, memory uint64 }

// parseTop reads lines such as "node1  100m  5%  1000Mi  50%", by the word at.
func parseTop(t *testing.T, out string, at int) map[string]used {
	t.Helper()
	top := map[string]used{}
	for line := range strings.Lines(out) {
		var u used
		fields := strings.Fields(line)
		for _, f := range fields[at+1:] {
			if text, ok := strings.CutSuffix(f, "m"); ok {
				u.cpu, _ = strconv.ParseUint(text, 10, 64)
			} else if text, ok := strings.CutSuffix(f, "Mi"); ok {
				u.memory, _ = strconv.ParseUint(text, 10, 64)
				u.memory <<= 20
			}
		}
		top[fields[at]] = u
	}
	return top
}
