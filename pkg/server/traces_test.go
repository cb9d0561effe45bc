package server

import (
	"net/http"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/nodeagent/nodeagent/pkg/trace"
)

// TestRequestsAreTraced: those that were let in, and nobody else's.
func TestRequestsAreTraced(t *testing.T) {
	k, r := newKit(t), tracetest.NewSpanRecorder()
	k.options.Tracer = trace.New(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r)))
	k.reviewer.may = func(user, _, _ string) bool { return user == "reader" }
	k.start()
	c := k.caller()
	for token, want := range map[string]int{"": http.StatusUnauthorized, "user:other": http.StatusForbidden} {
		if code, text := k.ask(c, "GET", "/pods", token); code != want {
			t.Fatalf("%q: %d %s", token, code, text)
		}
	}
	if n := len(r.Started()); n > 0 {
		t.Errorf("%d spans of those who were not let in", n)
	}
	if code, text := k.ask(c, "GET", "/pods", "user:reader"); code != http.StatusOK {
		t.Fatalf("%d %s", code, text)
	}
	// Its span ends a moment after the answer.
	eventually(t, "the request's span ends", func() bool { return len(r.Ended()) == 1 })
	if got := r.Ended()[0].Name(); got != "GET /pods" {
		t.Errorf("it is %s", got)
	}
}
