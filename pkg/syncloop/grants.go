package syncloop

import (
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// grants is the node's one ledger. Its functions are pure and quick, so a lock
// held for one of them is all the owner it needs.
type grants struct {
	mu     sync.Mutex
	ledger ledger.Ledger
}

func (g *grants) admit(c ledger.Claim) (v pod.Verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledger, v = ledger.Admit(g.ledger, c)
	return v
}

// readmit lets in a pod that an earlier process had let in, if it still can.
func (g *grants) readmit(c ledger.Claim) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledger, _ = ledger.Readmit(g.ledger, c)
}

// victims are those whose end the pod waits for.
func (g *grants) victims(uid types.UID) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return ledger.Victims(g.ledger, uid)
}

// leaves says whether the pod is to end for another's sake.
func (g *grants) leaves(uid types.UID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return ledger.Leaves(g.ledger, uid)
}

func (g *grants) enter(c ledger.Claim) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledger = ledger.Enter(g.ledger, c)
}

func (g *grants) release(c ledger.Claim) (next []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledger, next = ledger.Release(g.ledger, c)
	return next
}

// resize asks for other resources than the pod was granted.
func (g *grants) resize(r ledger.Resizing) (v pod.Verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledger, v = ledger.Resize(g.ledger, r)
	return v
}

// resized makes the claim, which is on disk, the pod's grant.
func (g *grants) resized(c ledger.Claim) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledger = ledger.Resized(g.ledger, c)
}

// due are the pods whose deferred resizes would be granted now.
func (g *grants) due() []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return ledger.Due(g.ledger)
}

// learn takes in what the runtime can do. It comes before any pod is judged,
// and again with each new session.
func (g *grants) learn(rt cri.Runtime) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledger.Host.StrictGroups = rt.StrictGroups
}

// would says what the verdict on a pod would be, and grants nothing.
func (g *grants) would(p *v1.Pod) pod.Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, v := ledger.Admit(g.ledger, ledger.ClaimOf(p))
	return v
}
