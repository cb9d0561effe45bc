// Package cri is the agent's hold on the container runtime: a CRI v1 client
// over a unix socket, the pod spec turned into CRI configs as the kubelet does
// it, images with their credentials and shared pulls, log folders, and the
// stream of runtime events.
//
// Every call takes its deadline from its context and holds no lock while it
// waits. Calls that end or remove something succeed when it is gone already.
package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/metrics"
)

// Options says where the runtime is and how pods are turned into its configs.
type Options struct {
	// Endpoint is the runtime's socket: unix:///path or /path.
	Endpoint string
	// ImageEndpoint is the image service's socket, "" for Endpoint.
	ImageEndpoint string
	// Relay is the command of a process that reads the runtime's events and
	// runs Relay; empty to read them in this one.
	Relay []string
	// LinksDir holds a link to each container's log, /var/log/containers by
	// default (behaviour row 1.11-4).
	LinksDir string
	// RequestTimeout bounds each call whose context has no earlier deadline,
	// 2 minutes by default. RunPodSandbox may take twice as long, a stop its
	// grace longer; a pull has no bound of its own.
	RequestTimeout time.Duration
	Images         ImageOptions
	Pods           PodOptions
	// Metrics is told of every call and image; nil for nobody.
	Metrics *metrics.Runtime
	// Traces is told of every call too; nil for nobody.
	Traces stats.Handler
}

// Client speaks to one runtime. It is safe for concurrent use.
type Client struct {
	opts    Options
	machine Machine
	conns   []*grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	image   runtimeapi.ImageServiceClient
	pulls   *pulls
	// users are the users of images by ID, which never change: a digest names
	// their content.
	users sync.Map // string to ImageUser
	// handlers are what the runtime's handlers can do, as the newest Probe
	// learned.
	handlers atomic.Pointer[map[string]Handler]
	// noImages says that the runtime has no image volumes, as it learned.
	noImages atomic.Bool
}

const (
	// The runtime's answer for a node with hundreds of containers passes
	// gRPC's default of 4 MiB.
	maxMessage = 16 << 20
	// A runtime that restarts must be noticed at once, not after gRPC's
	// default of up to two minutes.
	maxRedial = time.Second

	defaultTimeout  = 2 * time.Minute
	defaultLogsDir  = "/var/log/pods"
	defaultLinksDir = "/var/log/containers"
	defaultRootDir  = "/var/lib/kubelet"
)

// Dial prepares the connection. The socket is opened by the first call, so a
// dead runtime is no error here: ask Probe.
func Dial(o Options) (*Client, error) {
	o = o.withDefaults()
	c := &Client{opts: o, machine: readMachine(), pulls: newPulls(o.Images)}
	conn, err := o.dial(o.Endpoint)
	if err != nil {
		return nil, err
	}
	c.conns = append(c.conns, conn)
	c.runtime = runtimeapi.NewRuntimeServiceClient(conn)
	if o.ImageEndpoint != "" && o.ImageEndpoint != o.Endpoint {
		if conn, err = o.dial(o.ImageEndpoint); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.conns = append(c.conns, conn)
	}
	c.image = runtimeapi.NewImageServiceClient(conn)
	return c, nil
}

func (o Options) withDefaults() Options {
	if o.RequestTimeout <= 0 {
		o.RequestTimeout = defaultTimeout
	}
	if o.LinksDir == "" {
		o.LinksDir = defaultLinksDir
	}
	if o.Pods.LogsDir == "" {
		o.Pods.LogsDir = defaultLogsDir
	}
	if o.Pods.RootDir == "" {
		o.Pods.RootDir = defaultRootDir
	}
	if o.Pods.CPUCFSQuotaPeriod <= 0 {
		o.Pods.CPUCFSQuotaPeriod = 100 * time.Millisecond
	}
	return o
}

func (o Options) dial(endpoint string) (*grpc.ClientConn, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("runtime endpoint %q: must be unix:///path/of/socket", endpoint)
	}
	redial := backoff.DefaultConfig
	redial.BaseDelay, redial.MaxDelay = 100*time.Millisecond, maxRedial
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithUnaryInterceptor(observe(o.Metrics)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: redial, MinConnectTimeout: time.Second}),
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}),
	}
	if o.Traces != nil {
		options = append(options, grpc.WithStatsHandler(o.Traces))
	}
	conn, err := grpc.NewClient("passthrough:///"+path, options...)
	if err != nil {
		return nil, fmt.Errorf("prepare connection to runtime %s: %w", endpoint, err)
	}
	return conn, nil
}

// Close ends the connections; calls in flight fail.
func (c *Client) Close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// Runtime is what the runtime says of itself.
type Runtime struct {
	Name       string // containerd
	Version    string // v2.1.4
	APIVersion string // v1
	// Ready and Network are empty when the runtime's conditions RuntimeReady
	// and NetworkReady hold, else say why not.
	Ready   string
	Network string
	// RuntimeReady and NetworkReady are these conditions as a Node quotes them,
	// empty when they hold: NetworkReady=false reason:R message:M.
	RuntimeReady, NetworkReady string
	// Handlers are the runtime's handlers by name, "" being the default.
	Handlers map[string]Handler
	// StrictGroups says that the runtime follows supplementalGroupsPolicy.
	StrictGroups bool
	// TellsFeatures says that the runtime says at all what it can do.
	TellsFeatures bool
}

// Untested says so of a runtime that the agent is not tried on, which may work
// all the same; "" for containerd.
func (r Runtime) Untested() string {
	if r.Name == "containerd" {
		return ""
	}
	return "not tested with this agent, which is tested on containerd 1.6 and 2.x"
}

// Handler is what a runtime handler can do.
type Handler struct {
	RecursiveReadOnly bool
	UserNamespaces    bool
}

// Probe asks the runtime who and how it is. The error says what to do when
// there is no runtime, when it is no CRI v1 runtime, or when it is too old.
func (c *Client) Probe(ctx context.Context) (Runtime, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	v, err := c.runtime.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return Runtime{}, c.explain(err)
	}
	r := Runtime{Name: v.RuntimeName, Version: v.RuntimeVersion, APIVersion: v.RuntimeApiVersion}
	if olderThan(r, 1, 6) {
		return r, fmt.Errorf("runtime at %s is containerd %s: version 1.6 or newer is needed", c.opts.Endpoint, r.Version)
	}
	s, err := c.runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return r, c.explain(err)
	}
	r.Ready, r.Network = condition(s.Status, runtimeapi.RuntimeReady), condition(s.Status, runtimeapi.NetworkReady)
	r.RuntimeReady, r.NetworkReady = quoted(s.Status, runtimeapi.RuntimeReady), quoted(s.Status, runtimeapi.NetworkReady)
	r.Handlers = map[string]Handler{}
	for _, h := range s.RuntimeHandlers {
		r.Handlers[h.Name] = Handler{
			RecursiveReadOnly: h.GetFeatures().GetRecursiveReadOnlyMounts(),
			UserNamespaces:    h.GetFeatures().GetUserNamespaces(),
		}
	}
	r.StrictGroups, r.TellsFeatures = s.GetFeatures().GetSupplementalGroupsPolicy(), s.Features != nil
	c.handlers.Store(&r.Handlers)
	c.noImages.Store(olderThan(r, 2, 1))
	return r, nil
}

// handler is what the handler of that name can do: nothing, of one that the
// runtime doesn't report.
func (c *Client) handler(name string) Handler {
	if known := c.handlers.Load(); known != nil {
		return (*known)[name]
	}
	return Handler{}
}

// condition is empty when the condition holds, else why it does not.
func condition(s *runtimeapi.RuntimeStatus, kind string) string {
	for _, cond := range s.GetConditions() {
		switch {
		case cond.Type != kind:
		case cond.Status:
			return ""
		case cond.Reason == "" && cond.Message == "":
			return kind + " is false"
		default:
			return strings.Trim(cond.Reason+": "+cond.Message, ": ")
		}
	}
	return "the runtime does not report " + kind
}

// quoted is empty when the condition holds, else the condition as the kubelet
// words it.
func quoted(s *runtimeapi.RuntimeStatus, kind string) string {
	for _, cond := range s.GetConditions() {
		switch {
		case cond.Type != kind:
		case cond.Status:
			return ""
		default:
			return fmt.Sprintf("%s=false reason:%s message:%s", kind, cond.Reason, cond.Message)
		}
	}
	return "the runtime does not report " + kind
}

// explain turns the failure of a first contact into what a person needs.
func (c *Client) explain(err error) error {
	at := c.opts.Endpoint
	switch {
	case status.Code(err) == codes.Unimplemented:
		return fmt.Errorf("what listens at %s is no CRI v1 runtime: if it is containerd, take \"cri\" out of disabled_plugins in its config.toml and restart it (version 1.6 or newer): %w", at, err)
	case status.Code(err) == codes.DeadlineExceeded:
		return fmt.Errorf("runtime at %s accepts connections but does not answer: %w", at, err)
	case status.Code(err) != codes.Unavailable:
		return fmt.Errorf("ask runtime at %s for its state: %w", at, err)
	}
	path := strings.TrimPrefix(at, "unix://")
	why := "does not answer"
	conn, dialErr := net.DialTimeout("unix", path, time.Second)
	switch {
	case dialErr == nil:
		_ = conn.Close()
	case errors.Is(dialErr, syscall.ENOENT):
		why = "is not there"
	case errors.Is(dialErr, syscall.ECONNREFUSED):
		why = "has nobody listening"
	case errors.Is(dialErr, syscall.EACCES):
		why = "may not be opened by this user"
	}
	return fmt.Errorf("runtime socket %s %s (is containerd running? try: systemctl status containerd): %w", path, why, err)
}

// olderThan says whether this is a containerd before that version. CRI v1
// came with 1.6, image volumes with 2.1.
func olderThan(r Runtime, major, minor int) bool {
	if r.Name != "containerd" {
		return false
	}
	var a, b int
	if _, err := fmt.Sscanf(strings.TrimPrefix(r.Version, "v"), "%d.%d", &a, &b); err != nil {
		return false // a development build has no number
	}
	return a < major || a == major && b < minor
}

// CgroupDriver asks which cgroup driver the runtime uses: "systemd" or
// "cgroupfs". ok is false when the runtime cannot say (containerd 1.6).
func (c *Client) CgroupDriver(ctx context.Context) (driver string, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	r, err := c.runtime.RuntimeConfig(ctx, &runtimeapi.RuntimeConfigRequest{})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("ask runtime for its config: %w", err)
	case r.Linux == nil:
		return "", false, nil
	}
	return strings.ToLower(r.Linux.CgroupDriver.String()), true, nil
}
