package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Runtime runs commands in containers.
type Runtime interface {
	// Exec returns the command's exit code and output. The command may take limit
	// from when it began; 0 is for as long as ctx allows. When limit or ctx's
	// deadline ends it, the error is context.DeadlineExceeded.
	Exec(ctx context.Context, containerID string, command []string, limit time.Duration) (code int32, output string, err error)
}

// Handlers make attempts of probes and run hooks.
type Handlers struct {
	runtime Runtime
	release string
	client  *http.Client
	dialer  net.Dialer
	places  chan struct{} // of execs that begin
}

// New makes handlers that call themselves kube-probe and kube-lifecycle of the
// Kubernetes release, such as "1.36". Twice as many exec probes as there are cores
// begin at once; others wait for their turn, which is not part of their timeout.
func New(rt Runtime, release string) *Handlers {
	return &Handlers{runtime: rt, release: release, client: newClient(), dialer: net.Dialer{KeepAlive: -1},
		places: make(chan struct{}, 2*runtime.NumCPU())}
}

// Ask is how the probe's attempts are made.
func (h *Handlers) Ask(q pod.Probing) Ask {
	switch p := q.Probe; {
	case p.Exec != nil:
		return h.askExec(q)
	case p.HTTPGet != nil:
		return h.askHTTP(q)
	case p.TCPSocket != nil:
		return h.askTCP(q)
	case p.GRPC != nil:
		return h.askGRPC(q)
	}
	return never(fmt.Errorf("container %s: the probe has no handler", q.Container.Name))
}

// never is of a probe that cannot be made.
func never(err error) Ask {
	return func(context.Context) (pod.Outcome, string) { return pod.Errored, err.Error() }
}

func timeout(p *v1.Probe) time.Duration {
	return time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
}

// maxOutput is how many bytes are kept of what a container says: a command's
// output, or an answer that an error quotes.
const maxOutput = 10 << 10

func brief(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxOutput)], "")
}

// beginning is how long an exec has its place at most. To start a process is
// what costs; one that hangs after that costs nothing, and must not keep the
// probes of other pods waiting.
const beginning = 250 * time.Millisecond

// takePlace waits for a place, which is free again after beginning, or sooner
// by giveBack; nil says that ctx ended first.
func (h *Handlers) takePlace(ctx context.Context) (giveBack func()) {
	select {
	case h.places <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	free := sync.OnceFunc(func() { <-h.places })
	begun := time.AfterFunc(beginning, free)
	return func() { begun.Stop(); free() }
}

// patience is how much longer than its command an exec may take. A busy machine
// takes long to start a process, which is no fault of the container; but of a
// command that leaves its output open the runtime may never see the end.
const patience = 5 * time.Second

// askExec asks by a command, in which only the variables that the container's
// spec gives as text stand for something. The timeout is the command's own, from
// when it began (behaviour row 1.6-12).
func (h *Handlers) askExec(q pod.Probing) Ask {
	values := map[string]string{}
	for _, e := range q.Container.Env {
		values[e.Name] = e.Value
	}
	command, err := env.Expand(q.Probe.Exec.Command, values)
	if err != nil {
		return never(err)
	}
	timeout := timeout(q.Probe)
	return func(ctx context.Context) (pod.Outcome, string) {
		giveBack := h.takePlace(ctx)
		if giveBack == nil {
			return pod.Errored, ctx.Err().Error()
		}
		defer giveBack()
		ctx, cancel := context.WithTimeout(ctx, timeout+patience)
		defer cancel()
		code, output, err := h.runtime.Exec(ctx, q.ContainerID, command, timeout)
		output = brief(output)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return pod.Failed, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(command, " "), timeout)
		case err != nil:
			return pod.Errored, err.Error()
		case code != 0:
			return pod.Failed, output
		}
		return pod.Passed, ""
	}
}

// askTCP asks by connecting: an open port is a success (behaviour row 1.6-10).
func (h *Handlers) askTCP(q pod.Probing) Ask {
	at, err := address(q.Probe.TCPSocket.Host, q.Host, q.Probe.TCPSocket.Port, q.Container)
	if err != nil {
		return never(err)
	}
	timeout := timeout(q.Probe)
	return func(ctx context.Context) (pod.Outcome, string) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		conn, err := h.dialer.DialContext(ctx, "tcp", at)
		if err != nil {
			return pod.Failed, plainly(err)
		}
		_ = conn.Close() // it was open, and that is all that was asked
		return pod.Passed, ""
	}
}
