package pod

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Status is what to tell the world of the pod.
func Status(p Pod, n Node, now time.Time) v1.PodStatus {
	started := metav1.NewTime(p.Started.Truncate(time.Second))
	s := v1.PodStatus{
		ObservedGeneration: p.Spec.Generation,
		Phase:              p.Phase,
		QOSClass:           QoS(p.Spec),
		StartTime:          &started,
	}
	if p.Stop != nil && IsTerminal(p.Phase) {
		s.Reason, s.Message = p.Stop.Reason, p.Stop.Message
	}
	if p.Verdict.State == Refused {
		// A pod that was never let in has nothing else to tell (row 1.2-1).
		s.StartTime = nil
		return s
	}
	p.addresses(&s, n)
	for _, m := range inits(p.Spec) {
		s.InitContainerStatuses = append(s.InitContainerStatuses, p.containerStatus(m, n, now))
	}
	for _, m := range mains(p.Spec) {
		s.ContainerStatuses = append(s.ContainerStatuses, p.containerStatus(m, n, now))
	}
	for _, m := range ephemerals(p.Spec) {
		s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, p.containerStatus(m, n, now))
	}
	byName := func(a, b v1.ContainerStatus) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(s.ContainerStatuses, byName)
	slices.SortFunc(s.EphemeralContainerStatuses, byName)
	s.Conditions = p.conditions(s, now)
	return s
}

// addresses fills host and pod IPs (behaviour rows 1.3-15, 1.3-16). They are
// kept after the sandbox has stopped.
func (p Pod) addresses(s *v1.PodStatus, n Node) {
	for _, ip := range n.HostIPs {
		s.HostIPs = append(s.HostIPs, v1.HostIP{IP: ip})
	}
	if len(n.HostIPs) > 0 {
		s.HostIP = n.HostIPs[0]
	}
	var ips []string
	switch {
	case len(p.View.Sandboxes) == 0:
	case p.Spec.Spec.HostNetwork:
		ips = n.HostIPs
	default:
		ips = familyOrder(p.View.Sandboxes[0].IPs, s.HostIP)
	}
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, v1.PodIP{IP: ip})
	}
	if len(ips) > 0 {
		s.PodIP = ips[0]
	}
}

// familyOrder puts the first address of the node's primary family before the
// first one of the other.
func familyOrder(ips []string, host string) []string {
	var same, other []string
	for _, ip := range ips {
		if strings.Contains(ip, ":") == strings.Contains(host, ":") {
			same = append(same, ip)
		} else {
			other = append(other, ip)
		}
	}
	return slices.Concat(same[:min(1, len(same))], other[:min(1, len(other))])
}

// containerStatus is the status of one container.
func (p Pod) containerStatus(m member, n Node, now time.Time) v1.ContainerStatus {
	mem := p.Containers[m.Name]
	s := v1.ContainerStatus{Name: m.Name, Image: m.Image, RestartCount: mem.Restarts}
	k := mem.Known
	if k != nil {
		s.Image, s.ImageID = cmp.Or(k.Image, m.Image), k.ImageRef
		s.ContainerID = containerID(n, k.ID)
		if k.State == Created && mem.Restarts > 0 {
			s.RestartCount-- // it is made, and has not begun again yet
		}
		if k.User != nil {
			s.User = &v1.ContainerUser{Linux: k.User.DeepCopy()}
		}
	}
	s.VolumeMounts = m.statusMounts(k)
	var previous *Container
	switch {
	case p.Setup.Restarting != "" && p.Stop == nil && m.role != ephemeral && k != nil && k.State == Exited:
		s.State.Waiting = &v1.ContainerStateWaiting{Reason: restartingAll}
		previous = k
	case k == nil || k.State == Created || k.State == Unknown || p.hooking(mem):
		s.State.Waiting = p.waiting(m, n, now)
		previous = mem.Last
	case k.State == Running:
		s.State.Running = &v1.ContainerStateRunning{StartedAt: seconds(k.StartedAt)}
		previous = mem.Last
	case p.startsAgain(m, *k):
		s.State.Waiting = p.waiting(m, n, now)
		if previous = k; p.aborted(*k) {
			previous = mem.Last
		}
	default:
		s.State.Terminated = p.terminated(n, *k)
		previous = mem.Last
	}
	if previous != nil && previous.State == Exited {
		s.LastTerminationState.Terminated = p.terminated(n, *previous)
	}
	if m.role != ephemeral {
		s.Resources, s.AllocatedResources = m.statusResources(k), m.Resources.Requests
	}
	started := p.isStarted(m)
	s.Started = &started
	s.Ready = p.isReady(m)
	return s
}

// startsAgain says that an ended instance will be followed by another.
func (p Pod) startsAgain(m member, k Container) bool {
	if p.Stop != nil {
		return false
	}
	return p.again(m, k) || p.aborted(k) || m.role == initial && !p.present(&k) && !p.mainsBegan()
}

// waiting is why a container does not run (behaviour rows 1.3-17, 1.3-18).
func (p Pod) waiting(m member, n Node, now time.Time) *v1.ContainerStateWaiting {
	mem := p.Containers[m.Name]
	_, creating := p.Doing[Action{Kind: Create, Container: m.Name}.Key()]
	if k := mem.Known; k != nil && k.State == Exited && p.Stop == nil && !creating {
		due := mem.Backoff.Due(k.FinishedAt, n.MaxBackoff)
		if due.After(now) {
			return &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff",
				Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", due.Sub(k.FinishedAt), m.Name, p.title())}
		}
	}
	if f := mem.Failure; f != nil && f.Reason != "" && !f.waits() {
		w := &v1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message}
		if fetching(f.Reason) && f.Tries > 1 && f.Retry.After(now) {
			w.Reason = "ImagePullBackOff"
			w.Message = fmt.Sprintf("Back-off pulling image %q: %s", m.Image, prefix(f.Reason, f.Message))
		}
		return w
	}
	if len(p.Spec.Spec.InitContainers) > 0 {
		return &v1.ContainerStateWaiting{Reason: "PodInitializing"}
	}
	return &v1.ContainerStateWaiting{Reason: "ContainerCreating"}
}

func containerID(n Node, id string) string {
	if id == "" {
		return ""
	}
	return n.RuntimeName + "://" + id
}

// maxMessages is what the messages of a pod's containers may have together, in
// bytes (behaviour row 1.3-28).
const maxMessages = 12 << 10

func (p Pod) terminated(n Node, c Container) *v1.ContainerStateTerminated {
	share := maxMessages / len(members(p.Spec))
	return &v1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Reason: c.Reason, Message: strings.ToValidUTF8(c.Message[:min(len(c.Message), share)], ""),
		StartedAt: seconds(c.StartedAt), FinishedAt: seconds(c.FinishedAt),
		ContainerID: containerID(n, c.ID),
	}
}

// seconds is the time as the API carries it (behaviour row 1.3-30).
func seconds(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }

// hooking says that the newest instance runs, but its postStart hook has not
// ended, or has failed: the world is told that it is not up yet.
func (p Pod) hooking(mem Memory) bool {
	return p.Stop == nil && mem.Known != nil && mem.Known.State == Running &&
		mem.Instance.ID == mem.Known.ID && mem.Instance.PostStart != HookDone
}

// isStarted says that the container runs, its postStart hook has ended and it
// has passed its startup probe.
func (p Pod) isStarted(m member) bool {
	mem := p.Containers[m.Name]
	if mem.Known == nil || mem.Known.State != Running || p.hooking(mem) {
		return false
	}
	return m.StartupProbe == nil || mem.Instance.ID == mem.Known.ID && mem.Instance.Startup == Success
}

// isReady says whether a container counts as ready: an init container when it
// has succeeded, others when they run and their readiness probe agrees.
func (p Pod) isReady(m member) bool {
	mem := p.Containers[m.Name]
	switch m.role {
	case initial:
		return mem.Known != nil && mem.Known.State == Exited && mem.Known.ExitCode == 0
	case ephemeral:
		return false
	}
	if !p.isStarted(m) {
		return false
	}
	return m.ReadinessProbe == nil || mem.Instance.ID == mem.Known.ID && mem.Instance.Readiness == Success
}
