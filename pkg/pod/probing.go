package pod

import (
	"time"

	v1 "k8s.io/api/core/v1"
)

// Probe is a kind of probe.
type Probe int

// The three probes of a container.
const (
	Startup Probe = iota
	Liveness
	Readiness
)

// String is the probe's name as in events.
func (k Probe) String() string { return [...]string{"Startup", "Liveness", "Readiness"}[k] }

// Outcome is how one attempt of a probe went.
type Outcome int

// An attempt that errored or broke off says nothing of the container.
const (
	Passed Outcome = iota
	Failed
	Warned  // it passed, but people should look at it
	Errored // it could not be made
	Broken  // the answer began, but broke off
)

// Conclusive says whether the attempt counts for or against the container.
func (o Outcome) Conclusive() bool { return o == Passed || o == Failed || o == Warned }

// unhealthy is what people are told of an attempt (behaviour row 1.6-5).
var unhealthy = map[Outcome]struct{ reason, text string }{
	Failed:  {"Unhealthy", "%s probe failed: %s"},
	Warned:  {"ProbeWarning", "%s probe warning: %s"},
	Errored: {"Unhealthy", "%s probe errored and resulted in unknown state: %s"},
	Broken:  {"Unhealthy", "%s probe errored and resulted in failure state: %s"},
}

// Probed is what an attempt of a probe brought for one instance.
type Probed struct {
	At          time.Time
	Container   string
	ContainerID string
	Probe       Probe
	Outcome     Outcome
	// Message is for people: why it did not pass.
	Message string
	// Result is what the probe's threshold says from now on; ResultNone when
	// the attempt changed nothing.
	Result Result
}

func (Probed) isEvent() {}

// probed takes a probe's answer, if it is about the newest instance.
func (p *Pod) probed(e Probed) {
	m := p.Containers[e.Container]
	if m.Known == nil || m.Known.ID != e.ContainerID {
		return
	}
	if e.Result != ResultNone {
		p.remember(e.Container, func(m *Memory) {
			if m.Instance.ID != e.ContainerID {
				m.Instance = Instance{ID: e.ContainerID, PostStart: HookDone}
			}
			*m.Instance.result(e.Probe) = e.Result
		})
	}
	if n, some := unhealthy[e.Outcome]; some {
		p.note(e.At, true, n.reason, e.Container, n.text, e.Probe, e.Message)
	}
}

// result is where the probe's newest result stands.
func (i *Instance) result(k Probe) *Result {
	return [...]*Result{Startup: &i.Startup, Liveness: &i.Liveness, Readiness: &i.Readiness}[k]
}

// Probing is a probe that is to run now.
type Probing struct {
	Kind        Probe
	Probe       *v1.Probe
	Container   *v1.Container
	ContainerID string
	// Host is where its target is, unless the probe names another: the pod's
	// address, "" if it has none.
	Host      string
	StartedAt time.Time
	// Found says that the instance ran before this process knew of it.
	Found bool
}

// Probes are the probes that are to run now, by container in spec order
// (behaviour rows 1.6-13 to 1.6-16).
func Probes(p Pod, n Node) []Probing {
	var out []Probing
	for _, m := range lasting(p.Spec) {
		mem := p.Containers[m.Name]
		k := mem.Known
		if m.role == initial || k == nil || k.State != Running || mem.Instance.ID != k.ID || !p.present(k) || p.hooking(mem) {
			continue
		}
		add := func(kind Probe, probe *v1.Probe) {
			if probe != nil {
				out = append(out, Probing{Kind: kind, Probe: probe, Container: m.Container, ContainerID: k.ID,
					Host: p.Address(n), StartedAt: k.StartedAt, Found: mem.Instance.Found})
			}
		}
		// One that is being ended is no longer asked whether it should be.
		ending := p.Stop != nil || !mem.Instance.KillAt.IsZero() || mem.Instance.Startup == Fail || mem.Instance.Liveness == Fail
		switch {
		case !p.isStarted(m):
			if !ending {
				add(Startup, m.StartupProbe)
			}
		case ending:
			add(Readiness, m.ReadinessProbe)
		default:
			add(Liveness, m.LivenessProbe)
			add(Readiness, m.ReadinessProbe)
		}
	}
	return out
}

// Address is where the pod's containers are reached, "" if nowhere yet.
func (p Pod) Address(n Node) string {
	var s v1.PodStatus
	p.addresses(&s, n)
	return s.PodIP
}

// graceOf is the grace of a container that its probe ends: the probe's own, else
// the pod's (behaviour row 1.6-20).
func (p Pod) graceOf(probe *v1.Probe) time.Duration {
	if probe == nil || probe.TerminationGracePeriodSeconds == nil {
		return specGrace(p.Spec)
	}
	return time.Duration(*probe.TerminationGracePeriodSeconds) * time.Second
}

// found is an instance that runs and that this process did not start: an
// earlier one perhaps, which left word of how it was (behaviour row 1.6-17).
// Its postStart hook was its starter's business.
func (p *Pod) found(c Container) Instance {
	i := Instance{ID: c.ID, PostStart: HookDone, Found: true}
	if p.Setup.Recorded == nil {
		return i
	}
	if r := p.Setup.Recorded.Containers[c.Name]; r.Instance == c.ID {
		if r.Started {
			i.Startup = Success
		}
		if r.Ready {
			i.Readiness = Success
		}
	}
	return i
}
