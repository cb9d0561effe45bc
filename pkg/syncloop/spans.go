package syncloop

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/trace"
)

// spans are the traces of an actor (behaviour row 1.25-2). A stretch of work, from
// the first action until nothing is in flight, is a trace; each action is a span in
// it, named for what it does.
type spans struct {
	tracer *trace.Tracer  // nil for no traces
	work   oteltrace.Span // nil while nothing is in flight
	name   string         // of work
}

// stretch is what a kubelet calls such work.
func stretch(p *pod.Pod) string {
	switch {
	case p.Stop == nil:
		return "syncPod"
	case lives(p.View) || !pod.IsTerminal(p.Phase):
		return "syncTerminatingPod"
	}
	return "syncTerminatedPod"
}

// begin begins the span of an action. update says why the stretch of work began:
// create, update or sync. Work on a pod's end is a trace of its own.
func (s *spans) begin(ctx context.Context, p *pod.Pod, act pod.Action, update string) (context.Context, oteltrace.Span) {
	if s.tracer == nil {
		return s.tracer.Begin(ctx, "")
	}
	name := stretch(p)
	if s.work != nil && s.name != name {
		s.rest()
	}
	if s.work == nil {
		attributes := trace.Pod(p.Spec)
		if p.Stop == nil {
			attributes = append(attributes, attribute.String("k8s.pod.update_type", update))
		}
		s.name = name
		_, s.work = s.tracer.Begin(ctx, name, attributes...)
	}
	attributes := []attribute.KeyValue{attribute.String("nodeagent.why", act.Why)}
	if act.Container != "" {
		attributes = append(attributes, semconv.K8SContainerName(act.Container))
	}
	if act.Image != "" {
		attributes = append(attributes, semconv.ContainerImageName(act.Image))
	}
	return s.tracer.Begin(oteltrace.ContextWithSpan(ctx, s.work), string(act.Kind), attributes...)
}

// endSpan ends the span of an action with how it ended.
func endSpan(span oteltrace.Span, e pod.Event) {
	if d, ok := e.(pod.Done); ok && d.Failure != nil && !d.Failure.Canceled {
		span.SetStatus(codes.Error, d.Failure.Message)
	}
	span.End()
}

// failed says so of the stretch of work.
func (s *spans) failed(f *pod.Failure) {
	if s.work != nil && !f.Canceled {
		s.work.SetStatus(codes.Error, f.Message)
	}
}

// rest ends the stretch of work, if there is one.
func (s *spans) rest() {
	if s.work != nil {
		s.work.End()
		s.work = nil
	}
}
