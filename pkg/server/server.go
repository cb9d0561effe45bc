// Package server is the node's API on :10250: it says who may ask what, and has
// a thin handler for each path that kubectl, the apiserver, metrics-server and
// Prometheus ask of a node (behaviour section 1.20).
//
// Nothing is answered before the request is authenticated and authorized.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/kubernetes"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/stats/exposition"
)

// The limits of a connection (behaviour row 1.20-20). A stream of a followed
// log or an exec may last as long as the longest.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 90 * time.Second
	streamTimeout = 4 * time.Hour
	maxHeader     = 1 << 20
)

// Options are what the server serves, and for whom.
type Options struct {
	NodeName string
	// Config is the agent's configuration; of it are address, port,
	// authentication, authorization, and which handlers are enabled.
	Config *kubeletv1beta1.KubeletConfiguration
	// TLS has the certificate and the floor of versions and ciphers.
	TLS *tls.Config
	// Client asks the apiserver who somebody is and what he may; nil for a node
	// on its own.
	Client kubernetes.Interface
	Pods   Pods
	// UI is the page below /ui/ (package ui).
	UI    http.Handler
	Stats Stats
	// Cadvisor has what only /metrics/cadvisor tells.
	Cadvisor Cadvisor
	// Health are the checks of /healthz beside ping, by name.
	Health []Check
	Log    *slog.Logger
}

// Pods is who knows of the pods.
type Pods interface {
	Pods() []pod.Pod
	Node() pod.Node
}

// Stats is who knows what the node and its pods use.
type Stats interface {
	Summary(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.Summary, error)
}

// Cadvisor is who samples all cgroups in full.
type Cadvisor interface {
	Scrape(context.Context) *exposition.Cadvisor
}

// Check says what is wrong, nil for nothing.
type Check struct {
	Name  string
	Check func() error
}

// Server is the node's API.
type Server struct {
	options Options
	access  *access
	log     *slog.Logger
	tls     *tls.Config
}

// New prepares the server; nothing listens yet. An error says which field of
// the configuration cannot be used.
func New(o Options) (*Server, error) {
	s := &Server{options: o, log: o.Log, tls: o.TLS.Clone()}
	var err error
	if s.access, err = newAccess(o); err != nil {
		return nil, err
	}
	s.tls.ClientAuth = tls.RequestClientCert // who it names is checked by access
	s.tls.NextProtos = []string{"h2", "http/1.1"}
	return s, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	address := net.JoinHostPort(s.options.Config.Address, fmt.Sprint(s.options.Config.Port))
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("the node's API (address, port): %w", err)
	}
	go s.access.run(ctx)
	s.log.Info("serving the node's API", "address", l.Addr().String())
	return s.serve(ctx, tls.NewListener(l, s.tls), s.access.guard(s.log, s.routes()))
}

func (s *Server) serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler: h, TLSConfig: s.tls, BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, ReadTimeout: streamTimeout, WriteTimeout: streamTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the node's API: %w", err)
	}
	return nil
}
