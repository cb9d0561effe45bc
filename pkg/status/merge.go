package status

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// merge is what the apiserver is to say of the pod, given what it says now.
// It begins as a copy of that: what is not named here belongs to others.
func merge(p pod.Pod, n pod.Node, there *v1.Pod, now time.Time) v1.PodStatus {
	next := *there.Status.DeepCopy()
	over := pod.IsTerminal(there.Status.Phase)
	if over && len(p.View.Sandboxes)+len(p.View.Containers) == 0 {
		return next // it ended, and what is said of its end is all there is to know
	}
	want := pod.Status(p, n, now)
	next.ObservedGeneration = max(next.ObservedGeneration, want.ObservedGeneration)
	mergePhase(&next, want)
	if next.StartTime == nil {
		next.StartTime = want.StartTime
	}
	if next.StartTime == nil {
		next.StartTime = new(wholeSeconds(now)) // one that was refused has a time too
	}
	if next.QOSClass == "" {
		next.QOSClass = want.QOSClass
	}
	if p.Verdict.State == pod.Refused {
		want.Conditions = slices.Clone(next.Conditions) // it has nothing to tell of them
	} else {
		mergeAddresses(&next, want, p)
		spec := p.Spec
		next.InitContainerStatuses = mergeContainers(spec, next.InitContainerStatuses, want.InitContainerStatuses, over)
		next.ContainerStatuses = mergeContainers(spec, next.ContainerStatuses, want.ContainerStatuses, over)
		next.EphemeralContainerStatuses = mergeContainers(spec, next.EphemeralContainerStatuses, want.EphemeralContainerStatuses, over)
	}
	if pod.IsTerminal(next.Phase) {
		endReadiness(want.Conditions, next.Phase)
	}
	next.Conditions = mergeConditions(next, want, !over && pod.IsTerminal(next.Phase), now)
	return next
}

// mergePhase takes the phase with its reason and message. One that is never left
// stays with both, and so do they while the phase does (behaviour row 1.3-5).
func mergePhase(next *v1.PodStatus, want v1.PodStatus) {
	switch {
	case pod.IsTerminal(next.Phase):
	case next.Phase != want.Phase || want.Reason != "":
		next.Phase, next.Reason, next.Message = want.Phase, want.Reason, want.Message
	}
}

// mergeAddresses keeps the addresses of a pod that has ended, and those of one
// on the node's network, to which only one of the other family is added
// (behaviour rows 1.3-15, 1.3-16).
func mergeAddresses(next *v1.PodStatus, want v1.PodStatus, p pod.Pod) {
	if want.HostIP != "" {
		next.HostIP, next.HostIPs = want.HostIP, want.HostIPs
	}
	switch {
	case len(next.PodIPs) > 0 && p.Spec.Spec.HostNetwork:
		if len(next.PodIPs) == 1 && len(want.PodIPs) == 2 && isIPv6(next.PodIPs[0].IP) != isIPv6(want.PodIPs[1].IP) {
			next.PodIPs = append(next.PodIPs, want.PodIPs[1])
		}
	case len(want.PodIPs) == 0 && (p.Stop != nil || pod.IsTerminal(next.Phase)):
	default:
		next.PodIP, next.PodIPs = want.PodIP, want.PodIPs
	}
}

func isIPv6(ip string) bool { return strings.Contains(ip, ":") }

// mergeContainers is the newer list. A container that ended for good stays as it
// is (behaviour row T10), in a pod that is over even one of which nothing is
// known here any more. Restart counts never go down, and what the runtime has
// forgotten is still the last state.
func mergeContainers(spec *v1.Pod, had, want []v1.ContainerStatus, over bool) []v1.ContainerStatus {
	for i := range want {
		c := &want[i]
		j := slices.IndexFunc(had, func(o v1.ContainerStatus) bool { return o.Name == c.Name })
		if j < 0 {
			continue
		}
		old, forgotten := had[j], c.ContainerID == ""
		ended := old.State.Terminated
		switch {
		case forgotten && over, forgotten && ended != nil && c.State.Terminated != nil:
			*c = old
			continue
		case ended != nil && c.State.Terminated == nil && (over || !pod.MayRunAgain(spec, c.Name, ended.ExitCode)):
			*c = old
			continue
		}
		c.RestartCount = max(c.RestartCount, old.RestartCount)
		if forgotten && c.LastTerminationState.Terminated == nil {
			c.LastTerminationState = old.LastTerminationState
			if ended != nil {
				c.LastTerminationState = old.State
			}
		}
	}
	return want
}

// mergeConditions are those of others as they are, and ours, in the order that
// there was; new ones come last. A disruption is told with the phase that ends
// the pod, neither before nor after (behaviour row 1.3-7).
func mergeConditions(there, want v1.PodStatus, ends bool, now time.Time) (out []v1.PodCondition) {
	ours := func(t v1.PodConditionType) bool { return pod.OwnsCondition(t) || t == v1.DisruptionTarget && ends }
	for _, old := range there.Conditions {
		c := conditionOf(want.Conditions, old.Type)
		switch {
		case !ours(old.Type), c == nil && old.Type == v1.DisruptionTarget:
			out = append(out, old)
		case c != nil:
			out = append(out, succeed(old, *c, now))
		}
	}
	for _, c := range want.Conditions {
		if ours(c.Type) && conditionOf(there.Conditions, c.Type) == nil {
			c.LastTransitionTime = wholeSeconds(now)
			out = append(out, c)
		}
	}
	return out
}

// succeed is the newer condition, with the time of the last change: of its
// status, or of the reason of one that is only there while it is true.
func succeed(old, c v1.PodCondition, now time.Time) v1.PodCondition {
	c.LastProbeTime, c.LastTransitionTime = old.LastProbeTime, old.LastTransitionTime
	c.ObservedGeneration = max(c.ObservedGeneration, old.ObservedGeneration)
	if old.Status != c.Status || resizing(c.Type) && old.Reason != c.Reason || c.LastTransitionTime.IsZero() {
		c.LastTransitionTime = wholeSeconds(now)
	}
	return c
}

func resizing(t v1.PodConditionType) bool {
	return t == v1.PodResizePending || t == v1.PodResizeInProgress
}

// endReadiness sees to it that no pod is called ready that has ended, though its
// containers may still be ending.
func endReadiness(conditions []v1.PodCondition, phase v1.PodPhase) {
	reason := "PodFailed"
	if phase == v1.PodSucceeded {
		reason = "PodCompleted"
	}
	for i := range conditions {
		c := &conditions[i]
		if (c.Type == v1.PodReady || c.Type == v1.ContainersReady) && c.Status == v1.ConditionTrue {
			c.Status, c.Reason, c.Message = v1.ConditionFalse, reason, ""
		}
	}
}

func conditionOf(list []v1.PodCondition, t v1.PodConditionType) *v1.PodCondition {
	for i := range list {
		if list[i].Type == t {
			return &list[i]
		}
	}
	return nil
}

// wholeSeconds is the time as the API carries it (behaviour row 1.3-30).
func wholeSeconds(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }

// patchOf is the difference between what the apiserver says and what it is to
// say, for the pod of this UID only (behaviour row 1.3-31).
func patchOf(there *v1.Pod, next v1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(v1.Pod{Status: there.Status})
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	after, err := json.Marshal(v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: there.UID}, Status: next})
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("compare status: %w", err)
	}
	return patch, nil
}
