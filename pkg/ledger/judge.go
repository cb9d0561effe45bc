package ledger

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// judge checks the claim, in the order of behaviour row 1.2-2; only the first
// reason is told. Of a critical pod that is refused for nothing else it says
// what there is too little of: others may have to make room for it.
func (l Ledger) judge(c Claim) (pod.Verdict, []shortage) {
	short := l.short(c)
	checks := []func(Claim) pod.Verdict{l.judgeSysctls, l.judgeOS, l.judgeGroups}
	if len(short) > 0 && !c.Rank.Critical {
		checks = append(checks, func(Claim) pod.Verdict { return short[0].verdict() })
	}
	checks = append(checks, l.judgeAffinity, l.judgeName, l.judgePorts, l.judgeTaints, l.judgeAppArmor, l.judgeFeatures)
	for _, check := range checks {
		if v := check(c); v.State == pod.Refused {
			return v, nil
		}
	}
	return pod.Verdict{}, short
}

func refused(reason, format string, args ...any) pod.Verdict {
	return pod.Verdict{State: pod.Refused, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// shortage is a resource of which the node has too little left, in thousandths
// for cpu.
type shortage struct {
	name              v1.ResourceName
	asked, used, most int64
}

func (s shortage) missing() int64 { return s.asked - (s.most - s.used) }

func (s shortage) verdict() pod.Verdict {
	return refused("OutOf"+string(s.name), "Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d",
		s.name, s.asked, s.used, s.most)
}

// short is what the others left too little of: the pod's own place first, then
// cpu, memory and ephemeral storage, then the rest by name (behaviour row 1.2-3).
func (l Ledger) short(c Claim) (out []shortage) {
	if most, ok := l.Allocatable[v1.ResourcePods]; ok && int64(len(l.Grants)) >= most.Value() {
		out = append(out, shortage{v1.ResourcePods, 1, int64(len(l.Grants)), most.Value()})
	}
	return append(out, l.shortRequests(c)...)
}

// shortRequests is short but for the number of pods. An extended resource that
// the node has never heard of is not its own to give (behaviour row 1.2-16).
func (l Ledger) shortRequests(c Claim) (out []shortage) {
	names := make([]v1.ResourceName, 0, len(c.Requests))
	for name := range c.Requests {
		names = append(names, name)
	}
	slices.SortFunc(names, order)
	for _, name := range names {
		most, known := l.Allocatable[name]
		asked := c.Requests[name]
		if asked.IsZero() || !known && isExtended(name) {
			continue
		}
		var used resource.Quantity
		for _, g := range l.Grants {
			used.Add(g.Requests[name])
		}
		sum := used.DeepCopy()
		sum.Add(asked)
		if sum.Cmp(most) > 0 {
			out = append(out, shortage{name, amount(name, asked), amount(name, used), amount(name, most)})
		}
	}
	return out
}

// isExtended says whether the resource is none of Kubernetes' own.
func isExtended(name v1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), v1.ResourceDefaultNamespacePrefix)
}

// judgePorts checks the host ports that are asked for (behaviour row 1.2-4).
func (l Ledger) judgePorts(c Claim) pod.Verdict {
	for _, want := range c.Ports {
		for _, g := range l.Grants {
			if slices.ContainsFunc(g.Ports, want.clashes) {
				return refused("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports")
			}
		}
	}
	return pod.Verdict{}
}

// clashes says whether the two ports cannot be had at once.
func (p Port) clashes(o Port) bool {
	everywhere := func(ip string) bool { return ip == "" || ip == "0.0.0.0" }
	return p.Number == o.Number && p.Protocol == o.Protocol &&
		(p.IP == o.IP || everywhere(p.IP) || everywhere(o.IP))
}

// amount is the number as messages give it: thousandths for cpu.
func amount(name v1.ResourceName, q resource.Quantity) int64 {
	if name == v1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// order puts cpu, memory and ephemeral storage before the others, which go by
// name.
func order(a, b v1.ResourceName) int {
	rank := func(n v1.ResourceName) string {
		switch n {
		case v1.ResourceCPU:
			return "0"
		case v1.ResourceMemory:
			return "1"
		case v1.ResourceEphemeralStorage:
			return "2"
		}
		return "3" + string(n)
	}
	return strings.Compare(rank(a), rank(b))
}
