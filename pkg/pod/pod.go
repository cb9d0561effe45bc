// Package pod holds the agent's one idea: everything it knows of one pod is
// one value, and pure functions do all the thinking over it.
//
//	Apply(pod, event)     -> pod            what we now know
//	Plan(pod, node, now)  -> actions, wake  what to do next
//	Status(pod, node, now) -> v1.PodStatus  what to tell the world
//
// Nothing here reads a clock, calls out, logs or starts a goroutine. Adapters
// turn the outside into events and actions into effects; the owner of the
// value (its actor) feeds the results back as events.
package pod

import (
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Pod is what the agent knows of one pod. It is a value: Apply returns a new
// one and shares what did not change, so a snapshot may be read by anybody
// while its owner goes on.
type Pod struct {
	// Spec is the newest wish, defaulted, with the resources allocated to it.
	// It is never altered in place.
	Spec *v1.Pod
	// Resize is how far Spec is from the wish's resources, and the world from
	// Spec's.
	Resize Resize
	// Origin is where the wish came from: a file path, a URL, or "api".
	Origin string
	// Hashes are the container hashes of Spec by name (behaviour row T2): an
	// instance with another one was made from another definition.
	Hashes map[string]string
	// Verdict is the ledger's answer; its zero value means not asked yet.
	Verdict Verdict
	// Stop is set once the pod is to end, and never cleared.
	Stop *Stop
	// Started is when the agent first acknowledged the pod (behaviour row
	// 1.3-13), the base of activeDeadlineSeconds.
	Started time.Time
	// Phase is the newest phase; a terminal one is never left.
	Phase v1.PodPhase

	// View is what the runtime shows, and what our own calls told us since.
	View View
	// Stale says that the view must be read again before it is relied upon.
	Stale bool
	// Containers is what the agent remembers of each container by its name.
	Containers map[string]Memory
	// Setup is how far the pod's surroundings are: folders, mounts, sandbox.
	Setup Setup

	// Doing is what is in flight, by Action.Key.
	Doing map[string]Doing
	// Steps are the newest finished actions, oldest first, for people.
	Steps []Step
	// Launches are the pod's first one and, if there was another, its newest.
	Launches []Launch
	// Notes are what people are told (Kubernetes events), oldest first.
	Notes []Note
	// Changes counts the finished calls that changed the runtime's state. A
	// view that was read while it changed is read again.
	Changes int
}

// Verdict is the ledger's answer to a pod that wants to run.
type Verdict struct {
	State   VerdictState
	Reason  string // behaviour rows 1.2-*, only when refused or waiting
	Message string
	// Users are the IDs of the pod's own user namespace, if it is granted one.
	Users IDs
}

// failure is the verdict as why the step of asking did not bring a grant, nil if
// it did.
func (v Verdict) failure() *Failure {
	if v.Message == "" {
		return nil
	}
	return &Failure{Message: v.Message}
}

// VerdictState says whether a pod may run.
type VerdictState int

// A pod is first not asked for, then waits (for its name), and in the end is
// granted or refused.
const (
	Unasked VerdictState = iota
	Waiting
	Granted
	Refused
)

// Stop is the decision that a pod ends.
type Stop struct {
	At time.Time
	// Began is when the first step against a container was taken, zero before:
	// time in which the runtime could not be reached is nobody's grace.
	Began time.Time
	// Grace is counted from Began and only ever shrinks.
	Grace time.Duration
	// Phase, when set, is the phase the pod ends in, whatever its containers
	// returned: Failed for a deadline or an eviction.
	Phase   v1.PodPhase
	Reason  string
	Message string
	// Disruption, when set, is the message of the condition DisruptionTarget: the
	// pod did nothing wrong, others needed what it had (behaviour row 1.3-7).
	Disruption string `json:",omitempty"`
	// Unwanted says that no source names the pod any more: all that is left
	// of it is to be removed.
	Unwanted bool
}

// View is what the runtime shows of one pod.
type View struct {
	Sandboxes  []Sandbox   // newest first
	Containers []Container // newest first
}

// Sandbox is a pod sandbox as CRI shows it.
type Sandbox struct {
	ID      string
	Attempt uint32
	Ready   bool
	// HostNetwork is the sandbox's network namespace mode NODE.
	HostNetwork bool
	IPs         []string
	CreatedAt   time.Time
	// Stopped says that we stopped it. One that went down by itself still holds
	// its network until then.
	Stopped bool
}

// State of a container instance, as CRI knows it.
type State int

// The states of a container instance, in the order it goes through them.
const (
	Created State = iota
	Running
	Exited
	Unknown
)

// Container is one instance of a container as CRI shows it. A restart makes a
// new instance with the next Attempt.
type Container struct {
	ID         string
	Name       string
	SandboxID  string
	Attempt    uint32 // CRI metadata.attempt, the restart count
	State      State
	Image      string // as asked for
	ImageRef   string // digest reference, behaviour row 1.3-23
	Hash       string // annotation io.kubernetes.container.hash
	CreatedAt  time.Time
	StartedAt  time.Time
	FinishedAt time.Time
	ExitCode   int32
	Reason     string // verbatim from CRI (behaviour row 1.3-19)
	Message    string // CRI's message and the termination message
	Has        *Has   // nil when the runtime doesn't say
	// User is whom the first process began as (CRI ContainerStatus.user), nil of
	// a runtime that doesn't say.
	User *v1.LinuxContainerUser
	// RecursiveReadOnly are the paths of its mounts that are read-only with all
	// that is mounted below them (CRI ContainerStatus.mounts).
	RecursiveReadOnly []string
}

// Memory is what the agent remembers of a container beyond the runtime's view.
type Memory struct {
	// Known is the newest instance, Last the one before it; both stay known
	// when the runtime's record of them is gone. One that vanished while it
	// ran is Exited with ContainerStatusUnknown (behaviour row 1.3-20).
	Known, Last *Container
	// Ran says that an instance was started once, though perhaps none is left.
	Ran bool
	// Restarts is the restart count of the newest instance.
	Restarts int32
	// Unmade says that the instance of that number was removed before it ran.
	Unmade  bool
	Backoff Backoff
	// Image is the reference to create the next instance from, set by a pull
	// (or a check of presence) and used up by a create.
	Image       string
	PullBackoff Backoff
	// Made is the instance that our newest call to make one has answered with.
	// Another one may be of a call that was given up, with older resources.
	Made string
	// Failure is why the container waits, set by a failed pull, create, start
	// or hook and cleared by the next success.
	Failure *Failure
	// Tried says that the container had its turn in this sandbox, well or
	// badly: those behind it need not wait for it any longer.
	Tried bool
	// Instance is what we did with the instance of this ID.
	Instance Instance
}

// Instance is what the agent knows of one running instance.
type Instance struct {
	ID        string
	PostStart HookState
	PreStop   HookState
	// KillAt is when the first step of its end was taken.
	KillAt time.Time
	// Resized says that it was ended to be given other resources.
	Resized bool
	// The newest probe results.
	Startup, Liveness, Readiness Result
	// Found says that it ran before this process knew of it.
	Found bool
}

// HookState is how far a lifecycle hook of an instance is.
type HookState int

// A hook is not begun, has ended well, or has failed. One that runs is in
// Pod.Doing.
const (
	HookPending HookState = iota
	HookDone
	HookFailed
)

// Result of a probe.
type Result int

// ResultNone means that no probe has answered yet for this instance.
const (
	ResultNone Result = iota
	Success
	Fail
)

// Setup is how far a pod's surroundings are.
type Setup struct {
	Prepared bool // pod folder, cgroup
	Mounted  bool // volumes
	Outdated bool // what the volumes show has changed since
	// Renew is when the volumes are to be mounted again though nothing changed,
	// zero for never: a token in one of them is to be replaced.
	Renew time.Time
	// Restarting is the container whose rule has all containers restarted.
	Restarting string
	// Seen is when the newest view of the runtime began to be read.
	Seen time.Time
	// Boot is the machine's boot in which the pod is run, by the kernel's ID.
	Boot string
	// Failures of the steps that are tried again, by Action.Key.
	Failures map[string]Failure
	// Recorded is the durable part as it was last written to disk.
	Recorded *Record
	// Steps towards the end, after the last container has stopped.
	Unmounted, Cleaned, Erased, Released bool
}

// Failure is why something did not work, classified once where it entered.
type Failure struct {
	// Reason is the waiting reason people know: ErrImagePull, RunContainerError.
	Reason  string
	Message string
	// Uncertain says that the outcome is not known: the call timed out or the
	// connection died. The runtime is asked before anything else is done.
	Uncertain bool
	// Canceled says that the action was given up because the pod no longer
	// wants it: no failure at all.
	Canceled bool
	// Awaited says that what is missing was asked for and is still to be answered:
	// the pod is told when it is.
	Awaited bool
	// Tries counts failures in a row, Since is when the first of them began; Retry
	// is when to try again.
	Tries int
	Since time.Time
	Retry time.Time
}

// waits says that it is no failure yet but a wait: nobody need be told before it
// was tried three times, which takes 3 s.
func (f Failure) waits() bool { return f.Awaited && f.Tries < 3 }

// Doing is an action in flight.
type Doing struct {
	Action   Action
	Since    time.Time
	Changes  int // Pod.Changes when it began
	Canceled bool
	// Outdated says of an Observe that the runtime hinted at a change since it
	// began: what it brings may be older than the hint. Of an Admit it says that
	// a name came free since, of a Mount, Pull or Create that an object has changed.
	Outdated bool
	// Queue is the turn that it waits or waited for.
	Queue Queue
}

// Step is a finished action.
type Step struct {
	Key          string
	Kind         Kind
	Container    string // "" if it is about the whole pod
	Began, Ended time.Time
	Queue        Queue
	Error        string
}

// Note is something people are told about the pod: a Kubernetes event.
type Note struct {
	At      time.Time
	Seq     int // grows by one with each note of the pod
	Warning bool
	Reason  string
	Message string
	// Container is the container concerned, or "".
	Container string
	Count     int // how often it was said in a row
}

// Record is the part of a pod that outlives the agent's process. What CRI
// labels or the disk say is not in it; it is a hint and may be lost.
type Record struct {
	// Spec has the resources that were granted, not those that are wished.
	Spec       *v1.Pod               `json:"spec"`
	Origin     string                `json:"origin"`
	Boot       string                `json:"boot,omitempty"` // as in Setup
	Granted    bool                  `json:"granted"`
	Started    time.Time             `json:"started"`
	Phase      v1.PodPhase           `json:"phase,omitempty"`
	Stop       *Stop                 `json:"stop,omitempty"`
	Containers map[string]Remembered `json:"containers,omitempty"`
	Actuated   *Actuated             `json:"actuated,omitempty"`
}

// Remembered is the durable part of a container's Memory.
type Remembered struct {
	Ran         bool    `json:"ran,omitempty"`
	Restarts    int32   `json:"restarts,omitempty"`
	Unmade      bool    `json:"unmade,omitempty"`
	Backoff     Backoff `json:"backoff,omitzero"`
	PullBackoff Backoff `json:"pullBackoff,omitzero"`
	// Instance is the ID of one that its probes called started or ready, so
	// that it stays so when the agent restarts (behaviour row 1.6-17).
	Instance string `json:"instance,omitempty"`
	Started  bool   `json:"started,omitempty"`
	Ready    bool   `json:"ready,omitempty"`
}

// Node is the immutable view of the node that a pod is planned with.
type Node struct {
	Name    string
	HostIPs []string // at most one per family, the primary first
	// Runtime and Network are empty when ready, else say why not.
	Runtime string
	Network string
	// RuntimeName is the prefix of container IDs, as in containerd://<id>.
	RuntimeName string
	// MaxBackoff bounds the restart back-off (crashLoopBackOff, row 1.4-11).
	MaxBackoff time.Duration
}

// UID of the pod.
func (p Pod) UID() types.UID { return p.Spec.UID }

// title is how messages name the pod.
func (p Pod) title() string {
	return fmt.Sprintf("%s_%s(%s)", p.Spec.Name, p.Spec.Namespace, p.Spec.UID)
}
