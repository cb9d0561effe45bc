// Package trace sends OpenTelemetry traces of what the agent does for its pods,
// if the configuration says where to (behaviour section 1.25): a stretch of work
// on a pod is a trace, each action in it a span, and the calls to the runtime and
// to the apiserver that it makes are spans below that. Every span that is about
// one pod says the pod's uid.
//
// On a nil Tracer everything does nothing and costs nothing: whoever is made
// without one need not ask.
package trace

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	oteltrace "go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/component-base/tracing"
	tracingv1 "k8s.io/component-base/tracing/api/v1"
)

// flushTime bounds how long the agent's end waits for the last spans to go out.
const flushTime = time.Second

// scope is whose spans they are, beside those of libraries.
const scope = "github.com/nodeagent/nodeagent"

// Options say where traces go and whose they are.
type Options struct {
	// Config is the field tracing of KubeletConfiguration. Nil sends none; no
	// endpoint is localhost:4317; no rate sends none that begin here.
	Config *tracingv1.TracingConfiguration
	Node   string // name, as host.name
	// Version of the agent, as service.version.
	Version string
	Log     *slog.Logger
}

// Tracer makes spans.
type Tracer struct {
	provider oteltrace.TracerProvider
	tracer   oteltrace.Tracer
}

// Start begins to send traces in the background; stop sends what is left, within
// a second, and ends that. Both do nothing without a Config, and the Tracer is nil.
// A collector that cannot be reached is told of once, and what it misses is lost.
func Start(ctx context.Context, o Options) (t *Tracer, stop func(), err error) {
	if o.Config == nil {
		return nil, func() {}, nil
	}
	to := &collector{log: o.Log, endpoint: "localhost:4317"}
	if o.Config.Endpoint != nil {
		to.endpoint = *o.Config.Endpoint
	}
	// There is but one place per process to hear of errors; what matters of them
	// the collector's calls tell too.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { o.Log.Debug("traces are not sent", "error", err) }))
	made, err := tracing.NewProvider(ctx, o.Config,
		[]otlptracegrpc.Option{otlptracegrpc.WithDialOption(grpc.WithUnaryInterceptor(to.watch))},
		[]resource.Option{resource.WithAttributes(
			semconv.ServiceName("kubelet"), semconv.ServiceVersion(o.Version), semconv.HostName(o.Node))})
	if err != nil {
		return nil, nil, fmt.Errorf("prepare to send traces (tracing): %w", err)
	}
	stop = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		defer cancel()
		if err := made.Shutdown(ctx); err != nil {
			to.tell(err)
		}
	}
	provider, ok := made.(*sdktrace.TracerProvider)
	if !ok {
		stop()
		return nil, nil, fmt.Errorf("prepare to send traces (tracing): spans cannot be named for their pods in a %T", made)
	}
	return New(provider), stop, nil
}

// New makes a Tracer of whoever takes the spans.
func New(provider *sdktrace.TracerProvider) *Tracer {
	provider.RegisterSpanProcessor(handDown{})
	return &Tracer{provider: provider, tracer: provider.Tracer(scope)}
}

// Begin begins a span, below that of ctx if there is one. Whoever begins it must
// end it. Attributes cost something even when no traces are sent: where that
// matters, ask for nil first.
func (t *Tracer) Begin(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, oteltrace.Span) {
	if t == nil {
		return ctx, noop.Span{}
	}
	return t.tracer.Start(ctx, name, oteltrace.WithAttributes(attributes...))
}

// Of says of the span of ctx, and so of those that will be below it, which pod it
// is about.
func Of(ctx context.Context, p *v1.Pod) {
	if span := oteltrace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(Pod(p)...)
	}
}

// Pod are the attributes of a span that is about the pod.
func Pod(p *v1.Pod) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.K8SPodUID(string(p.UID)), semconv.K8SPodName(p.Name), semconv.K8SNamespaceName(p.Namespace),
		attribute.String("k8s.pod", p.Namespace+"/"+p.Name), // the kubelet's, beside the field's own
	}
}

// handDown gives every span the pod's uid of the span above it: libraries that
// make spans know of no pods.
type handDown struct{}

// OnStart implements sdktrace.SpanProcessor.
func (handDown) OnStart(parent context.Context, s sdktrace.ReadWriteSpan) {
	above, ok := oteltrace.SpanFromContext(parent).(sdktrace.ReadOnlySpan)
	if !ok {
		return
	}
	for _, a := range above.Attributes() {
		if a.Key == semconv.K8SPodUIDKey {
			s.SetAttributes(a)
		}
	}
}

// OnEnd implements sdktrace.SpanProcessor.
func (handDown) OnEnd(sdktrace.ReadOnlySpan) {}

// Shutdown implements sdktrace.SpanProcessor.
func (handDown) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (handDown) ForceFlush(context.Context) error { return nil }
