package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"github.com/nodeagent/nodeagent/pkg/credentials"
	"github.com/nodeagent/nodeagent/pkg/server"
	"github.com/nodeagent/nodeagent/pkg/stats/exposition"
)

// api is the node's API and the certificate by which others know it.
type api struct {
	server  *server.Server
	serving *credentials.Serving
}

// api prepares the node's API; nil when it is turned off, or when there is
// nobody who could say whom to let in.
func (a *Agent) api(p *parts) (*api, error) {
	k := &a.config.Kubelet
	if !*k.EnableServer {
		return nil, nil
	}
	options := server.Options{NodeName: a.config.Node.Name, Config: k, Pods: p.loop, Stats: p.stats, UI: p.page, Log: a.log,
		Cadvisor: exposition.NewSource(p.stats, p.runtime.SandboxImage, a.log)}
	serving := credentials.ServingOptions{NodeName: a.config.Node.Name, HostName: a.config.Node.Name,
		CertDir: a.config.Paths.CertDir, CertFile: k.TLSCertFile, KeyFile: k.TLSPrivateKeyFile, Log: a.log}
	if p.cluster != nil {
		client, err := kubernetes.NewForConfig(p.cluster.credentials.Config())
		if err != nil {
			return nil, fmt.Errorf("client of the node's API: %w", err)
		}
		options.Client = client
		if k.ServerTLSBootstrap {
			serving.Cluster = p.cluster.credentials
		}
	}
	out := &api{}
	var err error
	if out.serving, err = credentials.OpenServing(serving); err != nil {
		return nil, err
	}
	options.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: out.serving.Certificate}
	out.server, err = server.New(options)
	if errors.Is(err, server.ErrNoCluster) {
		a.log.Info("the node's API is not served: " + err.Error())
		return nil, nil
	}
	return out, err
}

func (s *api) run(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return s.serving.Run(ctx) })
	g.Go(func() error { return s.server.Run(ctx) })
}
