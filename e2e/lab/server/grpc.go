package main

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// serveGRPC answers for every service but "unknown".
func (s *server) serveGRPC(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	g := grpc.NewServer()
	health.RegisterHealthServer(g, healthServer{server: s})
	return g.Serve(l)
}

type healthServer struct {
	health.UnimplementedHealthServer
	server *server
}

func (h healthServer) Check(ctx context.Context, r *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	if r.Service == "unknown" {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	switch h.server.now() {
	case "ok":
		return &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING}, nil
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &health.HealthCheckResponse{Status: health.HealthCheckResponse_NOT_SERVING}, nil
}
