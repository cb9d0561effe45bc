package pod

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// CheckUID refuses a UID that may not be an element of a path: it comes from
// whoever wrote the pod.
func CheckUID(uid types.UID) error {
	odd := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-')
	}
	if uid == "" || len(uid) > 128 || strings.ContainsFunc(string(uid), odd) {
		return fmt.Errorf("metadata.uid %.140q: want up to 128 letters, digits and '-'", uid)
	}
	return nil
}

// role is what a container is in its pod.
type role int

const (
	main role = iota
	initial
	sidecar
	ephemeral
)

// member is a container of the spec with its role.
type member struct {
	role role
	*v1.Container
}

// inits are the init containers and sidecars in spec order.
func inits(spec *v1.Pod) []member {
	out := make([]member, 0, len(spec.Spec.InitContainers))
	for i := range spec.Spec.InitContainers {
		c := &spec.Spec.InitContainers[i]
		r := initial
		if IsSidecar(c) {
			r = sidecar
		}
		out = append(out, member{r, c})
	}
	return out
}

// IsSidecar says whether an init container stays up beside the main ones
// (behaviour row 1.4-5).
func IsSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// mains are the regular containers in spec order.
func mains(spec *v1.Pod) []member {
	out := make([]member, 0, len(spec.Spec.Containers))
	for i := range spec.Spec.Containers {
		out = append(out, member{main, &spec.Spec.Containers[i]})
	}
	return out
}

// ephemerals are the debug containers, as ordinary ones.
func ephemerals(spec *v1.Pod) []member {
	out := make([]member, 0, len(spec.Spec.EphemeralContainers))
	for i := range spec.Spec.EphemeralContainers {
		c := v1.Container(spec.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		out = append(out, member{ephemeral, &c})
	}
	return out
}

// lasting are the init and main containers, those that a pod is born with.
func lasting(spec *v1.Pod) []member { return slices.Concat(inits(spec), mains(spec)) }

// members are all containers of the pod.
func members(spec *v1.Pod) []member { return slices.Concat(lasting(spec), ephemerals(spec)) }

// Containers are all containers of the pod: init, main, and debug ones as
// ordinary ones.
func Containers(p *v1.Pod) func(yield func(*v1.Container) bool) {
	return func(yield func(*v1.Container) bool) {
		for i := range p.Spec.InitContainers {
			if !yield(&p.Spec.InitContainers[i]) {
				return
			}
		}
		for i := range p.Spec.Containers {
			if !yield(&p.Spec.Containers[i]) {
				return
			}
		}
		for i := range p.Spec.EphemeralContainers {
			if !yield((*v1.Container)(&p.Spec.EphemeralContainers[i].EphemeralContainerCommon)) {
				return
			}
		}
	}
}

// find the container of that name.
func find(spec *v1.Pod, name string) (member, bool) {
	for _, m := range members(spec) {
		if m.Name == name {
			return m, true
		}
	}
	return member{}, false
}

// FindContainer returns the container of that name, whatever its role, or nil.
func FindContainer(spec *v1.Pod, name string) *v1.Container {
	m, _ := find(spec, name)
	return m.Container
}

// restartable says whether a container that ended with that code is to be
// started again: the first matching rule of the container, then its own
// policy, then the pod's (behaviour row 1.4-8).
func restartable(spec *v1.Pod, m member, exitCode int32) bool {
	if m.role == ephemeral {
		return false
	}
	for _, rule := range m.RestartPolicyRules {
		if rule.ExitCodes != nil && matches(*rule.ExitCodes, exitCode) {
			return true
		}
	}
	policy := spec.Spec.RestartPolicy
	if m.RestartPolicy != nil {
		policy = v1.RestartPolicy(*m.RestartPolicy)
	}
	switch policy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return exitCode != 0
	}
	// An init container that succeeded is done, whatever the policy.
	return m.role != initial || exitCode != 0
}

func matches(e v1.ContainerRestartRuleOnExitCodes, code int32) bool {
	in := slices.Contains(e.Values, code)
	if e.Operator == v1.ContainerRestartRuleOnExitCodesOpNotIn {
		return !in
	}
	return in
}

// specGrace is the grace that the pod asks for (behaviour row 1.5-8).
func specGrace(spec *v1.Pod) time.Duration {
	switch {
	case spec.DeletionGracePeriodSeconds != nil:
		return time.Duration(*spec.DeletionGracePeriodSeconds) * time.Second
	case spec.Spec.TerminationGracePeriodSeconds != nil:
		return time.Duration(*spec.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	return 30 * time.Second
}

// IsTerminal says whether a phase is never left.
func IsTerminal(phase v1.PodPhase) bool {
	return phase == v1.PodSucceeded || phase == v1.PodFailed
}

// FullName is the name that only one static pod may have at a time.
func FullName(spec *v1.Pod) string { return spec.Name + "_" + spec.Namespace }

// QoS is the pod's quality of service class, by cpu and memory alone.
func QoS(spec *v1.Pod) v1.PodQOSClass {
	guaranteed, any := true, false
	judge := func(r v1.ResourceRequirements) {
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			req, lim := r.Requests[name], r.Limits[name]
			if !req.IsZero() || !lim.IsZero() {
				any = true
			}
			if lim.IsZero() || (!req.IsZero() && req.Cmp(lim) != 0) {
				guaranteed = false
			}
		}
	}
	if r := spec.Spec.Resources; r != nil && (len(r.Requests) > 0 || len(r.Limits) > 0) {
		judge(*r)
	} else {
		for _, m := range lasting(spec) {
			judge(m.Resources)
		}
	}
	switch {
	case !any:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	}
	return v1.PodQOSBurstable
}

// SystemCritical is the priority from which a pod is critical to its node
// (behaviour row 1.2-15).
const SystemCritical = 2_000_000_000

// Priority is the pod's priority, 0 by default.
func Priority(spec *v1.Pod) int32 {
	if spec.Spec.Priority == nil {
		return 0
	}
	return *spec.Spec.Priority
}

// SourceAnnotation says which source a pod came from: file, http or api
// (behaviour row 1.1-6).
const SourceAnnotation = "kubernetes.io/config.source"

// HashAnnotation says of a static pod what its definition was: another one is
// another pod (behaviour row 1.1-6).
const HashAnnotation = "kubernetes.io/config.hash"

// IsStatic says whether the pod came from a file or a URL.
func IsStatic(spec *v1.Pod) bool {
	s := spec.Annotations[SourceAnnotation]
	return s != "" && s != "api"
}

// SysctlName is the sysctl's name with dots as separators. In a name whose first
// separator is a slash, dots are part of the words (behaviour row 1.9-10).
func SysctlName(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '.' {
		return name
	}
	return strings.NewReplacer("/", ".", ".", "/").Replace(name)
}
