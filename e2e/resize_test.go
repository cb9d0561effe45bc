package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
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
	b.start()
	b.share(map[string]func(*bed){
		"CPU":               resizeCPU,
		"Memory":            resizeMemory,
		"BelowUsage":        resizeBelowUsage,
		"RestartsContainer": resizeRestartsContainer,
		"Infeasible":        resizeInfeasible,
		"QoSMayNotChange":   resizeQoS,
		"Status":            resizeStatus,
		"Guaranteed":        resizeGuaranteed,
		"Sidecar":           resizeSidecar,
		"PodLevel":          resizePodLevel,
	})
}

// TestResizeDeferred has a node to itself, which it fills.
func TestResizeDeferred(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.Config = map[string]any{"systemReserved": map[string]string{"cpu": fmt.Sprintf("%dm", runtime.NumCPU()*1000-1000)}}
	b.start()
	b.apply("big", sized("big", "requests: {cpu: 600m}"))
	b.apply("small", sized("small", "requests: {cpu: 200m}"))
	big, small := b.ready("big"), b.ready("small")
	b.apply("small", sized("small", "requests: {cpu: 500m}"))
	b.pending("small", v1.PodReasonDeferred, "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000")
	if got := b.cgroup("cpu", "burstable", small, "cpu.shares"); got != "204" {
		t.Errorf("cpu.shares of a deferred resize: %s", got)
	}
	b.restart() // it runs with what was allocated, and waits on
	b.pending("small", v1.PodReasonDeferred, "")
	b.remove("big")
	b.resized("burstable", small, map[string]string{"cpu.shares": "512"})
	b.gone("big", string(big.UID))
	for _, note := range []string{"ResizeDeferred", "ResizeStarted", "ResizeCompleted"} {
		if !strings.Contains(b.agentLog(), "reason="+note) {
			t.Errorf("nobody was told %s", note)
		}
	}
}

// TestResizeSurvivesKill kills the agent at each point of a resize.
func TestResizeSurvivesKill(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	for i, point := range []string{"before-allocate", "after-allocate", "before-actuate", "after-actuate"} {
		name := fmt.Sprintf("killed%d", i)
		b.start()
		b.apply(name, sized(name, "requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}"))
		p := b.ready(name)
		b.must(b.Agent.Kill())
		b.apply(name, sized(name, "requests: {cpu: 150m, memory: 32Mi}, limits: {cpu: 400m, memory: 48Mi}"))
		(&faultBed{bed: b}).startFaulty(point)
		b.start()
		b.resized("burstable", p, map[string]string{"cpu.shares": "153", "cpu.cfs_quota_us": "40000", "memory.limit_in_bytes": "50331648"})
		b.must(b.Agent.Kill())
	}
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
	_, bare, found := strings.Cut(id, "://")
	if !found {
		bare = id
	}
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
		if p = b.pod(name); container(p, "main").ContainerID == "" {
			return errors.New("the agent does not know its container")
		}
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

func resizeMemory(b *bed) {
	b.apply("memory", sized("memory", "requests: {memory: 32Mi}, limits: {memory: 64Mi}"))
	p := b.ready("memory")
	b.apply("memory", sized("memory", "requests: {memory: 32Mi}, limits: {memory: 128Mi}"))
	p = b.resized("burstable", p, map[string]string{"memory.limit_in_bytes": "134217728"})
	b.apply("memory", sized("memory", "requests: {memory: 24Mi}, limits: {memory: 32Mi}"))
	b.resized("burstable", p, map[string]string{"memory.limit_in_bytes": "33554432"})
}

// resizeBelowUsage: a limit below what is in use is not set, until less is used.
func resizeBelowUsage(b *bed) {
	manifest := func(limit string) string {
		return podOf("usage, uid: resize-usage", `
terminationGracePeriodSeconds: 1
volumes: [{name: shm, emptyDir: {medium: Memory}}]
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; dd if=/dev/zero of=/shm/fill bs=1M count=40; sleep 100000 & wait"],
   volumeMounts: [{name: shm, mountPath: /shm}], resources: {requests: {memory: 8Mi}, limits: {memory: `+limit+`}}}`)
	}
	b.apply("usage", manifest("64Mi"))
	p := b.ready("usage")
	id := b.instances(string(p.UID))["main"]
	b.eventually("memory is in use", 30*time.Second, func() error {
		if size := b.exec(id, "stat", "-c", "%s", "/shm/fill"); size != "41943040" {
			return fmt.Errorf("%s bytes", size)
		}
		return nil
	})
	b.apply("usage", manifest("32Mi"))
	b.eventually("the limit is refused", 30*time.Second, func() error {
		c := resizing(b.pod("usage"), v1.PodResizeInProgress)
		if c == nil || c.Reason != v1.PodReasonError || !strings.HasPrefix(c.Message, "cannot decrease memory limits: ") {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
	if got := b.limits("burstable", p, id, "memory.limit_in_bytes"); got != "67108864" {
		b.t.Errorf("limit while more is in use: %s", got)
	}
	b.exec(id, "rm", "/shm/fill")
	b.resized("burstable", p, map[string]string{"memory.limit_in_bytes": "33554432"})
}

func resizeRestartsContainer(b *bed) {
	policy := "resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]"
	b.apply("policy", sized("policy", "requests: {cpu: 100m, memory: 32Mi}, limits: {memory: 64Mi}", policy))
	p := b.ready("policy")
	b.apply("policy", sized("policy", "requests: {cpu: 200m, memory: 32Mi}, limits: {memory: 64Mi}", policy))
	p = b.resized("burstable", p, nil) // cpu needs no restart
	b.apply("policy", sized("policy", "requests: {cpu: 200m, memory: 48Mi}, limits: {memory: 96Mi}", policy))
	_, s := b.await("policy", "main", "is restarted", func(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.State.Running != nil })
	if got := b.limits("burstable", p, s.ContainerID, "memory.limit_in_bytes"); got != "100663296" {
		b.t.Errorf("limit of the new instance: %s", got)
	}
	b.settled("policy")
	if !strings.Contains(b.agentLog(), "Container main resize requires restart") {
		b.t.Error("nobody was told why it was ended")
	}
}

// pending waits for the condition.
func (b *bed) pending(name, reason, message string) {
	b.t.Helper()
	b.eventually(name+" is "+reason, 30*time.Second, func() error {
		p := b.pod(name)
		if p == nil {
			return errors.New("the agent does not know it")
		}
		if c := resizing(p, v1.PodResizePending); c == nil || c.Reason != reason || message != "" && c.Message != message {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
}

func resizeInfeasible(b *bed) {
	b.apply("huge", sized("huge", "requests: {cpu: 10m}"))
	p := b.ready("huge")
	b.apply("huge", sized("huge", "requests: {cpu: 4000}"))
	b.pending("huge", v1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: cpu, requested: 4000000, capacity: %d", runtime.NumCPU()*1000))
	b.apply("huge", sized("huge", "requests: {cpu: 20m}"))
	b.resized("burstable", p, map[string]string{"cpu.shares": "20"})
}

func resizeQoS(b *bed) {
	b.apply("class", sized("class", "requests: {cpu: 10m}"))
	b.ready("class")
	b.apply("class", sized("class", "limits: {cpu: 10m, memory: 32Mi}"))
	b.pending("class", v1.PodReasonInfeasible, "Pod QOS Class may not change as a result of resizing")
	b.apply("class", sized("class", "requests: {cpu: 10m}")) // nobody asks for it any more
	b.settled("class")
}

func resizeStatus(b *bed) {
	b.apply("status", sized("status", "requests: {cpu: 1m, memory: 32Mi}, limits: {cpu: 5m, memory: 64Mi}"))
	s := container(b.ready("status"), "main")
	want := func(s v1.ContainerStatus, requests, limits string) {
		b.t.Helper()
		text := func(l v1.ResourceList) string { return l.Cpu().String() + " " + l.Memory().String() }
		if got := text(s.Resources.Requests); got != requests || text(s.AllocatedResources) != requests {
			b.t.Errorf("requests %s, allocated %s, want %s", got, text(s.AllocatedResources), requests)
		}
		if got := text(s.Resources.Limits); got != limits {
			b.t.Errorf("limits %s, want %s", got, limits)
		}
	}
	want(s, "1m 32Mi", "5m 64Mi") // less than the kernel can say is told as it was asked for
	b.apply("status", sized("status", "requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 250m, memory: 96Mi}"))
	b.await("status", "main", "shows its new resources", func(s v1.ContainerStatus) bool {
		return s.Resources != nil && s.Resources.Limits.Memory().String() == "96Mi"
	})
	want(container(b.settled("status"), "main"), "100m 32Mi", "250m 96Mi")
}

func resizeGuaranteed(b *bed) {
	b.apply("whole", sized("whole", "limits: {cpu: 100m, memory: 32Mi}"))
	p := b.ready("whole")
	b.apply("whole", sized("whole", "limits: {cpu: 200m, memory: 64Mi}"))
	p = b.resized("", p, map[string]string{"cpu.shares": "204", "cpu.cfs_quota_us": "20000", "memory.limit_in_bytes": "67108864"})
	if p.Status.QOSClass != v1.PodQOSGuaranteed {
		b.t.Errorf("class %s", p.Status.QOSClass)
	}
}

// resizeSidecar: a sidecar is resized, and the main container left alone.
func resizeSidecar(b *bed) {
	manifest := func(cpu string) string {
		return podOf("sidecar, uid: resize-sidecar", `
terminationGracePeriodSeconds: 1
initContainers:
- {name: side, image: BUSYBOX, restartPolicy: Always, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"], resources: {requests: {cpu: `+cpu+`}}}
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"], resources: {requests: {cpu: 10m}}}`)
	}
	b.apply("sidecar", manifest("100m"))
	p := b.ready("sidecar")
	was := b.instances(string(p.UID))
	b.apply("sidecar", manifest("200m"))
	b.eventually("the sidecar is resized", 30*time.Second, func() error {
		if got := b.limits("burstable", p, was["side"], "cpu.shares"); got != "204" {
			return fmt.Errorf("cpu.shares %s", got)
		}
		return nil
	})
	b.settled("sidecar")
	if now := b.instances(string(p.UID)); !maps.Equal(was, now) {
		b.t.Errorf("instances %v became %v", was, now)
	}
}

// resizePodLevel: containers without limits of their own get the pod's.
func resizePodLevel(b *bed) {
	manifest := func(limits string) string {
		return podOf("level, uid: resize-level", `
terminationGracePeriodSeconds: 1
resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {`+limits+`}}
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]}`)
	}
	b.apply("level", manifest("cpu: 100m, memory: 64Mi"))
	p := b.ready("level")
	b.apply("level", manifest("cpu: 300m, memory: 128Mi"))
	b.resized("burstable", p, map[string]string{"cpu.cfs_quota_us": "30000", "memory.limit_in_bytes": "134217728"})
}
