package syncloop

import (
	"fmt"
	"math/rand/v2"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// capacity is what the pods may have together.
var capacity = v1.ResourceList{v1.ResourceCPU: resource.MustParse("2"), v1.ResourcePods: resource.MustParse("9")}

// draft is a pod as its author thinks of it. A static one gets another UID
// with every version.
type draft struct {
	origin  string
	static  bool
	version int
	pod     *v1.Pod
}

// newDraft draws a pod.
func newDraft(r *rand.Rand, number int) *draft {
	d := &draft{origin: fmt.Sprintf("/m/%d.yaml", number), static: chance(r, 60)}
	name := fmt.Sprintf("p%d", number)
	if chance(r, 20) {
		name = "same"
	}
	grace := int64(r.IntN(30))
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Annotations: map[string]string{}}}
	p.UID = types.UID(fmt.Sprintf("%s.%d", name, number))
	p.Spec = v1.PodSpec{TerminationGracePeriodSeconds: &grace, HostNetwork: chance(r, 15), RestartPolicy: v1.RestartPolicyAlways}
	if chance(r, 40) {
		p.Spec.RestartPolicy = []v1.RestartPolicy{v1.RestartPolicyNever, v1.RestartPolicyOnFailure}[r.IntN(2)]
	}
	if chance(r, 10) {
		seconds := int64(20 + r.IntN(300))
		p.Spec.ActiveDeadlineSeconds = &seconds
	}
	if chance(r, 15) {
		critical := int32(pod.SystemCritical)
		p.Spec.Priority = &critical
	}
	if chance(r, 25) {
		p.Spec.HostUsers = new(false)
	}
	for i := range r.IntN(6) / 2 {
		p.Spec.InitContainers = append(p.Spec.InitContainers, newInit(r, i))
	}
	for i := range 1 + r.IntN(3) {
		p.Spec.Containers = append(p.Spec.Containers, newMain(r, i))
	}
	d.pod = p
	return d
}

func newInit(r *rand.Rand, i int) v1.Container {
	if chance(r, 40) {
		always := v1.ContainerRestartPolicyAlways
		c := v1.Container{Name: fmt.Sprintf("side%d", i), Image: longLife(r), RestartPolicy: &always, Lifecycle: newHooks(r)}
		newProbes(r, &c)
		return c
	}
	c := v1.Container{Name: fmt.Sprintf("init%d", i), Image: fmt.Sprintf("run=%ds", 1+r.IntN(10))}
	if chance(r, 15) {
		c.Image += ",exit=1"
	}
	return c
}

func newMain(r *rand.Rand, i int) v1.Container {
	c := v1.Container{Name: fmt.Sprintf("main%d", i), Image: newImage(r), Lifecycle: newHooks(r)}
	if c.Image != "missing" {
		newProbes(r, &c)
	}
	c.Resources.Requests = v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(int64(50+r.IntN(300)), resource.DecimalSI)}
	if chance(r, 15) {
		c.ResizePolicy = []v1.ContainerResizePolicy{{ResourceName: v1.ResourceCPU, RestartPolicy: v1.RestartContainer}}
	}
	if chance(r, 8) {
		port := int32(80 + r.IntN(2))
		c.Ports = []v1.ContainerPort{{ContainerPort: port, HostPort: port, Protocol: v1.ProtocolTCP}}
	}
	if i == 2 {
		c.VolumeMounts = []v1.VolumeMount{{Name: "v", SubPath: "part"}}
	}
	return c
}

func longLife(r *rand.Rand) string {
	return []string{"term=0s", "term=1s", "term=5s", "term=never"}[r.IntN(4)]
}

func newImage(r *rand.Rand) string {
	switch n := r.IntN(100); {
	case n < 60:
		return longLife(r)
	case n < 65:
		return "missing"
	}
	return fmt.Sprintf("run=%ds,exit=%d,%s", 1+r.IntN(60), r.IntN(2), longLife(r))
}

func newHooks(r *rand.Rand) *v1.Lifecycle {
	if chance(r, 60) {
		return nil
	}
	hook := func() *v1.LifecycleHandler {
		if chance(r, 50) {
			return nil
		}
		return &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: int64(r.IntN(8))}}
	}
	return &v1.Lifecycle{PostStart: hook(), PreStop: hook()}
}

// change draws another version of the pod.
func (d *draft) change(r *rand.Rand) {
	d.version++
	p := d.pod.DeepCopy()
	c := &p.Spec.Containers[r.IntN(len(p.Spec.Containers))]
	if c.ReadinessProbe != nil && chance(r, 50) {
		c.ReadinessProbe.PeriodSeconds++ // and the container goes on
		d.pod = p
		return
	}
	for old := c.Image; c.Image == old; {
		c.Image = newImage(r)
	}
	d.pod = p
}

// made is the pod as its source delivers it.
func (d *draft) made(source string) *v1.Pod {
	p := d.pod.DeepCopy()
	p.Annotations[pod.SourceAnnotation] = "api"
	if d.static {
		p.Annotations[pod.SourceAnnotation] = source
		p.UID = types.UID(fmt.Sprintf("%s.v%d", p.UID, d.version))
	}
	return p
}

// failsHook says whether the container's postStart hook always fails.
func failsHook(c v1.Container) bool {
	return c.Lifecycle != nil && c.Lifecycle.PostStart != nil && c.Lifecycle.PostStart.Sleep.Seconds == 3
}

// longest is how long a container may wait for its back-off.
const longest = 5*time.Minute + 30*time.Second
