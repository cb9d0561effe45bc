package trace

import (
	"cmp"
	"context"
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	meters "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc/stats"
)

// Who is called learns of the trace by the W3C's header. Baggage is not handed on:
// nothing here has any, and what callers send is not for others.
var propagator = propagation.TraceContext{}

// The agent counts its calls itself (package metrics).
var unmeasured = meters.NewMeterProvider()

// GRPC makes a span of each call that is made below another span; nil for a nil
// Tracer.
func (t *Tracer) GRPC() stats.Handler {
	if t == nil {
		return nil
	}
	return otelgrpc.NewClientHandler(otelgrpc.WithTracerProvider(below{of: t.provider}),
		otelgrpc.WithMeterProvider(unmeasured), otelgrpc.WithPropagators(propagator))
}

// Wrap makes a span of each request that is made below another span; for a nil
// Tracer it is rt as it was.
func (t *Tracer) Wrap(rt http.RoundTripper) http.RoundTripper {
	if t == nil {
		return rt
	}
	return otelhttp.NewTransport(rt, otelhttp.WithTracerProvider(t.provider), otelhttp.WithMeterProvider(unmeasured),
		otelhttp.WithPropagators(propagator), otelhttp.WithFilter(func(r *http.Request) bool { return inSpan(r.Context()) }))
}

// Handler makes a span of each request, named for its route. It begins a trace of
// its own, linked to the caller's: a caller does not decide what is sampled here
// (as with the kubelet, behaviour row 1.25-2). Queries are left out, they may hold
// what people type.
func (t *Tracer) Handler(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return otelhttp.NewHandler(next, "", otelhttp.WithTracerProvider(t.provider), otelhttp.WithMeterProvider(unmeasured),
		otelhttp.WithPropagators(propagator), otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return true }),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return cmp.Or(r.Pattern, r.Method) }))
}

func inSpan(ctx context.Context) bool { return oteltrace.SpanContextFromContext(ctx).IsValid() }

// below begins no trace: what is asked of the runtime for no pod in particular,
// such as its state, would be a trace each second.
type below struct {
	embedded.TracerProvider
	of oteltrace.TracerProvider
}

// Tracer implements oteltrace.TracerProvider.
func (b below) Tracer(name string, options ...oteltrace.TracerOption) oteltrace.Tracer {
	return tracerBelow{of: b.of.Tracer(name, options...)}
}

type tracerBelow struct {
	embedded.Tracer
	of oteltrace.Tracer
}

// Start implements oteltrace.Tracer.
func (t tracerBelow) Start(ctx context.Context, name string, options ...oteltrace.SpanStartOption) (context.Context, oteltrace.Span) {
	if !inSpan(ctx) {
		return ctx, noop.Span{}
	}
	return t.of.Start(ctx, name, options...)
}
