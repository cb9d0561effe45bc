package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/local"
)

// TestResize is what becomes of a running pod whose manifest asks for other
// resources.
func TestResize(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.Config = map[string]any{"systemReserved": map[string]string{}}
	b.start()
	b.share(map[string]func(*bed){
		"CPUUpAndDown":    resizeCPU,
	})
}

// sized is a pod that keeps its UID whatever its resources are, so that another
// manifest resizes it.
func sized(name, resources string, more ...string) string {
	return podOf(name+", uid: resize-"+name, `
terminationGracePeriodSeconds: 1
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"], resources: {`+resources+`}, `+strings.Join(more, ", ")+`}`)
}

// limits are what the kernel holds the container to.
func (b *bed) limits(tier string, p *local.Pod, id, file string) string {
	b.t.Helper()
	controller, _, _ := strings.Cut(file, ".")
	_, bare, _ := strings.Cut(id, "://")
	data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, b.CgroupRoot, "kubepods", tier, "pod"+string(p.UID), bare, file))
	b.must(err)
	return strings.TrimSpace(string(data))
}

// resized waits until the pod, and its container main in the same instance,
// are held to those values.
func (b *bed) resized(tier string, before *local.Pod, want map[string]string) *local.Pod {
	b.t.Helper()
	id := container(before, "main").ContainerID
	b.eventually(before.Name+" is resized", 30*time.Second, func() error {
		for file, value := range want {
			controller, _, _ := strings.Cut(file, ".")
			if got := b.cgroup(controller, tier, before, file); got != value {
				return fmt.Errorf("pod's %s is %s, want %s", file, got, value)
			}
			if got := b.limits(tier, before, id, file); got != value {
				return fmt.Errorf("container's %s is %s, want %s", file, got, value)
			}
		}
		return nil
	})
	after := b.settled(before.Name)
	if s := container(after, "main"); s.ContainerID != id || s.RestartCount != 0 {
		b.t.Errorf("container %s with %d restarts, was %s", s.ContainerID, s.RestartCount, id)
	}
	return after
}

// settled waits until no resize of the pod is pending or in progress.
func (b *bed) settled(name string) (p *local.Pod) {
	b.t.Helper()
	b.eventually(name+" is settled", 30*time.Second, func() error {
		p = b.pod(name)
		if c := resizing(p, ""); c != nil {
			return fmt.Errorf("%s %s: %s", c.Type, c.Reason, c.Message)
		}
		return nil
	})
	return p
}

// resizing is the pod's condition of that type, or of any about a resize.
func resizing(p *local.Pod, kind v1.PodConditionType) *v1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == kind || kind == "" && slices.Contains([]v1.PodConditionType{v1.PodResizePending, v1.PodResizeInProgress}, c.Type) {
			return &c
		}
	}
	return nil
}

func resizeCPU(b *bed) {
	b.apply("cpu", sized("cpu", "requests: {cpu: 100m}, limits: {cpu: 200m}"))
	p := b.ready("cpu")
	b.apply("cpu", sized("cpu", "requests: {cpu: 200m}, limits: {cpu: 400m}"))
	p = b.resized("burstable", p, map[string]string{"cpu.shares": "204", "cpu.cfs_quota_us": "40000"})
	b.apply("cpu", sized("cpu", "requests: {cpu: 50m}, limits: {cpu: 100m}"))
	p = b.resized("burstable", p, map[string]string{"cpu.shares": "51", "cpu.cfs_quota_us": "10000"})
	b.remove("cpu")
	b.gone("cpu", string(p.UID))
}

var _ = json.Marshal
