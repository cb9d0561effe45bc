package status

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

const (
	// firstAfter is how long a pod is given to become ready before it is told
	// that it is Pending here: many need but one write.
	firstAfter = 100 * time.Millisecond
	// lesserAfter is how long news that nobody waits for wait for company.
	lesserAfter = time.Second
	// startAfter is how long they wait while a container is being started: on a
	// busy node that takes a while, and is news that somebody waits for.
	startAfter = 5 * time.Second
)

// verb is what can be done to a pod at the apiserver.
type verb int

// The verbs. idle is none.
const (
	idle verb = iota
	get
	patch
	remove
	create
)

// String is the verb in metrics.
func (v verb) String() string { return [...]string{"idle", "get", "patch", "delete", "create"}[v] }

// step is what is to be done next about a pod at the apiserver.
type step struct {
	verb   verb
	due    time.Time    // not before
	urgent bool         // somebody waits for it
	status v1.PodStatus // patch: all that is to be said
	pod    *v1.Pod      // create
}

// plan says what is to be done about a pod of the apiserver. since is when the
// apiserver's copy was first found to be untrue, zero if only now. Whoever calls
// sees to static pods: theirs are never deleted for having ended.
func plan(p pod.Pod, n pod.Node, there *v1.Pod, since, now time.Time) step {
	next := merge(p, n, there, now)
	if equality.Semantic.DeepEqual(next, there.Status) {
		if there.DeletionTimestamp != nil && pod.IsTerminal(there.Status.Phase) && p.Reclaimed() && !held(there) {
			return step{verb: remove, due: now, urgent: true}
		}
		return step{}
	}
	if since.IsZero() {
		since = now
	}
	s := step{verb: patch, status: next, urgent: urgent(there.Status, next) && !closing(p, next)}
	switch {
	case s.urgent:
		s.due = now
	case there.Status.StartTime == nil:
		s.due = p.Started.Add(firstAfter)
	case starts(p):
		s.due = since.Add(startAfter)
	default:
		s.due = since.Add(lesserAfter)
	}
	return s
}

// held says that the pod is deleted but for what its finalizers wait for: the
// apiserver removes it with the last of them.
func held(there *v1.Pod) bool {
	return there.DeletionGracePeriodSeconds != nil && *there.DeletionGracePeriodSeconds == 0 && len(there.Finalizers) > 0
}

// closing says that the last container of a pod that ends is down, and its last
// phase follows when the sandbox is: one write tells both.
func closing(p pod.Pod, next v1.PodStatus) bool {
	runs := func(c v1.ContainerStatus) bool { return c.State.Running != nil }
	return p.Stop != nil && !pod.IsTerminal(next.Phase) &&
		!slices.ContainsFunc(next.ContainerStatuses, runs) && !slices.ContainsFunc(next.InitContainerStatuses, runs)
}

// starts says that a container is being made or started.
func starts(p pod.Pod) bool {
	for _, d := range p.Doing {
		if d.Action.Kind == pod.Create || d.Action.Kind == pod.Start {
			return true
		}
	}
	return slices.ContainsFunc(p.View.Containers, func(c pod.Container) bool { return c.State == pod.Created })
}

// urgent says whether people or controllers wait for what has changed.
func urgent(had, next v1.PodStatus) bool {
	if had.Phase != next.Phase || had.Reason != next.Reason {
		return true
	}
	for _, t := range []v1.PodConditionType{v1.PodReady, v1.ContainersReady} {
		if isTrue(had, t) != isTrue(next, t) {
			return true
		}
	}
	for _, t := range []v1.PodConditionType{v1.PodResizePending, v1.PodResizeInProgress} {
		old, c := conditionOf(had.Conditions, t), conditionOf(next.Conditions, t)
		if (old == nil) != (c == nil) || c != nil && (old.Reason != c.Reason || old.ObservedGeneration != c.ObservedGeneration) {
			return true
		}
	}
	return urgentContainers(had.InitContainerStatuses, next.InitContainerStatuses) ||
		urgentContainers(had.ContainerStatuses, next.ContainerStatuses) ||
		urgentContainers(had.EphemeralContainerStatuses, next.EphemeralContainerStatuses)
}

func isTrue(s v1.PodStatus, t v1.PodConditionType) bool {
	c := conditionOf(s.Conditions, t)
	return c != nil && c.Status == v1.ConditionTrue
}

// urgentContainers says whether a container ended, began anew or fails. That
// one runs is told by the pod's phase and readiness when it matters.
func urgentContainers(had, next []v1.ContainerStatus) bool {
	before := map[string]v1.ContainerStatus{}
	for _, c := range had {
		before[c.Name] = c
	}
	for _, c := range next {
		old := before[c.Name]
		ended := old.State.Terminated == nil && c.State.Terminated != nil || old.State.Running != nil && c.State.Running == nil
		if ended || old.RestartCount != c.RestartCount || fails(c) != "" && fails(c) != fails(old) {
			return true
		}
	}
	return false
}

// fails is why a container does not get to run, "" if nothing is wrong.
func fails(c v1.ContainerStatus) string {
	w := c.State.Waiting
	if w == nil || w.Reason == "ContainerCreating" || w.Reason == "PodInitializing" {
		return ""
	}
	return w.Reason
}
