// Package ledger holds what concerns several pods at once as one value:
// what is admitted and granted on this node. Its functions are pure; whoever
// owns the value writes a grant to disk before the pod may act on it.
package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	helpers "k8s.io/component-helpers/resource"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Ledger is what the node has granted. It is a value: Admit and Release return
// a new one.
type Ledger struct {
	// Allocatable is what pods may have together: cpu, memory, pods,
	// ephemeral-storage, hugepages. A resource that is not in it is not
	// checked (behaviour row 1.2-16).
	Allocatable v1.ResourceList
	// Sysctls may be set by pods besides the safe ones (allowedUnsafeSysctls).
	Sysctls []string
	Host    Host
	Users   Users
	// Grants are the pods let in.
	Grants map[types.UID]Grant
	// Queue holds the pods that wait for their full name, in arrival order.
	Queue []Claim
	// Pending holds the resizes that are deferred, the foremost first.
	Pending []Resizing
}

// Claim is what a pod asks of the node.
type Claim struct {
	UID types.UID
	// Name is the full name if only one pod may hold it at a time, as with
	// static pods (behaviour row 1.1-15); else empty.
	Name     string
	Requests v1.ResourceList
	Ports    []Port
	// Sysctls are the names of those it sets, in namespaces of its own unless
	// it shares the host's.
	Sysctls              []string
	HostNetwork, HostIPC bool
	Needs                Needs
	// OwnUsers asks for a range of user IDs.
	OwnUsers bool
}

// Grant is a claim that was let in.
type Grant Claim

// Port is a port of the host.
type Port struct {
	IP       string
	Protocol v1.Protocol
	Number   int32
}

// ClaimOf is what the pod asks for.
func ClaimOf(p *v1.Pod) Claim {
	c := Claim{UID: p.UID, HostNetwork: p.Spec.HostNetwork, HostIPC: p.Spec.HostIPC,
		Needs: needsOf(p), OwnUsers: pod.OwnUsers(p), Requests: helpers.PodRequests(p, helpers.PodResourcesOptions{})}
	if pod.IsStatic(p) {
		c.Name = pod.FullName(p)
	}
	if sc := p.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			c.Sysctls = append(c.Sysctls, pod.SysctlName(s.Name))
		}
	}
	containers := slices.Clone(p.Spec.Containers)
	for _, i := range p.Spec.InitContainers {
		if pod.IsSidecar(&i) {
			containers = append(containers, i)
		}
	}
	for _, container := range containers {
		for _, port := range container.Ports {
			if port.HostPort != 0 {
				c.Ports = append(c.Ports, Port{IP: port.HostIP, Protocol: port.Protocol, Number: port.HostPort})
			}
		}
	}
	return c
}

// Admit lets the pod in, has it wait for its name, or refuses it, and says
// why. A pod that has its grant keeps it (behaviour row 1.24-2), for what it
// asks now: of one found running only the name may have been known.
func Admit(l Ledger, c Claim) (Ledger, pod.Verdict) {
	if _, ok := l.Grants[c.UID]; ok {
		return grant(l, c)
	}
	if holder := l.holder(c); holder != "" {
		if !slices.ContainsFunc(l.Queue, func(q Claim) bool { return q.UID == c.UID }) {
			l.Queue = append(slices.Clone(l.Queue), c)
		}
		return l, pod.Verdict{State: pod.Waiting, Reason: "NameTaken",
			Message: fmt.Sprintf("pod %s with UID %s has not ended yet", c.Name, holder)}
	}
	l.Queue = slices.DeleteFunc(slices.Clone(l.Queue), func(q Claim) bool { return q.UID == c.UID })
	if v := l.judge(c); v.State == pod.Refused {
		return l, v
	}
	return grant(l, c)
}

// grant lets the pod in, with user IDs of its own if it asks for them.
func grant(l Ledger, c Claim) (Ledger, pod.Verdict) {
	v := pod.Verdict{State: pod.Granted}
	if c.OwnUsers {
		var ok bool
		if l.Users, v.Users, ok = l.Users.grant(c.UID); !ok {
			return l, pod.Verdict{State: pod.Refused, Reason: "UnexpectedAdmissionError",
				Message: fmt.Sprintf("all %d ranges of user IDs are taken: a pod with hostUsers: false needs one", l.Users.Count)}
		}
	}
	return Enter(l, c), v
}

// Enter grants without judging: the pod already runs.
func Enter(l Ledger, c Claim) Ledger {
	grants := make(map[types.UID]Grant, len(l.Grants)+1)
	maps.Copy(grants, l.Grants)
	grants[c.UID] = Grant(c)
	l.Grants = grants
	return l
}

// Release takes the pod's grant or its place in the queue back, and says who
// may ask again now that its name is free.
func Release(l Ledger, c Claim) (Ledger, []types.UID) {
	l.Queue = slices.DeleteFunc(slices.Clone(l.Queue), func(q Claim) bool { return q.UID == c.UID })
	l.Pending = slices.DeleteFunc(slices.Clone(l.Pending), func(q Resizing) bool { return q.UID == c.UID })
	l.Grants = maps.Clone(l.Grants)
	delete(l.Grants, c.UID)
	l.Users = l.Users.release(c.UID)
	var next []types.UID
	for _, q := range l.Queue {
		if c.Name != "" && q.Name == c.Name {
			next = append(next, q.UID)
		}
	}
	return l, next
}

// holder is the pod whose turn it is to have the claim's name, if that is
// another one: he who has it, or he who came first.
func (l Ledger) holder(c Claim) types.UID {
	if c.Name == "" {
		return ""
	}
	var holders []types.UID
	for uid, g := range l.Grants {
		if g.Name == c.Name && uid != c.UID {
			holders = append(holders, uid)
		}
	}
	if len(holders) > 0 {
		return slices.Min(holders)
	}
	for _, q := range l.Queue {
		if q.UID == c.UID {
			return ""
		}
		if q.Name == c.Name {
			return q.UID
		}
	}
	return ""
}

// judge checks the claim against what is left (behaviour rows 1.2-3, 1.2-4, 1.2-6,
// 1.2-9, 1.2-10). Only the first reason is told.
func (l Ledger) judge(c Claim) pod.Verdict {
	if v := l.judgeSysctls(c); v.State == pod.Refused {
		return v
	}
	if v := l.judgeGroups(c); v.State == pod.Refused {
		return v
	}
	if most, ok := l.Allocatable[v1.ResourcePods]; ok && int64(len(l.Grants)) >= most.Value() {
		return outOf(v1.ResourcePods, 1, int64(len(l.Grants)), most.Value())
	}
	if v := l.judgeRequests(c); v.State == pod.Refused {
		return v
	}
	if v := l.judgePorts(c); v.State == pod.Refused {
		return v
	}
	return l.judgeAppArmor(c)
}

// judgeRequests checks what is asked for against what the others left.
func (l Ledger) judgeRequests(c Claim) pod.Verdict {
	names := make([]v1.ResourceName, 0, len(c.Requests))
	for name := range c.Requests {
		names = append(names, name)
	}
	slices.SortFunc(names, order)
	for _, name := range names {
		most, known := l.Allocatable[name]
		asked := c.Requests[name]
		if !known || asked.IsZero() {
			continue
		}
		var used resource.Quantity
		for _, g := range l.Grants {
			used.Add(g.Requests[name])
		}
		sum := used.DeepCopy()
		sum.Add(asked)
		if sum.Cmp(most) > 0 {
			return outOf(name, amount(name, asked), amount(name, used), amount(name, most))
		}
	}
	return pod.Verdict{}
}

func (l Ledger) judgePorts(c Claim) pod.Verdict {
	for _, want := range c.Ports {
		for _, g := range l.Grants {
			if slices.ContainsFunc(g.Ports, want.clashes) {
				return pod.Verdict{State: pod.Refused, Reason: "NodePorts",
					Message: fmt.Sprintf("Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports: %s %d is taken", want.Protocol, want.Number)}
			}
		}
	}
	return pod.Verdict{}
}

// clashes says whether the two ports cannot be had at once.
func (p Port) clashes(o Port) bool {
	everywhere := func(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }
	return p.Number == o.Number && p.Protocol == o.Protocol &&
		(p.IP == o.IP || everywhere(p.IP) || everywhere(o.IP))
}

func outOf(name v1.ResourceName, asked, used, most int64) pod.Verdict {
	return pod.Verdict{State: pod.Refused, Reason: "OutOf" + string(name),
		Message: fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, asked, used, most)}
}

// amount is the number as messages give it: thousandths for cpu.
func amount(name v1.ResourceName, q resource.Quantity) int64 {
	if name == v1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// order puts cpu and memory before the others, which go by name.
func order(a, b v1.ResourceName) int {
	rank := func(n v1.ResourceName) string {
		switch n {
		case v1.ResourceCPU:
			return "0"
		case v1.ResourceMemory:
			return "1"
		}
		return "2" + string(n)
	}
	return strings.Compare(rank(a), rank(b))
}
