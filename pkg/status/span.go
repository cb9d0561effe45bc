package status

import (
	"context"

	"go.opentelemetry.io/otel/codes"
	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/trace"
)

// sendTraced is send in a span: one that is about the pod itself, where it is
// about its image (behaviour row 1.25-2).
func (w *Writer) sendTraced(ctx context.Context, v view, s step) (*v1.Pod, error) {
	p := v.there
	if len(v.here) > 0 {
		p = v.here[0].Spec
	}
	if w.Tracer == nil || s.verb == idle || p == nil {
		return w.send(ctx, v, s)
	}
	ctx, span := w.Tracer.Begin(ctx, "status/"+s.verb.String(), trace.Pod(p)...)
	defer span.End()
	newest, err := w.send(ctx, v, s)
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	return newest, err
}
