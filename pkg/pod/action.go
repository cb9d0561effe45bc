package pod

import (
	"fmt"
	"time"
)

// Kind is what an action does.
type Kind string

// The actions. Each runs in its own goroutine with its own deadline, is
// idempotent, and reports back as a Done event. Cancel and Forget are for the
// actor itself and take no time.
const (
	// Admit asks the ledger, writes the grant to disk, and ends with a Judged
	// event.
	Admit Kind = "admit"
	// Allocate asks the ledger for the resources of the pod's wish, writes the
	// grant to disk, and ends with a Resized event.
	Allocate Kind = "allocate"
	// Actuate gives the pod's cgroup and running containers what was granted.
	Actuate Kind = "actuate"
	// Prepare makes the pod's folder and cgroup.
	Prepare Kind = "prepare"
	// Mount makes the pod's volumes ready.
	Mount Kind = "mount"
	// Pull makes Image present for the container as its policy says.
	Pull Kind = "pull"
	// Observe reads the runtime's view of the pod.
	Observe Kind = "observe"
	// RunSandbox creates the sandbox with number Attempt.
	RunSandbox Kind = "sandbox"
	// Create makes a container instance with number Attempt, from Image.
	Create Kind = "create"
	// Start starts instance ID.
	Start Kind = "start"
	// PostStart and PreStop run the container's hook in instance ID.
	PostStart Kind = "poststart"
	PreStop   Kind = "prestop"
	// StopContainer ends instance ID, by force after Grace.
	StopContainer Kind = "stop"
	// Remove removes the ended instance ID from the runtime.
	Remove Kind = "remove"
	// StopSandbox and RemoveSandbox end and remove sandbox ID.
	StopSandbox   Kind = "stopsandbox"
	RemoveSandbox Kind = "removesandbox"
	// Unmount takes the volumes down.
	Unmount Kind = "unmount"
	// Clean removes the cgroup.
	Clean Kind = "clean"
	// Erase removes an unwanted pod's folder, logs and record.
	Erase Kind = "erase"
	// Release gives the grant back to the ledger.
	Release Kind = "release"
	// Save writes the pod's record.
	Save Kind = "save"
	// Cancel gives up the action in flight whose key is ID.
	Cancel Kind = "cancel"
	// Forget is the last action of an unwanted pod: nothing is left of it.
	Forget Kind = "forget"
)

// Action is something to do in the world.
type Action struct {
	Kind      Kind
	Container string // name in the spec
	ID        string // of the instance or sandbox
	Attempt   uint32
	Image     string
	Grace     time.Duration
	// Why is for people.
	Why string
}

// Key names an action among those in flight: no two of one key run at once.
func (a Action) Key() string {
	switch a.Kind {
	case Pull, Create:
		return string(a.Kind) + "/" + a.Container
	case StopContainer:
		return fmt.Sprintf("%s/%s/%d", a.Kind, a.ID, int(a.Grace.Seconds()))
	case Start, PostStart, PreStop, Remove, StopSandbox, RemoveSandbox, Cancel:
		return string(a.Kind) + "/" + a.ID
	}
	return string(a.Kind)
}

// NeedsSlot says whether the action is one of the calls of which only a few
// should run at once.
func (a Action) NeedsSlot() bool {
	return a.Kind == RunSandbox || a.Kind == Create || a.Kind == Start
}

// ChangesRuntime says whether the action alters what the runtime shows.
func (a Action) ChangesRuntime() bool {
	switch a.Kind {
	case RunSandbox, Create, Start, StopContainer, Remove, StopSandbox, RemoveSandbox, Actuate:
		return true
	}
	return false
}
