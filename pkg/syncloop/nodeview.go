package syncloop

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// askNodeTimeout bounds the look at the node's newest object.
const askNodeTimeout = 10 * time.Second

// SetNode tells of the node's object its labels and taints, by which pods are let
// in from now on (those that have their grant keep it), and its addresses, none
// if they are not known yet.
func (l *Loop) SetNode(labels map[string]string, taints []v1.Taint, hostIPs []string) {
	l.grants.setNode(labels, taints)
	if len(hostIPs) > 0 {
		l.setNode(func(n *pod.Node) { n.HostIPs = hostIPs })
	}
}

func (g *grants) setNode(labels map[string]string, taints []v1.Taint) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledger.Node.Labels, g.ledger.Node.Taints = labels, taints
}

// ask asks the ledger. A pod that the node's labels refuse may have been
// scheduled by newer ones: they are read once more (behaviour row 1.2-4).
func (l *Loop) ask(ctx context.Context, c ledger.Claim) pod.Verdict {
	v := l.grants.admit(c)
	if v.Reason != ledger.NodeAffinity || l.AskNode == nil {
		return v
	}
	ctx, cancel := context.WithTimeout(ctx, askNodeTimeout)
	defer cancel()
	if err := l.AskNode(ctx); err != nil {
		l.Log.Warn("the node's newest labels could not be read; a pod is refused by those known", "pod", c.Pod, "error", err)
		return v
	}
	return l.grants.admit(c)
}
