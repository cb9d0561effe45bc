// Package server is the node's API on :10250: it says who may ask what, and has
// a thin handler for each path that kubectl, the apiserver, metrics-server and
// Prometheus ask of a node (behaviour section 1.20). Beside it are the ports
// without any questions: health, and what may be read, where they are configured.
//
// Nothing on :10250 is answered before the request is authenticated and
// authorized, but for where a path leads that is not written plainly, and that
// another site's page may ask for nothing.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/trace"
)

// Options are what the server serves, and for whom.
type Options struct {
	NodeName string
	// Config is the agent's configuration as it applies.
	Config *kubeletv1beta1.KubeletConfiguration
	// Gate says whether a feature gate is on.
	Gate func(name string) bool
	// Certificate is the one to show; nil has only the read-only port served.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Tokens asks the apiserver who somebody is, Rights what he may; nil for a
	// node on its own. They are two, so that many unknown tokens keep nobody
	// waiting who is known.
	Tokens, Rights kubernetes.Interface
	Pods           Pods
	Runtime        Runtime
	// UI is the page below /ui/ (package ui).
	UI    http.Handler
	Stats Stats
	// Cadvisor has what only /metrics/cadvisor tells.
	Cadvisor Cadvisor
	// Health are the checks of /healthz beside ping, by name.
	Health  []Check
	Process Process
	// Metrics are the agent's own series.
	Metrics *metrics.Series
	// Open is closed when there is something to answer with: who calls before that
	// waits. Nil for at once.
	Open <-chan struct{}
	// Tracer makes a span of every request that was let in; nil for none.
	Tracer *trace.Tracer
	Log    *slog.Logger
}

// Process is what people may ask and set of the running program itself.
type Process struct {
	Flags map[string]string // with their values, none of them secret
	Level *slog.LevelVar    // of the log
	Root  string            // the agent's folder, for checkpoints
}

// Server is the node's API.
type Server struct {
	options Options
	log     *slog.Logger
	access  *access     // nil without Options.Certificate
	tls     *tls.Config // likewise
	sizes   limits
	busy    crowd
	waits   waits
}

// New prepares the server; nothing listens yet. An error says which field of
// the configuration cannot be used.
func New(o Options) (*Server, error) {
	s := &Server{options: o, log: o.Log, sizes: defaultLimits, waits: waits{
		open: openTimeout, idle: idleTimeout(o.Config.StreamingConnectionIdleTimeout.Duration), last: lastWords}}
	if o.Certificate == nil {
		return s, nil
	}
	var err error
	if s.access, err = newAccess(o); err != nil {
		return nil, err
	}
	s.tls, err = tlsConfig(o.Config, o.Certificate, s.access.ca, o.Log)
	return s, err
}

// Run serves until ctx ends, and returns when every request has.
func (s *Server) Run(ctx context.Context) error {
	defer s.busy.wait()
	g, ctx := errgroup.WithContext(ctx)
	k := s.options.Config
	if s.access != nil {
		s.warnOfOpenDoors()
		g.Go(func() error { return s.access.run(ctx) })
		g.Go(func() error {
			return s.listen(ctx, port{"the node's API (address, port)", k.Address, k.Port}, s.tls, s.count(false, s.front(s.access, s.routes())))
		})
	}
	if k.ReadOnlyPort != 0 {
		g.Go(func() error {
			return s.listen(ctx, port{"the read-only port (address, readOnlyPort)", k.Address, k.ReadOnlyPort}, nil, s.count(true, s.front(nil, s.readOnly())))
		})
	}
	return g.Wait()
}

// port is one that something is served on.
type port struct {
	what    string
	address string
	number  int32
}

func (s *Server) listen(ctx context.Context, p port, config *tls.Config, h http.Handler) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(p.address, fmt.Sprint(p.number)))
	if err != nil {
		return fmt.Errorf("%s: %w", p.what, err)
	}
	s.log.Info("serving "+p.what, "at", l.Addr().String())
	if s.options.Open != nil {
		select {
		case <-s.options.Open:
		case <-ctx.Done(): // serve closes l
		}
	}
	return serve(ctx, l, config, s.busy.serve(h), s.sizes, s.log)
}

// serve answers who comes to l, with TLS if config says how, until ctx ends.
// Requests under way are cut off then: none of them is worth waiting for.
func serve(ctx context.Context, l net.Listener, config *tls.Config, h http.Handler, sizes limits, log *slog.Logger) error {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(config != nil && slices.Contains(config.NextProtos, "h2"))
	server := &http.Server{
		Handler: h, TLSConfig: config, Protocols: protocols,
		BaseContext: func(net.Listener) context.Context { return ctx }, ConnContext: withPeer,
		ReadHeaderTimeout: sizes.header, IdleTimeout: sizes.idle, ReadTimeout: sizes.stream, WriteTimeout: sizes.stream,
		MaxHeaderBytes: sizes.headerBytes, DisableGeneralOptionsHandler: true,
		// A client that died says nothing, and would hold its streams for hours.
		HTTP2:    &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second, WriteByteTimeout: time.Minute},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	address := l.Addr()
	l = &strangers{Listener: l, limit: sizes.strangers}
	var err error
	if config != nil {
		err = server.ServeTLS(l, "", "")
	} else {
		err = server.Serve(l)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", address, err)
	}
	return nil
}
