package syncloop

import (
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// preempt ends pods for one that is critical to the node (behaviour row 1.2-15).
// Whoever waits for them asks again when the last has given back its grant. To
// end one twice does no harm.
func (l *Loop) preempt(uids []types.UID) {
	const message = "Preempted in order to admit critical pod"
	for _, uid := range uids {
		if a := l.actor(uid); a != nil {
			a.mail.put(pod.Ended{At: time.Now(), Grace: -1, Phase: v1.PodFailed, Reason: ledger.Preempting, Message: message,
				Disruption: "Pod was preempted by Kubelet to accommodate a critical pod.",
				Told:       []pod.Note{{Warning: true, Reason: ledger.Preempting, Message: message}}})
		}
	}
}
