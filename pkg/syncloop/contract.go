package syncloop

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/probe"
)

// Runtime is the container runtime. Every call is idempotent: what is stopped
// or gone already is no error. Errors are classified by cri.Failure.
type Runtime interface {
	// Probe says whether the runtime answers, and whether it is ready.
	Probe(ctx context.Context) (cri.Runtime, error)
	// List is every pod that the runtime knows.
	List(ctx context.Context) (map[types.UID]cri.Found, error)
	// Events calls changed for every container that stopped or was removed,
	// and returns when the stream ends; cri.ErrNoEvents if there is none.
	Events(ctx context.Context, changed func(types.UID)) error
	// Alive are the IDs of the ready sandboxes and running containers of every
	// pod, sorted: what an audit compares. A pod of which only dead sandboxes
	// are left is in it too, with no IDs.
	Alive(ctx context.Context) (map[types.UID][]string, error)
	// View is what the runtime knows of one pod.
	View(ctx context.Context, uid types.UID) (pod.View, error)

	Pull(ctx context.Context, p *v1.Pod, r cri.PullRequest) (ref, message string, err error)
	RunSandbox(ctx context.Context, p *v1.Pod, r cri.SandboxRequest) (pod.Sandbox, error)
	Create(ctx context.Context, p *v1.Pod, r cri.CreateRequest) (pod.Container, error)
	Start(ctx context.Context, p *v1.Pod, c pod.Container) (pod.Container, error)
	Stop(ctx context.Context, id string, grace time.Duration) error
	Remove(ctx context.Context, id string) error
	// Update gives a container that runs the resources of its spec.
	Update(ctx context.Context, p *v1.Pod, container, id string) error
	// MemoryUsage of a container in bytes, that of its caches included.
	MemoryUsage(ctx context.Context, id string) (int64, error)
	StopSandbox(ctx context.Context, id string) error
	RemoveSandbox(ctx context.Context, id string) error

	// LoggedRestarts is the highest log number of each container.
	LoggedRestarts(namespace, name string, uid types.UID) map[string]int32
	// RemoveLogs removes all logs of a pod that is gone.
	RemoveLogs(ctx context.Context, namespace, name string, uid types.UID) error
}

// Volumes are the pods' folders and volumes.
type Volumes interface {
	Prepare(p *v1.Pod) error
	// Mount makes all volumes ready and says where each is on the host, and when
	// to mount them again though nothing changed, zero for never. With an error
	// there are paths too if every volume can be used, as it was before.
	Mount(ctx context.Context, p *v1.Pod) (paths map[string]string, renew time.Time, err error)
	// BindSubPaths says where the parts of volumes that a container mounts are
	// on the host, by the index of the volumeMount.
	BindSubPaths(ctx context.Context, p *v1.Pod, c *v1.Container, hosts, values map[string]string) (map[int]string, error)
	Unmount(ctx context.Context, uid types.UID) error
	// RemovePod removes the pod's folder, in which nothing is mounted.
	RemovePod(ctx context.Context, uid types.UID) error
	// KeepUsers writes the user IDs that the pod's own user namespace has, for
	// later processes and agents; DropUsers forgets them.
	KeepUsers(uid types.UID, ids pod.IDs) error
	DropUsers(uid types.UID) error
	// PodDirs are the pods that have a folder.
	PodDirs() ([]types.UID, error)
}

// Cgroups are the pods' cgroups.
type Cgroups interface {
	// Create makes the pod's cgroup, or gives one that exists its values anew.
	Create(ctx context.Context, p *v1.Pod) error
	// Grow does so with the greater of both pods' values, which differ in
	// their resources.
	Grow(ctx context.Context, from, to *v1.Pod) error
	// MemoryUsage of the pod in bytes, that of its caches included.
	MemoryUsage(ctx context.Context, p *v1.Pod) (int64, error)
	// Remove removes the pod's cgroup, whatever its QoS class is or was.
	Remove(ctx context.Context, uid types.UID) error
	// UpdateQoS sets what the tiers share, for the pods that now run.
	UpdateQoS(ctx context.Context, pods []*v1.Pod) error
}

// States are the files that tell another agent what pods were granted and given.
type States interface {
	// Write replaces what they say; when it returns nil that is on disk.
	Write(allocated, actuated map[types.UID]pod.Resources) error
}

// Records are the pods' durable parts.
type Records interface {
	Write(name string, v any) error
	Delete(name string) error
}

// Probes makes the attempts of probes; when, the loop says.
type Probes interface {
	Ask(q pod.Probing) probe.Ask
}

// Hooks runs lifecycle hooks in a running instance, and says what people are to
// know of it.
type Hooks interface {
	Run(ctx context.Context, h probe.Hook) (told []pod.Note, err error)
}

// World is who tells the apiserver of the pods. Its functions never block.
type World interface {
	// Tell gives the newest value of a pod.
	Tell(p pod.Pod)
	// Forget says that nothing is left of the pod.
	Forget(uid types.UID)
	// Synced says that every source has told all that it wants, and gives the
	// names of the static pods among it; it is called once.
	Synced(static []types.NamespacedName)
}
