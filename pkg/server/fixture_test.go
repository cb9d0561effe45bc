package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// node is a server with pods that a test makes up, and a runtime whose streaming
// server is the library's that containerd has.
type node struct {
	Runtime // what is not below is not asked
	t       testing.TB
	server  *Server
	url     string
	logs    string // a folder
	end     context.CancelFunc
	ended   chan error

	mu      sync.Mutex
	pods    map[types.UID]pod.Pod
	news    chan struct{}
	runtime string // the address of its streaming server
	address string // another one in its place
	stream  streaming.Server
	written int // by commands that flood
}

func newNode(t testing.TB, change func(*Server)) *node {
	n := &node{t: t, logs: t.TempDir(), pods: map[types.UID]pod.Pod{}, news: make(chan struct{}), ended: make(chan error, 1)}
	back := httptest.NewUnstartedServer(nil)
	base, err := url.Parse("http://" + back.Listener.Addr().String())
	n.must(err)
	n.runtime = base.String()
	streams := streaming.DefaultConfig
	streams.BaseURL, streams.StreamCreationTimeout = base, 3*time.Second
	n.stream, err = streaming.NewServer(streams, commands{n})
	n.must(err)
	back.Config.Handler = n.stream
	back.Start()
	t.Cleanup(back.Close)

	c := config.Default().Kubelet
	n.server = &Server{log: slog.New(slog.DiscardHandler), sizes: defaultLimits, waits: waits{open: 20 * time.Second, idle: time.Hour, last: 10 * time.Second},
		options: Options{Config: &c, Metrics: metrics.New(metrics.Build{}), UI: http.NotFoundHandler(), Pods: n, Runtime: n, Gate: func(name string) bool { return name == webSockets }}}
	if change != nil {
		change(n.server)
	}
	n.server.sizes.strangers = 1 << 20 // nobody is asked who he is
	secure := httptest.NewUnstartedServer(nil)
	secure.StartTLS() // for its certificate
	n.server.tls = &tls.Config{Certificates: secure.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	secure.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	n.must(err)
	n.url = "https://" + l.Addr().String()
	ctx, end := context.WithCancel(t.Context())
	n.end = end
	pprof.SetGoroutineLabels(ours)
	go func() {
		defer func() { n.ended <- err }()
		defer n.server.busy.wait()
		err = serve(ctx, l, n.server.tls, n.server.busy.serve(n.server.routes()), n.server.sizes, n.server.log)
	}()
	pprof.SetGoroutineLabels(context.Background())
	t.Cleanup(n.stop)
	n.set("web", func(p *pod.Pod) {})
	return n
}

// stop ends the server, and waits until every request has ended.
func (n *node) stop() {
	n.end()
	select {
	case err := <-n.ended:
		n.must(err)
		n.ended <- nil
	case <-time.After(30 * time.Second):
		stacks := make([]byte, 1<<20)
		n.t.Fatalf("requests go on after the server's end:\n%s", stacks[:runtime.Stack(stacks, true)])
	}
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// set makes a pod with the container main, which runs, and changes it.
func (n *node) set(name string, change func(*pod.Pod)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	uid := types.UID("uid-" + name)
	c := &pod.Container{ID: name, Name: "main", State: pod.Running}
	p := pod.Pod{
		Spec: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: uid},
			Spec: v1.PodSpec{Containers: []v1.Container{{Name: "main"}}}},
		Containers: map[string]pod.Memory{"main": {Known: c, Instance: pod.Instance{ID: name, PostStart: pod.HookDone}}},
		View:       pod.View{Sandboxes: []pod.Sandbox{{ID: "sandbox-" + name, Ready: true}}},
	}
	change(&p)
	n.pods[uid] = p
	close(n.news)
	n.news = make(chan struct{})
}

// container has the pod's container in another state.
func (n *node) container(name string, c pod.Container) {
	n.set(name, func(p *pod.Pod) {
		c.Name = "main"
		p.Containers = map[string]pod.Memory{"main": {Known: &c}}
	})
}

func (n *node) Pods() []pod.Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Values(n.pods))
}

func (n *node) Node() pod.Node { return pod.Node{Name: "here", RuntimeName: "fake"} }

func (n *node) Await(ctx context.Context, uid types.UID, is func(pod.Pod) bool) {
	for ctx.Err() == nil {
		n.mu.Lock()
		p, ok := n.pods[uid]
		news := n.news
		n.mu.Unlock()
		if !ok || is(p) {
			return
		}
		select {
		case <-ctx.Done():
		case <-news:
		}
	}
}

func (n *node) LogFile(p *v1.Pod, container string, attempt uint32) (string, error) {
	return filepath.Join(n.logs, p.Name, container, fmt.Sprintf("%d.log", attempt)), nil
}

// log appends lines to a log.
func (n *node) log(name string, lines ...string) {
	n.t.Helper()
	path := filepath.Join(n.logs, name, "main", "0.log")
	n.must(os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	n.must(err)
	for _, line := range lines {
		_, err := fmt.Fprintf(f, "2026-01-02T15:04:05.000000001Z stdout F %s\n", line)
		n.must(err)
	}
	n.must(f.Close())
}

func (n *node) at(address string) string {
	if n.address == "" {
		return address
	}
	return n.address
}

func (n *node) ExecURL(_ context.Context, id string, command []string, s cri.Streams) (string, error) {
	r, err := n.stream.GetExec(&runtimeapi.ExecRequest{ContainerId: id, Cmd: command, Tty: s.TTY, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr})
	if err != nil {
		return "", err
	}
	return n.at(r.Url), nil
}

func (n *node) AttachURL(_ context.Context, id string, s cri.Streams) (string, error) {
	r, err := n.stream.GetAttach(&runtimeapi.AttachRequest{ContainerId: id, Tty: s.TTY, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr})
	if err != nil {
		return "", err
	}
	return n.at(r.Url), nil
}

func (n *node) PortForwardURL(_ context.Context, sandbox string, ports []int32) (string, error) {
	r, err := n.stream.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: sandbox, Port: ports})
	if err != nil {
		return "", err
	}
	return n.at(r.Url), nil
}

// run is what a command does in a container.
func (n *node) run(out, errs io.Writer, in io.Reader, command []string, resize <-chan remotecommand.TerminalSize) error {
	switch command[0] {
	case "cat":
		_, err := io.Copy(out, in)
		return err
	case "fail":
		fmt.Fprint(errs, "no")
		return exec.CodeExitError{Err: errors.New("no"), Code: 42}
	case "size":
		size := <-resize
		_, err := fmt.Fprintf(out, "%dx%d", size.Width, size.Height)
		return err
	case "flood":
		for block := make([]byte, 32<<10); ; {
			if _, err := out.Write(block); err != nil {
				return err
			}
			n.mu.Lock()
			n.written += len(block)
			n.mu.Unlock()
		}
	}
	return errors.New("no such command")
}

// commands is the streaming server's view of the runtime.
type commands struct{ *node }

func (c commands) Exec(_ context.Context, _ string, command []string, in io.Reader, out, errs io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	return c.run(out, errs, in, command, resize)
}

func (c commands) Attach(_ context.Context, _ string, in io.Reader, out, _ io.WriteCloser, tty bool, _ <-chan remotecommand.TerminalSize) error {
	fmt.Fprintf(out, "terminal %t\n", tty)
	_, err := io.Copy(out, in)
	return err
}

func (commands) PortForward(_ context.Context, sandbox string, port int32, stream io.ReadWriteCloser) error {
	if port == 81 {
		return errors.New("connection refused")
	}
	_, err := io.Copy(stream, stream)
	return err
}

// Exec is of the runtime's API.
func (n *node) Exec(_ context.Context, id string, command []string, _ time.Duration) (int32, string, error) {
	if command[0] == "fail" {
		return 3, "no", nil
	}
	return 0, id + ": " + strings.Join(command, "|"), nil
}

func (n *node) client() *rest.Config {
	return &rest.Config{Host: n.url, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}
