package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"github.com/nodeagent/nodeagent/pkg/credentials"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/server"
	"github.com/nodeagent/nodeagent/pkg/stats/exposition"
)

// api is the node's API and the certificate by which others know it.
type api struct {
	server  *server.Server
	serving *credentials.Serving // nil when only the read-only port is served
}

// api prepares the node's API; nil when it is turned off. Of an API that could
// let nobody in only the read-only port is served, if one is set.
func (a *Agent) api(p *parts, root string) (*api, error) {
	k := &a.config.Kubelet
	if !*k.EnableServer {
		return nil, nil
	}
	out := &api{}
	options := server.Options{
		NodeName: a.config.Node.Name, Config: k, Gate: a.config.Gate, Pods: p.loop, Open: p.loop.Looked(), Runtime: p.runtime, Health: p.checks,
		UI: p.page, Stats: p.stats, Cadvisor: exposition.NewSource(p.stats, p.runtime.SandboxImage, a.log),
		Process: server.Process{Flags: a.config.Flags(), Level: a.level, Root: root}, Metrics: p.series, Tracer: a.tracer, Log: a.log,
	}
	if why := server.Nobody(k, p.cluster != nil); why != nil {
		a.log.Info("the node's API is not served, as it could let nobody in", "port", k.Port, "why", why)
	} else if err := a.secure(&options, out, p.cluster, p.series.Certificates.Server); err != nil {
		return nil, err
	}
	var err error
	out.server, err = server.New(options)
	return out, err
}

// secure adds what the node shows of itself, and whom it asks about others.
func (a *Agent) secure(o *server.Options, out *api, to *cluster, counts *metrics.Certificate) error {
	k := &a.config.Kubelet
	serving := credentials.ServingOptions{NodeName: a.config.Node.Name,
		CertDir: a.config.Paths.CertDir, CertFile: k.TLSCertFile, KeyFile: k.TLSPrivateKeyFile, Log: a.log, Metrics: counts,
		RSA: len(k.TLSCipherSuites) > 0 && !slices.ContainsFunc(k.TLSCipherSuites, func(suite string) bool { return strings.Contains(suite, "_ECDSA_") })}
	if to != nil {
		var err error
		if o.Tokens, err = kubernetes.NewForConfig(to.credentials.Config()); err != nil {
			return fmt.Errorf("client of the node's API: %w", err)
		}
		if o.Rights, err = kubernetes.NewForConfig(to.credentials.Config()); err != nil {
			return fmt.Errorf("client of the node's API: %w", err)
		}
		if k.ServerTLSBootstrap {
			serving.Cluster = to.credentials
		}
	}
	var err error
	if out.serving, err = credentials.OpenServing(serving); err != nil {
		return err
	}
	o.Certificate = out.serving.Certificate
	if to != nil {
		to.addresses = out.serving.SetAddresses
	}
	return nil
}

func (s *api) run(ctx context.Context, g *errgroup.Group) {
	if s.serving != nil {
		g.Go(func() error { return s.serving.Run(ctx) })
	}
	g.Go(func() error { return s.server.Run(ctx) })
}

// patience is how long the loop over all pods may hang before the agent counts
// as ill (behaviour row 1.24-8).
const patience = 5 * time.Minute

// healthChecks are those of /healthz.
func healthChecks(hung func(time.Time) time.Duration) []server.Check {
	return []server.Check{server.Logs, {Name: "syncloop", Check: func(context.Context) error {
		if d := hung(time.Now()); d > patience {
			return fmt.Errorf("the loop over all pods has not gone on for %v", d)
		}
		return nil
	}}}
}
