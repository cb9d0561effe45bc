// Package tracetest takes in tests the traces that an agent sends.
package tracetest

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"sync"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Span is one that was sent.
type Span struct {
	Name              string
	Trace, ID, Parent string // in hex; no Parent: a trace begins here
	Attributes        map[string]string
	Resource          map[string]string
	Links             []string // IDs of spans
	Failed            bool
}

// Collector takes traces by OTLP, over gRPC.
type Collector struct {
	collectorv1.UnimplementedTraceServiceServer
	server *grpc.Server

	mu    sync.Mutex
	spans []Span
}

// Serve takes what is sent to l until Close.
func Serve(l net.Listener) *Collector {
	c := &Collector{server: grpc.NewServer()}
	collectorv1.RegisterTraceServiceServer(c.server, c)
	go c.server.Serve(l)
	return c
}

// Close ends it.
func (c *Collector) Close() { c.server.Stop() }

// Spans are those that came so far.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Export is the call that brings spans.
func (c *Collector) Export(_ context.Context, r *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range r.ResourceSpans {
		resource := attributes(of.GetResource().GetAttributes())
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, read(s, resource))
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func read(s *tracev1.Span, resource map[string]string) Span {
	out := Span{
		Name: s.Name, Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId), Parent: hex.EncodeToString(s.ParentSpanId),
		Attributes: attributes(s.Attributes), Resource: resource, Failed: s.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR,
	}
	for _, l := range s.Links {
		out.Links = append(out.Links, hex.EncodeToString(l.SpanId))
	}
	return out
}

// attributes are those that are texts.
func attributes(list []*commonv1.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range list {
		if s, ok := a.GetValue().GetValue().(*commonv1.AnyValue_StringValue); ok {
			out[a.Key] = s.StringValue
		}
	}
	return out
}
