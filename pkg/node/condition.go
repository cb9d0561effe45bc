package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// patience is how long a node stays Ready while its runtime doesn't answer.
const patience = 30 * time.Second

// RuntimeUnknown is why a runtime isn't ready that was not asked yet.
const RuntimeUnknown = "container runtime status check may not have completed yet"

// problems are why the node isn't ready (behaviour row 1.17-9).
func problems(r RuntimeState, capacity v1.ResourceList, wasReady bool, now time.Time) error {
	var errs []error
	switch {
	case r.Error != "" && wasReady && now.Sub(r.Since) < patience: // it may just restart
	case r.Error == RuntimeUnknown:
		errs = append(errs, errors.New(RuntimeUnknown))
	case r.Error != "":
		errs = append(errs, errors.New("container runtime is down"))
	case r.NotReady != "":
		errs = append(errs, fmt.Errorf("container runtime not ready: %s", r.NotReady))
	}
	if r.Error == "" && r.Network != "" {
		errs = append(errs, fmt.Errorf("container runtime network not ready: %s", r.Network))
	}
	var missing []string
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourcePods, v1.ResourceEphemeralStorage} {
		if _, ok := capacity[name]; !ok {
			missing = append(missing, string(name))
		}
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("missing node capacity for resources: %s", strings.Join(missing, ", ")))
	}
	return utilerrors.NewAggregate(errs)
}

// conditions are this node's among the others, Ready last where they are new
// (behaviour rows 1.17-7, 1.17-8).
func conditions(old []v1.NodeCondition, r RuntimeState, capacity v1.ResourceList, now time.Time) []v1.NodeCondition {
	wanted := []v1.NodeCondition{
		{Type: v1.NodeMemoryPressure, Status: v1.ConditionFalse, Reason: "KubeletHasSufficientMemory", Message: "kubelet has sufficient memory available"},
		{Type: v1.NodeDiskPressure, Status: v1.ConditionFalse, Reason: "KubeletHasNoDiskPressure", Message: "kubelet has no disk pressure"},
		{Type: v1.NodePIDPressure, Status: v1.ConditionFalse, Reason: "KubeletHasSufficientPID", Message: "kubelet has sufficient PID available"},
		{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"},
	}
	if err := problems(r, capacity, isReady(old), now); err != nil {
		ready := &wanted[len(wanted)-1]
		ready.Status, ready.Reason, ready.Message = v1.ConditionFalse, "KubeletNotReady", err.Error()
	}
	out := slices.Clone(old)
	for _, c := range wanted {
		c.LastHeartbeatTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
		i := slices.IndexFunc(out, func(o v1.NodeCondition) bool { return o.Type == c.Type })
		switch {
		case i < 0:
			out = append(out, c)
			continue
		case out[i].Status == c.Status:
			c.LastTransitionTime = out[i].LastTransitionTime
		}
		out[i] = c
	}
	return out
}

func isReady(all []v1.NodeCondition) bool {
	return slices.ContainsFunc(all, func(c v1.NodeCondition) bool { return c.Type == v1.NodeReady && c.Status == v1.ConditionTrue })
}

// changes are the reasons of the events that tell how the node's state changed
// (behaviour row 1.17-10).
func changes(old, now []v1.NodeCondition) []string {
	reasons := map[v1.NodeConditionType][2]string{ // if false, if true
		v1.NodeMemoryPressure: {"NodeHasSufficientMemory", "NodeHasInsufficientMemory"},
		v1.NodeDiskPressure:   {"NodeHasNoDiskPressure", "NodeHasDiskPressure"},
		v1.NodePIDPressure:    {"NodeHasSufficientPID", "NodeHasInsufficientPID"},
		v1.NodeReady:          {"NodeNotReady", "NodeReady"},
	}
	var out []string
	for _, c := range now {
		reason, ours := reasons[c.Type]
		i := slices.IndexFunc(old, func(o v1.NodeCondition) bool { return o.Type == c.Type })
		switch {
		case !ours || i >= 0 && old[i].Status == c.Status:
		case c.Status == v1.ConditionTrue:
			out = append(out, reason[1])
		case i >= 0 || c.Type != v1.NodeReady: // a node that was never ready has not become so
			out = append(out, reason[0])
		}
	}
	return out
}
