package trace

import (
	"context"
	"log/slog"
	"sync/atomic"

	"google.golang.org/grpc"
)

// collector is who traces are sent to, as the calls to it show.
type collector struct {
	log      *slog.Logger
	endpoint string
	lost     atomic.Bool
}

// watch is a grpc.UnaryClientInterceptor.
func (c *collector) watch(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
	err := call(ctx, method, request, reply, conn, options...)
	c.tell(err)
	return err
}

// tell says when the collector is lost and when it is back, and nothing between.
func (c *collector) tell(err error) {
	switch was := c.lost.Swap(err != nil); {
	case err != nil && !was:
		c.log.Warn("traces cannot be sent and are lost until the collector takes them again (tracing.endpoint)", "endpoint", c.endpoint, "error", err)
	case err == nil && was:
		c.log.Info("the collector takes traces again", "endpoint", c.endpoint)
	}
}
