package ui

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
	"github.com/nodeagent/nodeagent/pkg/timeline"
)

// Node is the node and all its pods.
type Node struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Runtime and Network are empty when ready, else say why not.
	Runtime string `json:"runtime,omitempty"`
	Network string `json:"network,omitempty"`
	Pods    []Row  `json:"pods"`
	// Measured says that there are figures to ask for.
	Measured bool      `json:"measured"`
	Problems []Problem `json:"problems,omitempty"`
}

// Problem is a manifest that was not taken.
type Problem struct {
	Origin  string `json:"origin"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

// Row is one pod in the list.
type Row struct {
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// State is what is most worth knowing in one word, Health what to think of it.
	State    string    `json:"state"`
	Health   Health    `json:"health"`
	Ready    int       `json:"ready"`
	Of       int       `json:"of"`
	Restarts int32     `json:"restarts"`
	Since    time.Time `json:"since,omitzero"`
	IP       string    `json:"ip,omitempty"`
	// Waits is the one thing that the pod waits for, Stuck says that it does not
	// get on.
	Waits string `json:"waits,omitempty"`
	Stuck bool   `json:"stuck,omitempty"`
}

// Health sorts the states of pods into what to think of them.
type Health string

// The healths. Others than Failing need nobody to do anything.
const (
	Running Health = "running" // and ready
	Waiting Health = "waiting" // on its way, or not ready
	Failing Health = "failing"
	Ending  Health = "ending"
	Done    Health = "done"
)

// Detail is all there is to show of one pod.
type Detail struct {
	Row
	Origin        string `json:"origin"`
	QoS           string `json:"qos"`
	RestartPolicy string `json:"restartPolicy"`
	Message       string `json:"message,omitempty"`
	// Blocker is what the pod waits for, nil for nothing.
	Blocker *pod.Blocker `json:"blocker,omitempty"`
	// Starts are the first one and, if there was another, the newest. What goes
	// on has no end.
	Starts     []timeline.Start `json:"starts"`
	Containers []Container      `json:"containers"`
	Events     []Event          `json:"events"`
}

// Container is one container and its newest instance.
type Container struct {
	Name     string    `json:"name"`
	Role     string    `json:"role"` // init, sidecar, main or debug
	Image    string    `json:"image"`
	State    string    `json:"state"` // in a word
	Health   Health    `json:"health"`
	Message  string    `json:"message,omitempty"`
	Ready    bool      `json:"ready"`
	Restarts int32     `json:"restarts"`
	Since    time.Time `json:"since,omitzero"`
	// Log is the ID of the instance whose log is shown, empty for none; Previous
	// says that there is one of the instance before too.
	Log      string `json:"log,omitempty"`
	Previous bool   `json:"previous"`
	// CPU in 1e-3 cores and memory in bytes that it may use, 0 for no limit.
	CPULimit    int64 `json:"cpuLimit,omitempty"`
	MemoryLimit int64 `json:"memoryLimit,omitempty"`
}

// Event is something that was told about a pod.
type Event struct {
	At        time.Time `json:"at"`
	Warning   bool      `json:"warning"`
	Reason    string    `json:"reason"`
	Message   string    `json:"message"`
	Container string    `json:"container,omitempty"`
	Count     int       `json:"count"`
	// UID, Namespace and Pod are set in a list over all pods.
	UID       string `json:"uid,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
}

// newest is how many events of the whole node are shown.
const newest = 100

func (s *site) list(w http.ResponseWriter, r *http.Request) {
	n, now := s.Pods.Node(), time.Now()
	out := Node{Name: n.Name, Version: s.Version, Runtime: n.Runtime, Network: n.Network, Measured: s.Stats != nil, Pods: []Row{}, Problems: problems(s.Pods.Problems())}
	for _, p := range s.Pods.Pods() {
		out.Pods = append(out.Pods, row(p, n, pod.Status(p, n, now), now))
	}
	slices.SortFunc(out.Pods, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	reply(w, r, out)
}

func problems(all []source.Problem) (out []Problem) {
	for _, p := range all {
		out = append(out, Problem{Origin: p.Origin, Field: p.Field, Message: p.Message})
	}
	return out
}

func (s *site) detail(w http.ResponseWriter, r *http.Request) {
	p, ok := s.find(r.PathValue("uid"))
	if !ok {
		http.Error(w, "the pod is gone", http.StatusNotFound)
		return
	}
	n, now := s.Pods.Node(), time.Now()
	status, t := pod.Status(p, n, now), timeline.Of(p, n, now)
	out := Detail{Row: row(p, n, status, now), Origin: p.Origin, QoS: string(status.QOSClass), RestartPolicy: string(p.Spec.Spec.RestartPolicy),
		Message: status.Message, Blocker: t.Blocker, Starts: endless(t.Starts), Containers: containers(p, status), Events: events(p)}
	for i := range out.Containers {
		out.Containers[i].findLogs(p, n, now)
	}
	newestFirst(out.Events)
	reply(w, r, out)
}

// endless takes the present out of what goes on, so that an answer is another
// only when something has happened.
func endless(starts []timeline.Start) []timeline.Start {
	for i := range starts {
		s := &starts[i]
		if s.Open {
			s.Ended, s.Accounted = time.Time{}, 0
		}
		for j := range s.Spans {
			if s.Spans[j].Open {
				s.Spans[j].Ended = time.Time{}
			}
		}
	}
	return starts
}

func (s *site) events(w http.ResponseWriter, r *http.Request) {
	all := []Event{}
	for _, p := range s.Pods.Pods() {
		for _, e := range events(p) {
			e.UID, e.Namespace, e.Pod = string(p.UID()), p.Spec.Namespace, p.Spec.Name
			all = append(all, e)
		}
	}
	newestFirst(all)
	reply(w, r, all[:min(len(all), newest)])
}

// newestFirst sorts by when it was told last.
func newestFirst(all []Event) {
	slices.Reverse(all) // of one moment too
	slices.SortStableFunc(all, func(a, b Event) int { return b.At.Compare(a.At) })
}

// events are what was told of the pod, in the order in which it was told first.
func events(p pod.Pod) []Event {
	out := []Event{}
	for _, n := range p.Notes {
		out = append(out, Event{At: n.At, Warning: n.Warning, Reason: n.Reason, Message: n.Message, Container: n.Container, Count: n.Count})
	}
	return out
}

func row(p pod.Pod, n pod.Node, s v1.PodStatus, now time.Time) Row {
	out := Row{UID: string(p.UID()), Namespace: p.Spec.Namespace, Name: p.Spec.Name, Of: len(p.Spec.Spec.Containers), IP: s.PodIP}
	ending := p.Stop != nil && p.Stop.Unwanted
	out.State = pod.Word(s, ending)
	if s.StartTime != nil {
		out.Since = s.StartTime.Time
	}
	failing := s.Phase == v1.PodFailed
	if b, blocked := pod.Blocked(p, n, now); blocked {
		out.Waits, out.Stuck = b.What, b.Stuck(now)
		failing = failing || b.Trouble
	}
	for _, c := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses) {
		failing = failing || health(c.State) == Failing && s.Phase != v1.PodSucceeded
	}
	for _, c := range s.ContainerStatuses {
		out.Restarts += c.RestartCount
		if c.Ready {
			out.Ready++
		}
	}
	switch {
	case ending:
		out.Health = Ending
	case failing:
		out.Health = Failing
	case s.Phase == v1.PodSucceeded:
		out.Health = Done
	case s.Phase == v1.PodRunning && out.Ready == out.Of:
		out.Health = Running
	default:
		out.Health = Waiting
	}
	if out.Health == Waiting && s.Phase == v1.PodRunning {
		out.State = "NotReady"
	}
	return out
}

// health is what to think of a container's state by itself.
func health(s v1.ContainerState) Health {
	switch {
	case s.Running != nil:
		return Running
	case s.Terminated != nil && s.Terminated.ExitCode == 0:
		return Done
	case s.Terminated != nil:
		return Failing
	case s.Waiting != nil && s.Waiting.Reason != "" && s.Waiting.Reason != "ContainerCreating" && s.Waiting.Reason != "PodInitializing":
		return Failing
	}
	return Waiting
}

// containers are those of the pod, in the order in which they start.
func containers(p pod.Pod, s v1.PodStatus) []Container {
	out := []Container{}
	for _, c := range p.Spec.Spec.InitContainers {
		role := "sidecar"
		if pod.Completes(p.Spec, c.Name) {
			role = "init"
		}
		out = append(out, container(c, role, s.InitContainerStatuses))
	}
	for _, c := range p.Spec.Spec.Containers {
		out = append(out, container(c, "main", s.ContainerStatuses))
	}
	for _, c := range p.Spec.Spec.EphemeralContainers {
		out = append(out, container(v1.Container(c.EphemeralContainerCommon), "debug", s.EphemeralContainerStatuses))
	}
	return out
}

func container(c v1.Container, role string, statuses []v1.ContainerStatus) Container {
	out := Container{Name: c.Name, Role: role, Image: c.Image, Health: Waiting, State: "Waiting",
		CPULimit: c.Resources.Limits.Cpu().MilliValue(), MemoryLimit: c.Resources.Limits.Memory().Value()}
	i := slices.IndexFunc(statuses, func(s v1.ContainerStatus) bool { return s.Name == c.Name })
	if i < 0 {
		return out
	}
	s := statuses[i]
	out.Ready, out.Restarts, out.Health = s.Ready, s.RestartCount, health(s.State)
	switch {
	case s.State.Running != nil:
		out.State, out.Since = "Running", s.State.Running.StartedAt.Time
	case s.State.Terminated != nil:
		t := s.State.Terminated
		out.State, out.Since, out.Message = cmp.Or(t.Reason, "Ended"), t.FinishedAt.Time, ended(t)
	case s.State.Waiting != nil:
		out.State, out.Message = cmp.Or(s.State.Waiting.Reason, "Waiting"), s.State.Waiting.Message
	}
	if t := s.LastTerminationState.Terminated; t != nil && out.Health != Done {
		out.Message = joined(out.Message, "before: "+ended(t))
	}
	return out
}

// findLogs says which logs of the container there are to read.
func (c *Container) findLogs(p pod.Pod, n pod.Node, now time.Time) {
	if i, err := pod.LogOf(p, n, now, c.Name, false); err == nil {
		c.Log = i.ID
	}
	before, err := pod.LogOf(p, n, now, c.Name, true)
	c.Previous = err == nil && before.ID != c.Log
}

// ended is an end in words.
func ended(t *v1.ContainerStateTerminated) string {
	return joined("exit code "+strconv.Itoa(int(t.ExitCode)), t.Message)
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}
