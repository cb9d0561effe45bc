package agent

import (
	"context"

	"k8s.io/client-go/transport"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/trace"
)

// trace begins to send traces, if that is configured, until stop.
func (a *Agent) trace(ctx context.Context) (stop func(), err error) {
	a.tracer, stop, err = trace.Start(ctx, trace.Options{
		Config: a.config.Kubelet.Tracing, Node: a.config.Node.Name, Version: config.GitVersion(), Log: a.log})
	return stop, err
}

// wrapper is what clients of the apiserver make their spans with.
func (a *Agent) wrapper() transport.WrapperFunc {
	if a.tracer == nil {
		return nil
	}
	return a.tracer.Wrap
}
