package pod

import (
	"time"

	v1 "k8s.io/api/core/v1"
)

// Event is something that became known. Every event says when.
type Event interface{ isEvent() }

// Wanted says that a source wants the pod to run as Spec says.
type Wanted struct {
	At     time.Time
	Spec   *v1.Pod
	Origin string
	Hashes map[string]string
	Boot   string // as in Setup
	// Allocated and Actuated are what another agent granted and gave to the pod,
	// which runs; nil if none did. A record that says otherwise is older.
	Allocated, Actuated *Resources
	// Told is what an apiserver was told of the containers of a pod that is new
	// here, nil if nothing: see Told.
	Told *v1.PodStatus
}

// Ended says that the pod is to stop: its source dropped it, its deletion was
// asked for, or the node evicts it. A second one may only shorten the grace.
type Ended struct {
	At      time.Time
	Grace   time.Duration // negative: what the spec says
	Phase   v1.PodPhase
	Reason  string
	Message string
	// Disruption is as in Stop.
	Disruption string
	// Unwanted: no source names the pod any more.
	Unwanted bool
	// Told is what people are to know of it, if it ends the pod: At, Seq and
	// Count are filled in.
	Told []Note
}

// Judged is the ledger's verdict.
type Judged struct {
	At      time.Time
	Verdict Verdict
}

// Begun says that an action was taken up.
type Begun struct {
	At     time.Time
	Action Action
}

// Done is the end of an action. Failure is nil when it worked.
type Done struct {
	At      time.Time
	Action  Action
	Failure *Failure
	// What it brought, by kind.
	View      *View      // Observe
	Sandbox   *Sandbox   // RunSandbox
	Container *Container // Create, Start
	Image     string     // Pull: the reference to create from
	Record    *Record    // Save
	// Usable says of a Mount that the volumes can be used, though it may have
	// failed to bring them up to date; Renew is when they are to be mounted
	// again, zero for never.
	Usable bool
	Renew  time.Time
	// Told is what people are to know of how it went, well or badly: At, Seq
	// and Count are filled in.
	Told []Note
}

// Logged is the highest log number found of each container: the restart count
// of instances of which nothing else is left (behaviour row T4).
type Logged struct {
	At       time.Time
	Restarts map[string]int32
}

// Renewed says that something that the pod refers to came, went or changed: an
// object, or what it says of itself in a volume.
type Renewed struct{ At time.Time }

// Said is what people are to know of an action that is under way: Seq and Count
// are filled in.
type Said struct {
	At   time.Time
	Note Note
}

// Changed is a hint that the runtime's view of the pod changed.
type Changed struct{ At time.Time }

// Tick says that time has passed, or that the node changed.
type Tick struct{ At time.Time }

func (Wanted) isEvent()  {}
func (Ended) isEvent()   {}
func (Judged) isEvent()  {}
func (Begun) isEvent()   {}
func (Done) isEvent()    {}
func (Logged) isEvent()  {}
func (Renewed) isEvent() {}
func (Said) isEvent()    {}
func (Changed) isEvent() {}
func (Tick) isEvent()    {}
