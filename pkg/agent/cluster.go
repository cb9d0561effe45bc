package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/nodeagent/nodeagent/pkg/credentials"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/node"
	"github.com/nodeagent/nodeagent/pkg/objects"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/record"
	"github.com/nodeagent/nodeagent/pkg/source"
	"github.com/nodeagent/nodeagent/pkg/status"
	"github.com/nodeagent/nodeagent/pkg/syncloop"
	"github.com/nodeagent/nodeagent/pkg/volumes"
)

// cluster is what a node has that joined one.
type cluster struct {
	name        string // of the node
	credentials *credentials.Cluster
	client      kubernetes.Interface

	// What the apiserver gives.
	source source.Source
	keeper *objects.Keeper
	proofs *credentials.PodIdentity

	// What it is told.
	status  *status.Writer
	events  *status.Events
	node    *node.Reporter
	runtime *runtimeSeen // for node

	// These are made from what is here, and set before any of it runs.
	loop      *syncloop.Loop
	addresses func([]v1.NodeAddress) // hears what the node's addresses are; may be nil
}

// join prepares to be a node of a cluster; nil when none is configured. It asks
// nobody yet.
func (a *Agent) join(root string, m machine, runtime *cri.Client, known *objects.Store, series *metrics.Series) (*cluster, error) {
	if !a.joined() {
		return nil, nil
	}
	k := &a.config.Kubelet
	c := &cluster{name: a.config.Node.Name, runtime: newRuntimeSeen()}
	var err error
	c.credentials, err = credentials.Open(credentials.Options{
		NodeName:   a.config.Node.Name,
		Kubeconfig: a.config.Paths.Kubeconfig, Bootstrap: a.config.Paths.BootstrapKubeconfig, CertDir: a.config.Paths.CertDir,
		Rotate: k.RotateCertificates, QPS: float32(*k.KubeAPIQPS), Burst: int(k.KubeAPIBurst), ContentType: k.ContentType, Log: a.log,
		Metrics: series.Certificates.Client, Wrap: a.wrapper(),
	})
	if err != nil {
		return nil, err
	}
	if c.client, err = kubernetes.NewForConfig(c.credentials.Config()); err != nil {
		return nil, fmt.Errorf("client of the apiserver: %w", err)
	}
	if c.events, err = a.events(c.credentials); err != nil {
		return nil, err
	}
	c.status = status.New(status.Options{Client: c.client, Node: func() pod.Node { return c.loop.Node() }, Log: a.log, Metrics: series.Writes, Tracer: a.tracer,
		Ready: func(uid types.UID, sent, taken time.Time) { c.loop.Published(uid, sent, taken) }})
	if c.node, err = a.nodeReport(m, c, runtime); err != nil {
		return nil, err
	}
	// With a rate of its own: a node that reads what its pods refer to must not
	// keep a status waiting.
	reader, err := kubernetes.NewForConfig(c.credentials.Config())
	if err != nil {
		return nil, fmt.Errorf("client for pods: %w", err)
	}
	c.proofs = credentials.NewPodIdentity(reader, a.config.Node.Name)
	c.source = source.NewAPI(source.APIOptions{Client: reader, NodeName: a.config.Node.Name, Ready: c.credentials.Ready(),
		Seen: func(p *v1.Pod) { c.status.Seen(p); told(series.Pods, p) }, Gone: c.status.Gone, Missed: c.status.Unsure, Log: a.log,
		Objects: known, Renew: func(changed map[objects.Key]bool) { c.loop.Renew(changed) }})
	files, err := record.Open(filepath.Join(root, "nodeagent", "objects"))
	if err != nil {
		return nil, err
	}
	c.keeper = objects.NewKeeper(known, files, a.config.Node.KeepSecrets, a.log)
	return c, nil
}

// joined says whether the node is to be one of a cluster.
func (a *Agent) joined() bool {
	return a.config.Paths.Kubeconfig != "" || a.config.Paths.BootstrapKubeconfig != ""
}

// identity is what proves to others which pods are on this node; nil for an
// agent on its own.
func (c *cluster) identity() volumes.Identity {
	if c == nil {
		return nil
	}
	return c.proofs
}

// events makes events with connections and a rate of their own.
func (a *Agent) events(c *credentials.Cluster) (*status.Events, error) {
	config := c.Config()
	config.QPS, config.Burst = float32(*a.config.Kubelet.EventRecordQPS), int(a.config.Kubelet.EventBurst)
	if config.QPS == 0 {
		config.QPS = -1 // no limit
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for events: %w", err)
	}
	return status.NewEvents(client, a.config.Node.Name), nil
}

// world is all who tell the apiserver of pods.
type world struct {
	*status.Writer
	events *status.Events
}

func (c *cluster) world() world { return world{c.status, c.events} }

func (w world) Tell(p pod.Pod) {
	w.Writer.Tell(p)
	w.events.Tell(p)
}

func (w world) Forget(uid types.UID) {
	w.Writer.Forget(uid)
	w.events.Forget(uid)
}

func (c *cluster) run(ctx context.Context, g *errgroup.Group) {
	stop := c.events.Start()
	g.Go(func() error {
		<-ctx.Done()
		stop()
		return ctx.Err()
	})
	g.Go(func() error { return c.credentials.Run(ctx) })
	g.Go(func() error { return c.status.Run(ctx) })
	g.Go(func() error { return c.reportNode(ctx) })
	g.Go(func() error { return c.proofs.Run(ctx, c.loop.RenewPod) })
	g.Go(func() error { return c.keeper.Run(ctx) })
}
