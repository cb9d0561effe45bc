package trace

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	tracingv1 "k8s.io/component-base/tracing/api/v1"

	"github.com/nodeagent/nodeagent/pkg/trace/tracetest"
)

var web = &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "uid-1"}}

const all = 1000000 // per million

// logged is what was logged.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// listen is on an address of its own.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // closed already, mostly
	return l
}

func start(t *testing.T, endpoint string, perMillion int32, log *logged) (tracer *Tracer, stop func()) {
	t.Helper()
	tracer, stop, err := Start(t.Context(), Options{
		Config: &tracingv1.TracingConfiguration{Endpoint: &endpoint, SamplingRatePerMillion: &perMillion},
		Node:   "node-1", Version: "v1", Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return tracer, stop
}

// collected runs f with a tracer that samples as much, and returns what arrived.
func collected(t *testing.T, perMillion int32, f func(*Tracer)) map[string]tracetest.Span {
	t.Helper()
	l, log := listen(t), &logged{}
	c := tracetest.Serve(l)
	defer c.Close()
	tracer, stop := start(t, l.Addr().String(), perMillion, log)
	f(tracer)
	stop()
	if log.count("level") > 0 {
		t.Errorf("logged: %s", log.buf.String())
	}
	out := map[string]tracetest.Span{}
	for _, s := range c.Spans() {
		if _, twice := out[s.Name]; twice {
			t.Errorf("two spans %s", s.Name)
		}
		out[s.Name] = s
	}
	return out
}

// callee is a gRPC server that keeps which trace it was told of.
func callee(t *testing.T) (address string, told func() []string) {
	l := listen(t)
	var mu sync.Mutex
	var traces []string
	s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		mu.Lock()
		traces = append(traces, metadata.ValueFromIncomingContext(ctx, "traceparent")...)
		mu.Unlock()
		return next(ctx, r)
	}))
	healthv1.RegisterHealthServer(s, health.NewServer())
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String(), func() []string { mu.Lock(); defer mu.Unlock(); return traces }
}

// What is called in the course of an action is below it and says whose pod it is;
// what is called for no pod begins no trace; who is called learns of the trace.
func TestCallsAreBelowTheirAction(t *testing.T) {
	address, told := callee(t)
	var header string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { header += r.Header.Get("traceparent") }))
	defer server.Close()
	got := collected(t, all, func(tracer *Tracer) {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStatsHandler(tracer.GRPC()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		client := &http.Client{Transport: tracer.Wrap(http.DefaultTransport)}
		call := func(ctx context.Context) {
			if _, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}); err != nil {
				t.Error(err)
			}
			r, _ := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
			answer, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
		}
		call(t.Context())
		ctx, work := tracer.Begin(t.Context(), "syncPod", Pod(web)...)
		ctx, action := tracer.Begin(ctx, "create")
		call(ctx)
		action.End()
		work.End()
	})
	root, action := got["syncPod"], got["create"]
	if root.Parent != "" || action.Parent != root.ID {
		t.Errorf("syncPod is below %q, create below %q, not %q", root.Parent, action.Parent, root.ID)
	}
	if root.Attributes["k8s.pod.name"] != "web" || root.Attributes["k8s.namespace.name"] != "ns" {
		t.Errorf("syncPod: %v", root.Attributes)
	}
	if r := root.Resource; r["service.name"] != "kubelet" || r["host.name"] != "node-1" || r["service.version"] != "v1" {
		t.Errorf("resource: %v", r)
	}
	for _, name := range []string{"grpc.health.v1.Health/Check", "HTTP GET"} {
		if s := got[name]; s.Parent != action.ID {
			t.Errorf("%s is below %q, not %q", name, s.Parent, action.ID)
		}
	}
	for name, s := range got {
		if s.Attributes["k8s.pod.uid"] != "uid-1" || s.Trace != root.Trace {
			t.Errorf("%s: trace %s, %v", name, s.Trace, s.Attributes)
		}
	}
	if traces := told(); len(traces) != 1 || !strings.Contains(traces[0], root.Trace) || !strings.Contains(header, root.Trace) {
		t.Errorf("trace %s: the server of gRPC was told %q, that of HTTP %q", root.Trace, traces, header)
	}
	if len(got) != 4 {
		t.Errorf("spans: %v", got)
	}
}

// A request is a trace of its own that is linked to its caller's: callers do not
// decide what is sampled. What it asks for stays out, and once it is known which
// pod it is about, so does what is below.
func TestRequests(t *testing.T) {
	const caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ask := func(tracer *Tracer) {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /exec/{pod}", func(_ http.ResponseWriter, r *http.Request) {
			Of(r.Context(), web)
			_, below := tracer.Begin(r.Context(), "below")
			below.End()
		})
		r := httptest.NewRequest(http.MethodGet, "/exec/web?command=secret", nil)
		r.Header.Set("traceparent", caller)
		tracer.Handler(mux).ServeHTTP(httptest.NewRecorder(), r)
	}
	got := collected(t, all, ask)
	s := got["GET /exec/{pod}"]
	if s.Parent != "" || len(s.Links) != 1 || s.Links[0] != "b7ad6b7169203331" || strings.Contains(caller, s.Trace) {
		t.Errorf("got %+v of %+v", s, got)
	}
	if s.Attributes["k8s.pod.uid"] != "uid-1" || got["below"].Attributes["k8s.pod.uid"] != "uid-1" || got["below"].Parent != s.ID {
		t.Errorf("the pod is not told: %+v", got)
	}
	for key, value := range s.Attributes {
		if strings.Contains(value, "secret") {
			t.Errorf("%s is %s", key, value)
		}
	}
	if got := collected(t, 0, ask); len(got) > 0 {
		t.Errorf("sampled by the caller: %+v", got)
	}
}

// Without a configuration nothing runs, and what is done for pods allocates
// nothing.
func TestNothingWithoutConfiguration(t *testing.T) {
	before := runtime.NumGoroutine()
	tracer, stop, err := Start(t.Context(), Options{})
	if err != nil || tracer != nil {
		t.Fatalf("%v, %v", tracer, err)
	}
	defer stop()
	next := http.NotFoundHandler()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if tracer.GRPC() != nil || tracer.Wrap(http.DefaultTransport) != http.DefaultTransport {
		t.Error("calls are looked at")
	}
	w := httptest.NewRecorder()
	if n := testing.AllocsPerRun(100, func() {
		_, span := tracer.Begin(r.Context(), "x")
		Of(r.Context(), web)
		span.End()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	tracer.Handler(next).ServeHTTP(w, r)
	if now := runtime.NumGoroutine(); now > before {
		t.Errorf("%d goroutines, %d before", now, before)
	}
}

// A collector that is away is told of once, keeps nobody waiting, and is told of
// again when it is back.
func TestCollectorAway(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20") // ms
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
	l := listen(t)
	address := l.Addr().String()
	l.Close()
	log := &logged{}
	tracer, stop := start(t, address, all, log)
	defer stop()
	began, longest := time.Now(), time.Duration(0)
	work := func() {
		at := time.Now()
		_, span := tracer.Begin(t.Context(), "syncPod", Pod(web)...)
		span.End()
		longest = max(longest, time.Since(at))
	}
	for time.Since(began) < 1500*time.Millisecond {
		work()
		<-time.After(time.Millisecond)
	}
	if longest > time.Second {
		t.Errorf("a span took %v", longest)
	}
	if n, lines := log.count("traces cannot be sent"), log.count("level="); n != 1 || lines != 1 {
		t.Errorf("told %d times in %d lines: %s", n, lines, log.buf.String())
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := tracetest.Serve(l)
	defer c.Close()
	for deadline := time.Now().Add(30 * time.Second); log.count("takes traces again") == 0; work() {
		if time.Now().After(deadline) {
			t.Fatal("nothing arrives though the collector is back")
		}
		<-time.After(10 * time.Millisecond)
	}
	if len(c.Spans()) == 0 {
		t.Error("no spans have arrived")
	}
}

// A collector that takes connections and says nothing keeps the agent's end
// waiting for a second at most.
func TestEndIsBounded(t *testing.T) {
	l, log := listen(t), &logged{}
	tracer, stop := start(t, l.Addr().String(), all, log)
	_, span := tracer.Begin(t.Context(), "syncPod")
	span.End()
	began := time.Now()
	stop()
	if took := time.Since(began); took < flushTime || took > flushTime+5*time.Second {
		t.Errorf("the end took %v", took)
	}
	if n := log.count("traces cannot be sent"); n != 1 {
		t.Errorf("told %d times: %s", n, log.buf.String())
	}
}
