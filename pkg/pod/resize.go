package pod

import (
	"cmp"
	"encoding/json"
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
)

// A pod's resources are known three times. Desired are those that its source
// asks for. Allocated are those that the ledger granted: Pod.Spec has them, so
// that all who read it agree. Actuated are those that cgroups and containers
// were last set to. A resize takes the pod from one to the next (behaviour rows
// 1.3-32 to 1.3-35).

// Resources are what a pod and its containers ask for and may use.
type Resources struct {
	// Containers has init and main containers by name.
	Containers map[string]v1.ResourceRequirements `json:"containers,omitempty"`
	// Pod is of the pod as a whole, nil if it says nothing.
	Pod *v1.ResourceRequirements `json:"pod,omitempty"`
}

// Resize is how far the pod is from the resources that it was last asked to have.
type Resize struct {
	// Desired is the newest wish as its source gave it, if it asks for other
	// resources than Spec has; else nil.
	Desired *v1.Pod
	// Since is when Desired was first wanted.
	Since time.Time
	// Ask says that the ledger is to be asked, perhaps again.
	Ask bool
	// Answer is the ledger's last one while it is no: Waiting with reason
	// Deferred, or Refused with reason Infeasible.
	Answer Verdict
	// Actuated is what the pod was set to before the grant that is not
	// actuated yet, else nil.
	Actuated *Actuated
	// Generation of the pod whose resize is being actuated.
	Generation int64
	// Error is why actuating failed last.
	Error string
}

// Actuated are resources that were granted before.
type Actuated struct {
	Resources
	// Instances are the IDs by container name that were made with them. Any
	// other was made since, with what Spec says.
	Instances map[string]string `json:"instances,omitempty"`
}

// Resized is the ledger's answer to a resize. One that says nothing says to ask
// again: there may be room now.
type Resized struct {
	At      time.Time
	Desired *v1.Pod // what was asked for
	Verdict Verdict
	Record  *Record // as written to disk, when granted
}

func (Resized) isEvent() {}

// ResourcesOf are the pod's resources as its spec says them.
func ResourcesOf(spec *v1.Pod) Resources {
	r := Resources{Containers: map[string]v1.ResourceRequirements{}, Pod: spec.Spec.Resources}
	for _, m := range lasting(spec) {
		r.Containers[m.Name] = m.Resources
	}
	return r
}

// On is the pod with these resources; the same pod if it has them. A container
// that they don't name keeps its own.
func (r Resources) On(spec *v1.Pod) *v1.Pod {
	out := spec
	change := func() *v1.Pod {
		if out == spec {
			out = spec.DeepCopy()
		}
		return out
	}
	if !equality.Semantic.DeepEqual(r.Pod, spec.Spec.Resources) {
		change().Spec.Resources = r.Pod.DeepCopy()
	}
	for _, m := range lasting(spec) {
		if of, ok := r.Containers[m.Name]; ok && !equality.Semantic.DeepEqual(of, m.Resources) {
			c := FindContainer(change(), m.Name)
			c.Resources = *of.DeepCopy()
		}
	}
	return out
}

// Wish is the pod as its source wants it.
func (p Pod) Wish() *v1.Pod { return cmp.Or(p.Resize.Desired, p.Spec) }

// Actuated is the pod with the resources that it was last set to.
func (p Pod) Actuated() *v1.Pod {
	if p.Resize.Actuated == nil {
		return p.Spec
	}
	return p.Resize.Actuated.On(p.Spec)
}

// wish takes in a newer wish, with the resources allocated so far. The ledger is
// asked for others, and told when they are no longer wanted.
func (p *Pod) wish(spec *v1.Pod, at time.Time) {
	allocated := ResourcesOf(p.Spec).On(spec)
	p.Spec = allocated
	if allocated == spec {
		p.Resize.Desired = nil
		p.Resize.Ask = p.Resize.Answer.State == Waiting
		if p.Resize.Answer.State == Refused {
			p.Resize.Answer = Verdict{}
		}
		return
	}
	if before := p.Resize.Desired; before == nil || ResourcesOf(before).On(spec) != spec {
		p.Resize.Since = at
	}
	p.Resize.Desired, p.Resize.Ask = spec, true
}

// takeOver begins with what another agent granted and gave to the pod, be it
// another than this one's record says: it is newer.
func (p *Pod) takeOver(w Wanted) {
	p.Spec, p.Resize = w.Allocated.On(w.Spec), Resize{}
	if w.Actuated != nil {
		if had := w.Actuated.On(p.Spec); had != p.Spec {
			p.outgrow(had)
		}
	}
	p.wish(w.Spec, w.At)
}

// resized takes the ledger's answer.
func (p *Pod) resized(e Resized) {
	r := &p.Resize
	if e.Verdict.State == Unasked {
		r.Ask = r.Ask || r.Answer.State == Waiting
		return
	}
	asked := p.Doing[Action{Kind: Allocate}.Key()]
	p.Doing = without(p.Doing, Action{Kind: Allocate}.Key())
	p.took(asked.step(Done{At: e.At, Action: Action{Kind: Allocate}, Failure: e.Verdict.failure()}))
	if e.Record != nil {
		p.Setup.Recorded = e.Record
	}
	if e.Verdict.State != Granted {
		told := r.Answer == e.Verdict
		r.Answer = e.Verdict
		if !told {
			p.note(e.At, true, "Resize"+e.Verdict.Reason, "", "%s", summary("Pod resize "+e.Verdict.Reason, e.Desired, e.Verdict.Message))
		}
		return
	}
	r.Answer = Verdict{}
	wish, before := p.Wish(), p.Spec
	p.Spec = ResourcesOf(e.Desired).On(wish)
	r.Desired = nil
	if p.Spec != wish {
		r.Desired, r.Ask, r.Since = wish, true, e.At // it changed meanwhile
	}
	if ResourcesOf(before).On(p.Spec) == p.Spec {
		return
	}
	r.Generation, r.Error = p.Spec.Generation, ""
	p.Setup.Failures = without(p.Setup.Failures, Action{Kind: Actuate}.Key())
	p.outgrow(before)
	p.note(e.At, false, "ResizeStarted", "", "%s", summary("Pod resize started", p.Spec, ""))
}

// outgrow notes what the pod was set to before it was granted other resources.
func (p *Pod) outgrow(before *v1.Pod) {
	if p.Resize.Actuated != nil {
		return // that is older still
	}
	instances := map[string]string{}
	for name, m := range p.Containers {
		if k := m.Known; k != nil && k.State != Exited {
			instances[name] = k.ID
		}
	}
	p.Resize.Actuated = &Actuated{Resources: ResourcesOf(before), Instances: instances}
}

// actuated notes that all was set to what was granted.
func (p *Pod) actuated(at time.Time) {
	p.Resize.Actuated, p.Resize.Error = nil, ""
	p.Stale = true // the runtime shows what containers have
	p.note(at, false, "ResizeCompleted", "", "%s", summary("Pod resize completed", p.Spec, ""))
}

// notActuated notes why it was not; it is tried again.
func (p *Pod) notActuated(at time.Time, why string) {
	if p.Resize.Error == "" {
		p.note(at, true, "ResizeError", "", "%s", summary("Pod resize error", p.Spec, why))
	}
	p.Resize.Error = why
}

// summary is the message of an event about a resize: what happened, and the
// resources in JSON.
func summary(what string, spec *v1.Pod, problem string) string {
	type container struct {
		Name      string                  `json:"name"`
		Resources v1.ResourceRequirements `json:"resources"`
	}
	s := struct {
		InitContainers []container `json:"initContainers,omitempty"`
		Containers     []container `json:"containers,omitempty"`
		Generation     int64       `json:"generation"`
		Error          string      `json:"error,omitempty"`
	}{Generation: spec.Generation, Error: problem}
	for _, m := range inits(spec) {
		s.InitContainers = append(s.InitContainers, container{m.Name, m.Resources})
	}
	for _, m := range mains(spec) {
		s.Containers = append(s.Containers, container{m.Name, m.Resources})
	}
	text, err := json.Marshal(s)
	if err != nil {
		return what // quantities and names always encode
	}
	return what + ": " + string(text)
}

// Has is what the runtime says that an instance has of cpu and memory; nil is
// not said, or none.
type Has struct{ CPURequest, CPULimit, MemoryLimit *resource.Quantity }

// Below these the kernel's smallest values stand for what was asked for, so that
// it is shown as asked for (behaviour row 1.3-25).
const (
	leastLimit   = 10 // thousandths of a CPU
	leastRequest = 2
)

// statusResources are the resources that an instance has: as the runtime shows
// them if it runs, else as they are allocated.
func (m member) statusResources(k *Container) *v1.ResourceRequirements {
	r := m.Resources.DeepCopy()
	if k == nil || k.State != Running || k.Has == nil {
		return r
	}
	if q := k.Has.CPULimit; r.Limits != nil && q != nil && (q.MilliValue() > leastLimit || r.Limits.Cpu().MilliValue() > leastLimit) {
		r.Limits[v1.ResourceCPU] = q.DeepCopy()
	}
	if q := k.Has.MemoryLimit; r.Limits != nil && q != nil {
		r.Limits[v1.ResourceMemory] = q.DeepCopy()
	}
	if q := k.Has.CPURequest; r.Requests != nil && q != nil && (q.MilliValue() > leastRequest || r.Requests.Cpu().MilliValue() > leastRequest) {
		r.Requests[v1.ResourceCPU] = q.DeepCopy()
	}
	return r
}

// Update is a running instance that is to be given other resources.
type Update struct{ Container, ID string }

// Updates are the instances to be changed where they run, in spec order.
func (p Pod) Updates() (out []Update) {
	was := p.Resize.Actuated
	if was == nil {
		return nil
	}
	all := !equality.Semantic.DeepEqual(was.Pod, p.Spec.Spec.Resources)
	for _, m := range lasting(p.Spec) {
		k := p.Containers[m.Name].Known
		if k == nil || k.State == Exited || was.Instances[m.Name] != k.ID || !has(p.View, k.ID) {
			continue
		}
		if all || !equality.Semantic.DeepEqual(was.Containers[m.Name], m.Resources) {
			out = append(out, Update{m.Name, k.ID})
		}
	}
	return out
}

// needsRestart says that the instance was made with other resources, and that
// the container is to be restarted to get them (resizePolicy).
func (p Pod) needsRestart(m member, c Container) bool {
	was := p.Resize.Actuated
	if was == nil || was.Instances[m.Name] != c.ID || c.State == Created { // it has yet to begin
		return false
	}
	before := was.Containers[m.Name]
	for _, policy := range m.ResizePolicy {
		request, limit := m.Resources.Requests[policy.ResourceName], m.Resources.Limits[policy.ResourceName]
		if policy.RestartPolicy == v1.RestartContainer &&
			(!request.Equal(before.Requests[policy.ResourceName]) || !limit.Equal(before.Limits[policy.ResourceName])) {
			return true
		}
	}
	return false
}

// resize asks the ledger for other resources, and has those that it granted set.
// Containers to be restarted for it are ended before.
func (l *planner) resize() {
	if l.Resize.Actuated == nil {
		if l.Resize.Ask && !l.underway(Prepare, Create, Save) {
			l.do(Action{Kind: Allocate, Why: "other resources are wanted"})
		}
		return
	}
	for _, m := range lasting(l.Spec) {
		if k := l.Containers[m.Name].Known; k != nil && k.State != Exited && l.present(k) && l.needsRestart(m, *k) {
			l.wait("container %s ends, to be restarted with other resources", m.Name)
			return
		}
	}
	if !l.underway(Prepare, Create, Start) {
		l.do(Action{Kind: Actuate, Why: "other resources were granted"})
	}
}

// Unsure says that nobody knows with which resources the created instance was
// made: the call to make it was not answered, and may be older than a resize.
func (p Pod) Unsure(container, id string) bool { return p.Containers[container].Made != id }

// resizing says that no container can be made now, as it is not settled with
// which resources.
func (l *planner) resizing() bool {
	_, failed := l.Setup.Failures[Action{Kind: Actuate}.Key()]
	return l.underway(Allocate, Actuate) || l.Resize.Actuated != nil && !failed
}

// resizeConditions say what keeps the pod from what it was asked to have
// (behaviour row 1.3-32).
func (p Pod) resizeConditions() (out []v1.PodCondition) {
	if p.Stop != nil {
		return nil
	}
	if a := p.Resize.Answer; a.State != Unasked {
		out = append(out, v1.PodCondition{Type: v1.PodResizePending, Status: v1.ConditionTrue, Reason: a.Reason, Message: a.Message, ObservedGeneration: p.Wish().Generation})
	}
	if p.Resize.Actuated != nil {
		c := v1.PodCondition{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue, ObservedGeneration: p.Resize.Generation}
		if p.Resize.Error != "" {
			c.Reason, c.Message = v1.PodReasonError, p.Resize.Error
		}
		out = append(out, c)
	}
	return out
}

func (a *Actuated) equal(o *Actuated) bool {
	if a == nil || o == nil || a == o {
		return a == o
	}
	return equality.Semantic.DeepEqual(a.Resources, o.Resources) && maps.Equal(a.Instances, o.Instances)
}

// Unresizable says why no node can take the pod from what is allocated to what
// is desired, as an apiserver would; "" if one may.
func Unresizable(allocated, desired *v1.Pod) string {
	if QoS(allocated) != QoS(desired) {
		return "Pod QOS Class may not change as a result of resizing"
	}
	before := ResourcesOf(allocated)
	for _, m := range lasting(desired) {
		if was, ok := before.Containers[m.Name]; ok {
			if why := unresizable(was, m.Resources); why != "" {
				return "container " + m.Name + ": " + why
			}
		}
	}
	if before.Pod == nil || desired.Spec.Resources == nil {
		if before.Pod != desired.Spec.Resources {
			return "pod-level resources cannot be added or removed"
		}
		return ""
	}
	if why := unresizable(*before.Pod, *desired.Spec.Resources); why != "" {
		return "pod-level " + why
	}
	return ""
}

func unresizable(was, want v1.ResourceRequirements) string {
	for _, of := range []struct {
		what      string
		was, want v1.ResourceList
	}{{"requests", was.Requests, want.Requests}, {"limits", was.Limits, want.Limits}} {
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			_, had := of.was[name]
			if _, has := of.want[name]; had && !has {
				return "resource " + of.what + " cannot be removed: " + string(name)
			}
		}
		if !equality.Semantic.DeepEqual(others(of.was), others(of.want)) {
			return "only cpu and memory resources are mutable"
		}
	}
	return ""
}

// others are the resources besides cpu and memory.
func others(l v1.ResourceList) v1.ResourceList {
	out := v1.ResourceList{}
	for name, q := range l {
		if name != v1.ResourceCPU && name != v1.ResourceMemory {
			out[name] = q
		}
	}
	return out
}

// ResizesSwap says that the resize would change how much swap a container may
// use, though it is not restarted for it (behaviour row 1.3-33).
func ResizesSwap(allocated, desired *v1.Pod) bool {
	for _, m := range lasting(desired) {
		was := FindContainer(allocated, m.Name)
		if was == nil || was.Resources.Requests.Memory().Equal(*m.Resources.Requests.Memory()) {
			continue
		}
		restarts := false
		for _, policy := range was.ResizePolicy {
			restarts = restarts || policy.ResourceName == v1.ResourceMemory && policy.RestartPolicy == v1.RestartContainer
		}
		if !restarts && (MaySwap(allocated, was) || MaySwap(desired, m.Container)) {
			return true
		}
	}
	return false
}

// MaySwap says that the container may use swap, if the node lets any do so
// (LimitedSwap, behaviour row 1.9-12): one of a burstable pod that is not
// critical, whose memory request is less than its limit.
func MaySwap(spec *v1.Pod, c *v1.Container) bool {
	request, limit := c.Resources.Requests.Memory(), c.Resources.Limits.Memory()
	return QoS(spec) == v1.PodQOSBurstable && !IsCritical(spec) && !(request.IsZero() && limit.IsZero()) && request.Cmp(*limit) != 0
}

// IsCritical says whether the pod is static, a mirror or of a system priority
// (behaviour row 1.2-15).
func IsCritical(spec *v1.Pod) bool {
	_, mirror := spec.Annotations[v1.MirrorPodAnnotationKey]
	return mirror || IsStatic(spec) || Priority(spec) >= SystemCritical
}
