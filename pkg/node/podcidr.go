package node

import (
	"context"
	"strings"
	"time"
)

// keepPodCIDR tells the runtime which addresses its pods get, once it is known
// and again whenever the runtime is another one (behaviour row 1.17-16).
func (r *Reporter) keepPodCIDR(ctx context.Context) error {
	trouble := trouble{log: r.Log, what: "the runtime does not know the addresses of pods (podCIDR)"}
	var given string
	session := -1
	again := time.NewTimer(0)
	again.Stop()
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.assign:
		case <-again.C:
		}
		n, runtime := r.Node(), r.Runtime()
		if n == nil || len(n.Spec.PodCIDRs) == 0 || runtime.Error != "" {
			continue
		}
		cidr := strings.Join(n.Spec.PodCIDRs, ",")
		if cidr == given && runtime.Session == session {
			continue
		}
		if err := r.PodCIDR(ctx, cidr); err != nil {
			again.Reset(trouble.failed(ctx, err))
			continue
		}
		trouble.over()
		again.Stop()
		if cidr != given {
			r.Log.Info("runtime was told the addresses of pods", "podCIDR", cidr)
		}
		given, session = cidr, runtime.Session
	}
}
