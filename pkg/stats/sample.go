package stats

import (
	"time"

	info "github.com/google/cadvisor/info/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Kind says what a sampled cgroup holds.
type Kind int

const (
	// KindMachine is the root of the cgroups: the whole machine.
	KindMachine Kind = iota
	// KindTier is kubepods, or one of the QoS tiers below it.
	KindTier
	// KindSystem is the cgroup of the agent, of the runtime or of the machine's
	// other programs.
	KindSystem
	// KindPod is a pod's own cgroup, with all that runs in it.
	KindPod
	// KindSandbox is the cgroup of a pod's sandbox (its pause process).
	KindSandbox
	// KindContainer is the cgroup of a running container.
	KindContainer
)

// Container is one cgroup as it was sampled. It is shared by all who asked at
// about that time: nobody alters it.
type Container struct {
	Kind Kind
	// Cgroup is its absolute path, which all hierarchies have in common:
	// /kubepods/burstable/pod<uid>/<id>.
	Cgroup string
	// ID of the container or sandbox in the runtime, "" of others.
	ID string
	// Name of the container in its pod, "" of what is none. Of KindSystem it is
	// the name that /stats/summary gives it: kubelet, runtime, misc.
	Name string
	// Image that the container was asked for with.
	Image string
	// Attempt is how often the container was restarted before.
	Attempt uint32
	// Namespace, Pod and UID are of the pod, "" of what belongs to none.
	Namespace, Pod string
	UID            types.UID
	// Started is when the runtime made the container or the pod's sandbox (CRI
	// createdAt), when the machine or the agent came up, or of other cgroups as
	// early as is known. Spec.CreationTime is the same.
	Started time.Time
	// Spec is what the cgroup is limited to, and what it has figures of.
	Spec *info.ContainerSpec
	// Stats are the figures; Stats.Timestamp is when they were read, which is
	// earlier than now for one that didn't answer since. Never nil.
	Stats *info.ContainerStats
	// NanoCores is the rate of CPU use in 1e-9 cores since the sample before
	// this one, nil when there is none yet.
	NanoCores *uint64
}
