package probe

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

func TestSleepAndTCPHooks(t *testing.T) {
	run := func(ctx context.Context, h v1.LifecycleHandler) error {
		_, err := (&Handlers{}).Run(ctx, Hook{LifecycleHandler: &h})
		return err
	}
	synctest.Test(t, func(t *testing.T) {
		sleep := func(ctx context.Context, seconds int64) (time.Duration, error) {
			began := time.Now()
			err := run(ctx, v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: seconds}})
			return time.Since(began), err
		}
		for _, seconds := range []int64{0, 7} {
			if took, err := sleep(t.Context(), seconds); err != nil || took != time.Duration(seconds)*time.Second {
				t.Errorf("sleep of %d s took %v: %v", seconds, took, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if took, err := sleep(ctx, 60); err == nil || took != 3*time.Second {
			t.Errorf("a sleep beyond its grace took %v: %v", took, err)
		}
	})
	if run(t.Context(), v1.LifecycleHandler{TCPSocket: &v1.TCPSocketAction{}}) == nil {
		t.Error("a tcpSocket hook is no failure")
	}
}

func hookOf(q pod.Probing) Hook {
	return Hook{LifecycleHandler: &v1.LifecycleHandler{HTTPGet: q.Probe.HTTPGet}, Container: q.Container, Host: q.Host}
}

// Any answer to an httpGet hook is a success; no answer is a failure.
func TestHTTPHook(t *testing.T) {
	var agent string
	servers := testServers(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent = r.UserAgent()
		w.WriteHeader(http.StatusInternalServerError)
	}))
	for scheme, server := range servers {
		agent = ""
		if told, err := handlers().Run(t.Context(), hookOf(at(t, server, "/"))); err != nil || told != nil {
			t.Errorf("%s: %v, told %v", scheme, err, told)
		}
		if agent != "kube-lifecycle/1.36" {
			t.Errorf("%s: it called itself %q", scheme, agent)
		}
	}
	q := at(t, servers["http"], "/")
	servers["http"].Close()
	if _, err := handlers().Run(t.Context(), hookOf(q)); err == nil {
		t.Error("a hook without an answer is a success")
	}
	q.Host = ""
	if _, err := handlers().Run(t.Context(), hookOf(q)); err == nil || !strings.Contains(err.Error(), "container main: port") {
		t.Errorf("a hook without a host: %v", err)
	}
}

// HTTPS that a server doesn't speak is tried again without, and without the
// credentials that were meant for it.
func TestHTTPHookFallsBack(t *testing.T) {
	var got http.Header
	server := testServers(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))["http"]
	q := at(t, server, "/", v1.HTTPHeader{Name: "Authorization", Value: "Bearer x"}, v1.HTTPHeader{Name: "X-A", Value: "1"})
	q.Probe.HTTPGet.Scheme = v1.URISchemeHTTPS
	told, err := handlers().Run(t.Context(), hookOf(q))
	if err != nil || got.Get("X-A") != "1" || got.Get("Authorization") != "" {
		t.Errorf("%v, headers %v", err, got)
	}
	if len(told) != 1 || told[0].Reason != "LifecycleHTTPFallback" || !told[0].Warning ||
		!strings.Contains(told[0].Message, server.Listener.Addr().String()+" got HTTP response") {
		t.Errorf("told %+v", told)
	}
	// A probe is not: it fails.
	if outcome, message := handlers().Ask(q)(t.Context()); outcome != pod.Failed || !strings.Contains(message, "server gave HTTP response to HTTPS client") {
		t.Errorf("a probe: %d %s", outcome, message)
	}
}

// A hook takes as long as it may, and no longer.
func TestHTTPHookEndsWithItsGrace(t *testing.T) {
	release := make(chan struct{})
	server := testServers(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))["http"]
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := handlers().Run(ctx, hookOf(at(t, server, "/"))); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestExecHook(t *testing.T) {
	run := func(command ...string) (*shell, error) {
		rt := &shell{}
		_, err := New(rt, "1.36").Run(t.Context(), Hook{LifecycleHandler: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: command}}, ContainerID: "id",
			Container: &v1.Container{Env: []v1.EnvVar{{Name: "A", Value: "1"}}}})
		return rt, err
	}
	if rt, err := run("echo", "$(A)"); err != nil || rt.command[1] != "$(A)" {
		t.Errorf("%v: %v", rt.command, err)
	}
	if _, err := run("fail"); err == nil || !strings.Contains(err.Error(), "exit code 3: why") {
		t.Error(err)
	}
	if _, err := run("error"); err == nil {
		t.Error("no failure")
	}
}
