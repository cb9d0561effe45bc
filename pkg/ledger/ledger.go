// Package ledger holds what concerns several pods at once as one value:
// what is admitted and granted on this node. Its functions are pure; whoever
// owns the value writes a grant to disk before the pod may act on it.
package ledger

import (
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	helpers "k8s.io/component-helpers/resource"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Ledger is what the node has granted. It is a value: Admit and Release return
// a new one.
type Ledger struct {
	// Allocatable is what pods may have together: cpu, memory, pods,
	// ephemeral-storage, hugepages, extended resources.
	Allocatable v1.ResourceList
	Node        Node
	// Sysctls may be set by pods besides the safe ones (allowedUnsafeSysctls).
	Sysctls []string
	Host    Host
	Users   Users
	// Grants are the pods let in.
	Grants map[types.UID]Grant
	// Room holds, of pods that were let in, those who have to end first.
	Room map[types.UID][]types.UID
	// Queue holds the pods that wait for their full name, in arrival order.
	Queue []Claim
	// Pending holds the resizes that are deferred, the foremost first.
	Pending []Resizing
}

// Claim is what a pod asks of the node.
type Claim struct {
	UID types.UID
	// Pod is namespace and name, for people.
	Pod string
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
	Place                Place
	Rank                 Rank
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
	c := Claim{UID: p.UID, Pod: p.Namespace + "/" + p.Name, HostNetwork: p.Spec.HostNetwork, HostIPC: p.Spec.HostIPC,
		Needs: needsOf(p), Place: placeOf(p), Rank: rankOf(p), OwnUsers: pod.OwnUsers(p), Requests: requestsOf(p)}
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

// requestsOf is what the pod requests, but for extended resources that a claim
// of its stands for.
func requestsOf(p *v1.Pod) v1.ResourceList {
	list := helpers.PodRequests(p, helpers.PodResourcesOptions{})
	if s := p.Status.ExtendedResourceClaimStatus; s != nil {
		for _, m := range s.RequestMappings {
			delete(list, v1.ResourceName(m.ResourceName))
		}
	}
	return list
}

// Admit lets the pod in, has it wait for its name or for the end of others, or
// refuses it, and says why. A pod that has its grant keeps it (behaviour row
// 1.24-2), for what it asks now: of one found running only the name may have
// been known.
func Admit(l Ledger, c Claim) (Ledger, pod.Verdict) {
	if _, ok := l.Grants[c.UID]; ok {
		l, v := grant(l, c)
		return l, l.yielded(c, v)
	}
	if holder := l.holder(c); holder != "" {
		if !slices.ContainsFunc(l.Queue, func(q Claim) bool { return q.UID == c.UID }) {
			l.Queue = append(slices.Clone(l.Queue), c)
		}
		return l, pod.Verdict{State: pod.Waiting, Reason: "NameTaken",
			Message: fmt.Sprintf("pod %s with UID %s has not ended yet", c.Name, holder)}
	}
	l.Queue = slices.DeleteFunc(slices.Clone(l.Queue), func(q Claim) bool { return q.UID == c.UID })
	// Those who were told to end are as good as gone: what they leave is for
	// whom it was taken from them, or else for who comes next.
	leaving := l.leaving()
	after := l.without(leaving)
	v, short := after.judge(c)
	if v.State == pod.Refused {
		return l, v
	}
	victims, why := after.victims(c, short)
	if why != "" {
		return l, pod.Verdict{State: pod.Refused, Reason: "UnexpectedAdmissionError", Message: why}
	}
	next, v := grant(l, c)
	if v.State == pod.Granted && (len(victims) > 0 || !l.fits(c)) {
		next.Room = roomFor(l.Room, c.UID, slices.Concat(victims, leaving))
	}
	return next, next.yielded(c, v)
}

// Readmit lets in a pod that had its grant before the agent began, and does not
// run: what it asked for may be another's by now. Where it may run was judged
// then (behaviour row 1.24-2).
func Readmit(l Ledger, c Claim) (Ledger, pod.Verdict) {
	if l.holder(c) == "" && l.fits(c) {
		return grant(l, c)
	}
	return Admit(l, c)
}

// fits says whether what the pod asks for is there now.
func (l Ledger) fits(c Claim) bool {
	return len(l.short(c)) == 0 && l.judgePorts(c).State != pod.Refused
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
// may ask again now that its name or its room is free.
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
	var waited []types.UID
	l.Room, waited = vacate(l.Room, c.UID)
	return l, append(next, waited...)
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
