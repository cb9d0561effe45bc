// Package credentials is how the agent proves to others who it is: to the
// apiserver by a kubeconfig and a client certificate, to those who call it by a
// serving certificate. It asks for certificates through the
// CertificateSigningRequest API, renews them in time, and sees when a file
// changes.
//
// Nothing here ends the agent, and nothing but Run and the clients themselves
// speak to anybody: a node without an apiserver or without a certificate runs
// its static pods, says once what it waits for, and goes on trying.
package credentials

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/client-go/util/certificate"

	"github.com/nodeagent/nodeagent/pkg/metrics"
)

// Options say who this node is and where its credentials are.
type Options struct {
	NodeName    string
	Kubeconfig  string // path; written when the bootstrap kubeconfig led to a certificate
	Bootstrap   string // path of the bootstrap kubeconfig, or ""
	CertDir     string // where certificates that were asked for are kept; made with mode 0700
	Rotate      bool   // rotateCertificates: renew the client certificate before it expires
	QPS         float32
	Burst       int
	ContentType string // of requests; "" leaves it to client-go
	Log         *slog.Logger
	Metrics     *metrics.Certificate // nil for nobody
	// Wrap is put around what makes the requests of Config and Heartbeat; nil for
	// nothing.
	Wrap transport.WrapperFunc
}

// Cluster is the way to the apiserver.
type Cluster struct {
	options Options
	log     *slog.Logger
	certs   certificate.FileStore
	server  *url.URL // as clients know it; a door leads to where it is now
	keeper  *keeper
	problem told
	clients func(*rest.Config) (kubernetes.Interface, error)
	ready   chan struct{}

	mu     sync.Mutex
	access *access // what clients use; nil while there is nothing that may be used
	why    error   // then: why not
	doors  []*door
}

// Open reads the kubeconfig, or the bootstrap kubeconfig while there is no other
// (behaviour row 1.19-1). It asks nobody. An error says that neither names a
// server.
func Open(o Options) (*Cluster, error) {
	if o.Kubeconfig == "" {
		return nil, errors.New("--bootstrap-kubeconfig needs --kubeconfig, the file that it leads to")
	}
	var err error
	if o.CertDir, err = filepath.Abs(o.CertDir); err != nil { // links and the kubeconfig will name it
		return nil, fmt.Errorf("find the folder of certificates (--cert-dir): %w", err)
	}
	if err := os.MkdirAll(o.CertDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of certificates (--cert-dir): %w", err)
	}
	certs, err := certificate.NewFileStoreWithLogger(logr.Discard(), "kubelet-client", o.CertDir, o.CertDir, "", "")
	if err != nil {
		return nil, fmt.Errorf("open client certificates in %s: %w", o.CertDir, err)
	}
	c := &Cluster{options: o, log: o.Log, certs: certs, clients: newClient, ready: make(chan struct{})}
	c.keeper = newKeeper(clientKind, o.CertDir, certs, o.Log, c.look)
	c.keeper.metrics = o.Metrics
	o.Metrics.Expires(c.expires)
	now := time.Now()
	s := c.see(now)
	base := s.base()
	if base == nil {
		return nil, fmt.Errorf("no apiserver is known: %w", errors.Join(s.own.err, s.doubt))
	}
	c.server = base.server
	c.publish(s, now)
	return c, nil
}

func newClient(config *rest.Config) (kubernetes.Interface, error) {
	return kubernetes.NewForConfig(config)
}

// Config is the configuration of clients that have connections of their own:
// call it once for each set of clients that shares some. They use whatever
// credentials are the newest; connections with older ones are closed. HTTP/2
// pings find within 15 s that a path has died.
//
// It may be used at once: requests wait for Ready, and fail if their context
// ends before, saying what is missing.
func (c *Cluster) Config() *rest.Config {
	config := c.clientConfig(c.open(normalPace))
	config.QPS, config.Burst = c.options.QPS, c.options.Burst
	return config
}

// Heartbeat is Config for what must not wait behind others nor hang: without a
// limit of requests, each with 10 s at most, on connections that are given up
// within 6 s after their path has died.
func (c *Cluster) Heartbeat() *rest.Config {
	config := c.clientConfig(c.open(heartbeatPace))
	config.QPS, config.Timeout = -1, 10*time.Second
	return config
}

func (c *Cluster) clientConfig(d *door) *rest.Config {
	config := &rest.Config{Host: c.server.String(), Transport: d, UserAgent: userAgent, WrapTransport: c.options.Wrap}
	config.ContentType = c.options.ContentType
	if config.ContentType == runtime.ContentTypeProtobuf {
		config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	}
	return config
}

// Ready is closed once there are credentials that may be used. Whether the
// apiserver takes them is for it to say.
func (c *Cluster) Ready() <-chan struct{} { return c.ready }

// Run asks for certificates, renews them and reads changed files, until ctx
// ends. What fails is said once and tried again.
func (c *Cluster) Run(ctx context.Context) error {
	err := c.keeper.Run(ctx)
	c.mu.Lock()
	doors := c.doors
	c.mu.Unlock()
	for _, d := range doors {
		d.CloseIdleConnections()
	}
	return err
}

// look reads the files, lets clients use what they say, and tells what is to be
// asked for.
func (c *Cluster) look(now time.Time) order {
	s := c.see(now)
	if written, err := c.settle(s, now); err != nil {
		s.doubt = errors.Join(s.doubt, err)
	} else if written {
		s = c.see(now)
	}
	c.publish(s, now)
	o := c.order(s, now)
	c.tell(s, now)
	return o
}

// publish lets clients use what was seen. What they have is kept while there is
// nothing better.
func (c *Cluster) publish(s sight, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.unusable(now); err != nil {
		c.why = err
		return
	}
	c.why = nil
	if c.access != nil && c.access.sum == s.access.sum {
		return
	}
	for _, d := range c.doors {
		d.use(s.access)
	}
	if c.access == nil {
		close(c.ready)
	} else {
		c.log.Info("credentials for the apiserver have changed, connections with the old ones are closed", "expires", s.expires())
	}
	c.access = s.access
}

// expires is when the client certificate does, zero if there is none.
func (c *Cluster) expires() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.access == nil || c.access.leaf == nil {
		return time.Time{}
	}
	return c.access.leaf.NotAfter
}

// open makes a door, which leads to the apiserver by connections of its own.
func (c *Cluster) open(p pace) *door {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &door{cluster: c, pace: p}
	if c.access != nil {
		d.use(c.access)
	}
	c.doors = append(c.doors, d)
	return d
}

// wait returns when there are credentials, or says why there are none.
func (c *Cluster) wait(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Errorf("no credentials for the apiserver yet (%w): %w", c.why, context.Cause(ctx))
}
