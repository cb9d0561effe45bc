package syncloop

import (
	"context"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/probe"
)

// probes are the handlers of probes, as the loop calls them.
type probes struct{ *agent }

func (h probes) Ask(pod.Probing) probe.Ask {
	return func(context.Context) (pod.Outcome, string) { return pod.Passed, "" }
}
