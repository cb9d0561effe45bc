package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// shell is a runtime whose commands do what their first word says.
type shell struct {
	slow    time.Duration // to start one
	mu      sync.Mutex
	running int
	most    int // that ran at once
	command []string
}

func (s *shell) Exec(ctx context.Context, _ string, command []string, limit time.Duration) (int32, string, error) {
	s.mu.Lock()
	s.command = command
	s.running++
	s.most = max(s.most, s.running)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.running--
		s.mu.Unlock()
	}()
	if err := sleep(ctx, s.slow); err != nil {
		return 0, "", fmt.Errorf("exec: %w", ctx.Err())
	}
	switch command[0] {
	case "fail":
		return 3, "why\n", nil
	case "error":
		return 0, "", errors.New("no such container")
	case "flood":
		return 1, strings.Repeat("\xffa", 1<<20), nil
	case "hold": // as one whose children have its output
		<-ctx.Done()
		return 0, "", fmt.Errorf("exec: %w", ctx.Err())
	case "sleep":
		if limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		d, _ := time.ParseDuration(command[1])
		if sleep(ctx, d) != nil {
			return 0, "", fmt.Errorf("exec: %w", ctx.Err())
		}
	}
	return 0, "fine", nil
}

func execProbe(command ...string) pod.Probing {
	return pod.Probing{Container: &v1.Container{Name: "main"}, ContainerID: "id",
		Probe: &v1.Probe{TimeoutSeconds: 2, ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: command}}}}
}

func TestExecProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(&shell{}, "1.36")
		for _, c := range []struct {
			command []string
			outcome pod.Outcome
			message string
		}{
			{[]string{"true"}, pod.Passed, ""},
			{[]string{"fail"}, pod.Failed, "why\n"},
			{[]string{"error"}, pod.Errored, "no such container"},
			{[]string{"sleep", "1s"}, pod.Passed, ""},
			{[]string{"sleep", "3s"}, pod.Failed, `command timed out: "sleep 3s" timed out after 2s`},
		} {
			if outcome, message := h.Ask(execProbe(c.command...))(t.Context()); outcome != c.outcome || message != c.message {
				t.Errorf("%v: %d %q", c.command, outcome, message)
			}
		}
		if _, message := h.Ask(execProbe("flood"))(t.Context()); len(message) > maxOutput || strings.ContainsRune(message, '\ufffd') {
			t.Errorf("%d bytes of output are told", len(message))
		}
	})
}

// What the runtime takes to start a command is no part of its timeout, within
// reason.
func TestExecThatIsSlowToStart(t *testing.T) {
	for slow, want := range map[time.Duration]pod.Outcome{4 * time.Second: pod.Passed, time.Hour: pod.Failed} {
		synctest.Test(t, func(t *testing.T) {
			h := New(&shell{slow: slow}, "1.36")
			began := time.Now()
			outcome, message := h.Ask(execProbe("sleep", "1500ms"))(t.Context())
			if took := time.Since(began); outcome != want || took > 2*time.Second+patience {
				t.Errorf("a start of %v: %d %q after %v", slow, outcome, message, took)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		outcome, message := New(&shell{}, "1.36").Ask(execProbe("hold"))(t.Context())
		if took := time.Since(began); outcome != pod.Failed || !strings.Contains(message, "timed out after 2s") || took != 2*time.Second+patience {
			t.Errorf("one that leaves its output open: %d %q after %v", outcome, message, took)
		}
	})
}

// Only variables that the spec gives as text stand for something in a command.
func TestExecProbeVariables(t *testing.T) {
	rt := &shell{}
	q := execProbe("echo", "$(TEXT) $(FROM) $(NONE) $$(TEXT)")
	q.Container.Env = []v1.EnvVar{{Name: "TEXT", Value: "a"}, {Name: "FROM", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{}}}}
	New(rt, "1.36").Ask(q)(t.Context())
	if want := "a  $(NONE) $(TEXT)"; rt.command[1] != want {
		t.Errorf("%q, want %q", rt.command[1], want)
	}
}

// Many execs wait for each other, and waiting is no part of their timeout.
func TestExecsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := &shell{}
		h := New(rt, "1.36")
		var all sync.WaitGroup
		for range 20 * cap(h.places) {
			all.Go(func() {
				if outcome, message := h.Ask(execProbe("sleep", "200ms"))(t.Context()); outcome != pod.Passed {
					t.Error(message)
				}
			})
		}
		all.Wait()
		if want := 2 * runtime.NumCPU(); rt.most != want {
			t.Errorf("%d ran at once, want %d", rt.most, want)
		}
	})
}

// Commands that hang until their timeout hold up no probe of another pod.
func TestHangingExecsHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(&shell{}, "1.36")
		for range 3 * cap(h.places) {
			q := execProbe("sleep", "1h")
			q.Probe.TimeoutSeconds = 600
			go h.Ask(q)(t.Context())
		}
		synctest.Wait()
		began := time.Now()
		if outcome, message := h.Ask(execProbe("true"))(t.Context()); outcome != pod.Passed {
			t.Error(message)
		}
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("it waited %v", waited)
		}
	})
}

func listen(t testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func port(l net.Listener) int32 { return int32(l.Addr().(*net.TCPAddr).Port) }

func TestTCPProbe(t *testing.T) {
	open, closed := listen(t), listen(t)
	closed.Close()
	ask := func(l net.Listener) (pod.Outcome, string) {
		q := pod.Probing{Host: "127.0.0.1", Container: &v1.Container{Name: "main"}, Probe: &v1.Probe{TimeoutSeconds: 1,
			ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(port(l))}}}}
		return handlers().Ask(q)(t.Context())
	}
	if outcome, message := ask(open); outcome != pod.Passed {
		t.Error(message)
	}
	if outcome, message := ask(closed); outcome != pod.Failed || !strings.Contains(message, "connection refused") {
		t.Errorf("%d %s", outcome, message)
	}
}

func grpcProbe(l net.Listener, service string) pod.Probing {
	return pod.Probing{Host: "127.0.0.1", Container: &v1.Container{Name: "main"},
		Probe: &v1.Probe{TimeoutSeconds: 1, ProbeHandler: v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: port(l), Service: &service}}}}
}

type healthServer struct {
	health.UnimplementedHealthServer
}

func (h healthServer) Check(ctx context.Context, r *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	switch r.Service {
	case "bad":
		return &health.HealthCheckResponse{Status: health.HealthCheckResponse_NOT_SERVING}, nil
	case "none":
		return nil, status.Error(codes.NotFound, "unknown service")
	case "hang":
		<-ctx.Done()
	}
	return &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING}, nil
}

func TestGRPCProbe(t *testing.T) {
	good, bare, silent, closed := listen(t), listen(t), listen(t), listen(t)
	closed.Close()
	s := grpc.NewServer()
	health.RegisterHealthServer(s, healthServer{})
	go func() { _ = s.Serve(good) }()
	t.Cleanup(s.Stop)
	b := grpc.NewServer()
	go func() { _ = b.Serve(bare) }()
	t.Cleanup(b.Stop)
	for _, c := range []struct {
		l       net.Listener
		service string
		outcome pod.Outcome
		message string
	}{
		{good, "", pod.Passed, ""},
		{good, "bad", pod.Failed, `service unhealthy (responded with "NOT_SERVING")`},
		{good, "none", pod.Failed, "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"},
		{good, "hang", pod.Failed, "timeout: health rpc did not complete within 1s"},
		{bare, "", pod.Failed, "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"},
		{silent, "", pod.Failed, "timeout: failed to connect service"},
		{closed, "", pod.Failed, "timeout: failed to connect service"},
	} {
		t.Run(c.service+" "+c.message, func(t *testing.T) {
			t.Parallel()
			if outcome, message := handlers().Ask(grpcProbe(c.l, c.service))(t.Context()); outcome != c.outcome || !strings.Contains(message, c.message) {
				t.Errorf("%d %q", outcome, message)
			}
		})
	}
}

// A server that accepts, and then says nothing or nonsense, costs nothing that
// stays.
func TestStallingServersLeakNothing(t *testing.T) {
	l := listen(t)
	var conns []net.Conn
	var mu sync.Mutex
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			if len(conns)%2 == 0 {
				_, _ = io.WriteString(c, "nonsense")
			}
			mu.Unlock()
		}
	}()
	before := runtime.NumGoroutine()
	get := &v1.HTTPGetAction{Port: intstr.FromInt32(port(l))}
	secure := &v1.HTTPGetAction{Port: intstr.FromInt32(port(l)), Scheme: v1.URISchemeHTTPS}
	base := grpcProbe(l, "")
	var all sync.WaitGroup
	h := handlers()
	for range 10 {
		for _, handler := range []v1.ProbeHandler{{GRPC: base.Probe.GRPC}, {HTTPGet: get}, {HTTPGet: secure}} {
			q := base
			q.Probe = &v1.Probe{TimeoutSeconds: 1, ProbeHandler: handler}
			all.Go(func() {
				if outcome, _ := h.Ask(q)(t.Context()); outcome != pod.Failed {
					t.Errorf("outcome %d", outcome)
				}
			})
		}
	}
	all.Wait()
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before+2 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if left := runtime.NumGoroutine(); left > before+2 {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines became %d:\n%s", before, left, buf[:runtime.Stack(buf, true)])
	}
	mu.Lock()
	defer mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

func TestEveryHandlerIsKnown(t *testing.T) {
	q := pod.Probing{Container: &v1.Container{Name: "main"}, Probe: &v1.Probe{}}
	if outcome, message := handlers().Ask(q)(t.Context()); outcome != pod.Errored || !strings.Contains(message, "no handler") {
		t.Errorf("%d %q", outcome, message)
	}
	if !slices.Equal([]bool{pod.Passed.Conclusive(), pod.Failed.Conclusive(), pod.Warned.Conclusive(), pod.Errored.Conclusive(), pod.Broken.Conclusive()},
		[]bool{true, true, true, false, false}) {
		t.Error("outcomes that count")
	}
}
