package probe

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// askGRPC asks by the gRPC health protocol, without encryption (behaviour row
// 1.6-11). Each attempt has a connection of its own, which ends with it.
func (h *Handlers) askGRPC(q pod.Probing) Ask {
	at, err := address("", q.Host, intstr.FromInt32(q.Probe.GRPC.Port), q.Container)
	if err != nil {
		return never(err)
	}
	service := ""
	if s := q.Probe.GRPC.Service; s != nil {
		service = *s
	}
	timeout := timeout(q.Probe)
	return func(ctx context.Context) (pod.Outcome, string) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		conn, err := grpc.NewClient("passthrough:///"+at,
			grpc.WithUserAgent("kube-probe/"+h.release), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, at string) (net.Conn, error) {
				return h.dialer.DialContext(ctx, "tcp", at) // the default would ask for a proxy
			}))
		if err != nil {
			return pod.Failed, fmt.Sprintf("error: failed to connect service at %q: %v", at, err)
		}
		defer conn.Close()
		if !connect(ctx, conn) {
			return pod.Failed, fmt.Sprintf("timeout: failed to connect service %q within %v: %v", at, timeout, ctx.Err())
		}
		return check(ctx, conn, service, timeout)
	}
}

// connect says whether the connection came up within ctx.
func connect(ctx context.Context, conn *grpc.ClientConn) bool {
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return true
		case connectivity.Idle:
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, state) {
			return false
		}
	}
}

func check(ctx context.Context, conn *grpc.ClientConn, service string, timeout time.Duration) (pod.Outcome, string) {
	r, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	switch code := status.Code(err); {
	case code == codes.Unimplemented:
		return pod.Failed, "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): " + status.Convert(err).Message()
	case code == codes.DeadlineExceeded:
		return pod.Failed, fmt.Sprintf("timeout: health rpc did not complete within %v", timeout)
	case err != nil:
		return pod.Failed, fmt.Sprintf("error: health rpc probe failed: %v", err)
	case r.Status != grpc_health_v1.HealthCheckResponse_SERVING:
		return pod.Failed, fmt.Sprintf("service unhealthy (responded with %q)", r.Status)
	}
	return pod.Passed, ""
}
