// Package agent puts the parts together: it builds each from the configuration
// and runs them until it is told to stop.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/checkpoint"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/local"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/node"
	"github.com/nodeagent/nodeagent/pkg/objects"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/probe"
	"github.com/nodeagent/nodeagent/pkg/record"
	"github.com/nodeagent/nodeagent/pkg/server"
	"github.com/nodeagent/nodeagent/pkg/source"
	"github.com/nodeagent/nodeagent/pkg/stats"
	"github.com/nodeagent/nodeagent/pkg/syncloop"
	"github.com/nodeagent/nodeagent/pkg/trace"
	"github.com/nodeagent/nodeagent/pkg/ui"
	"github.com/nodeagent/nodeagent/pkg/volumes"
)

// Agent is one node agent on one root folder.
type Agent struct {
	config *config.Config
	log    *slog.Logger
	level  *slog.LevelVar // of log
	fault  func(string)
	tracer *trace.Tracer // set by Run; nil when no traces are sent
}

// New makes an agent and touches nothing. level is the one of log, which people
// can change. fault is called at the points where tests end the process, and may
// be nil.
func New(c *config.Config, log *slog.Logger, level *slog.LevelVar, fault func(string)) *Agent {
	return &Agent{config: c, log: log, level: level, fault: fault}
}

// Run runs the agent until ctx ends; the pods go on without it. Its error says
// why the agent could not start or go on; a stop that was asked for is none.
func (a *Agent) Run(ctx context.Context) error {
	root, err := prepareRoot(a.config.Paths.RootDir)
	if err != nil {
		return err
	}
	release, err := record.Lock(root)
	if err != nil {
		return err
	}
	defer release()
	if err := CheckHost(a.config); err != nil {
		return err
	}
	if err := shareMounts(root); err != nil {
		return err
	}
	adjustOOMScore(a.config, a.log)
	stop, err := a.trace(ctx)
	if err != nil {
		return err
	}
	defer stop()
	parts, err := a.build(root)
	if err != nil {
		return err
	}
	defer parts.runtime.Close()
	err = a.run(ctx, root, parts)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// parts are what the agent is made of.
type parts struct {
	runtime *cri.Client
	sources []source.Source
	loop    *syncloop.Loop
	cluster *cluster // nil when the agent is on its own
	page    http.Handler
	series  *metrics.Series
	stats   *stats.Stats
	checks  []server.Check
	api     *api // nil when it is not served
}

func (a *Agent) build(root string) (*parts, error) {
	k := &a.config.Kubelet
	m, err := machineOf(a.config, root, a.joined())
	if err != nil {
		return nil, err
	}
	store, err := record.Open(filepath.Join(root, "nodeagent", "pods"))
	if err != nil {
		return nil, err
	}
	known := &objects.Store{Remote: a.joined()}
	variables := env.Resolver{Objects: known, Allocatable: m.allocatable}
	series := a.series()
	tree := newTree(a.config, m.limit, series.Storage, a.log)
	options := runtimeOptions(a.config, root, m, tree)
	options.Metrics, options.Traces = series.Runtime, a.tracer.GRPC()
	if options.Images.Plugins, err = credentialPlugins(a.config, a.log); err != nil {
		return nil, err
	}
	client, err := cri.Dial(options)
	if err != nil {
		return nil, err
	}
	tree.runtime = client
	joined, err := a.join(root, m, client, known, series)
	if err != nil {
		return nil, err
	}
	if known.Remote {
		variables.Services, variables.Stale = known.Services, known.Stale
	}
	vols, err := volumes.New(root, quantity(m.allocatable, v1.ResourceMemory), variables, joined.identity())
	if err != nil {
		return nil, err
	}
	vols.Metrics = series.Storage
	users, err := userRanges(k, vols, quantity(m.allocatable, v1.ResourcePods), a.log)
	if err != nil {
		return nil, err
	}
	allocated, actuated := a.takenOver(root)
	sources := a.sources()
	var world syncloop.World
	var seen func(cri.Runtime, error)
	var askNode func(context.Context) error
	if joined != nil {
		askNode = joined.askNode
		sources = append(sources, joined.source)
		world, seen = joined.world(), joined.runtime.see
	}
	handlers := probe.New(client, config.Release())
	host := ledger.Host{AppArmor: node.AppArmor(), Swap: client.Swaps()}
	loop := syncloop.New(syncloop.Config{
		World: world, Env: variables, Objects: known, DNS: resolver(k, m.ips, a.log),
		Runtime: client, Volumes: vols, Cgroups: tree, Records: store, Probes: handlers, Hooks: handlers, Log: a.log,
		States: checkpoint.New(root), Allocated: allocated, Actuated: actuated,
		Sources: names(sources), Known: a.known(store),
		Offline: syncloop.Offline{Boot: bootID(), Start: a.config.Node.OfflineStart},
		Ledger:  ledger.Ledger{Allocatable: m.allocatable, Node: nodeToChoose(a.config), Sysctls: k.AllowedUnsafeSysctls, Host: host, Users: users},
		Node:    pod.Node{Name: a.config.Node.Name, HostIPs: m.ips, MaxBackoff: maxBackoff(a.config)},
		Slots:   2 * runtime.NumCPU(),
		Timeout: k.RuntimeRequestTimeout.Duration, Connected: tree.connect, Seen: seen, AskNode: askNode, Fault: a.fault,
		Metrics: series.Pods, Attempts: series.Probes, Tracer: a.tracer,
	})
	series.Pods.Count(loop.Counts)
	if joined != nil {
		joined.loop = loop
	}
	p := &parts{runtime: client, sources: sources, loop: loop, cluster: joined, series: series, checks: healthChecks(loop.Hung)}
	if p.stats, err = a.stats(root, loop, tree, client, vols); err != nil {
		return nil, err
	}
	series.Storage.Logs(p.stats.Logs)
	p.page = ui.Handler(ui.Options{Version: config.GitVersion(), Pods: loop, Logs: client, Stats: p.stats})
	p.api, err = a.api(p, root)
	return p, err
}

func (a *Agent) run(ctx context.Context, root string, p *parts) error {
	k := &a.config.Kubelet
	g, ctx := errgroup.WithContext(ctx)
	updates := make(chan source.Update)
	for _, s := range p.sources {
		g.Go(func() error { return s.Run(ctx, updates) })
	}
	if p.cluster != nil {
		p.cluster.run(ctx, g)
	}
	if p.api != nil {
		p.api.run(ctx, g)
	}
	g.Go(func() error { return p.loop.Run(ctx, updates) })
	g.Go(func() error { return p.stats.Run(ctx) })
	g.Go(func() error { return local.Serve(ctx, root, p.loop, p.page, a.log) })
	g.Go(func() error { return server.ServeHealth(ctx, k, p.checks, a.log) })
	g.Go(func() error { return notify(ctx, a.log, p.loop.Hung) })
	a.log.Info("agent is running", "version", config.GitVersion(), "node", a.config.Node.Name, "root", root)
	return g.Wait()
}

// sources are those that the configuration names.
func (a *Agent) sources() []source.Source {
	k := &a.config.Kubelet
	var out []source.Source
	if k.StaticPodPath != "" {
		out = append(out, source.NewFile(source.FileOptions{Path: k.StaticPodPath, NodeName: a.config.Node.Name,
			Reread: k.FileCheckFrequency.Duration, Joined: a.joined()}))
	}
	if k.StaticPodURL != "" {
		header := http.Header{}
		for name, values := range k.StaticPodURLHeader {
			header[http.CanonicalHeaderKey(name)] = values
		}
		out = append(out, source.NewHTTP(source.HTTPOptions{URL: k.StaticPodURL, Header: header,
			Period: k.HTTPCheckFrequency.Duration, NodeName: a.config.Node.Name, Joined: a.joined()}))
	}
	return out
}

func names(sources []source.Source) []string {
	var out []string
	for _, s := range sources {
		out = append(out, s.Name())
	}
	return out
}

// known are the records that an earlier process left. One that cannot be read
// is set aside: what it said is rebuilt from the runtime.
func (a *Agent) known(store *record.Store) map[types.UID]pod.Record {
	records, asides := record.All[pod.Record](store)
	for _, aside := range asides {
		a.log.Warn("a record could not be read and was set aside; going on without it", "record", aside.Name, "kept", aside.Path, "error", aside.Err)
	}
	out := map[types.UID]pod.Record{}
	for name, r := range records {
		if r.Spec == nil {
			a.log.Warn("a record without a pod is ignored", "record", name)
			continue
		}
		out[types.UID(name)] = r
	}
	return out
}

// takenOver is what another agent left of what pods were granted and given. A
// file that cannot be read is set aside and made anew: those pods count with
// what they ask for.
func (a *Agent) takenOver(root string) (allocated, actuated checkpoint.Pods) {
	read := func(name string) checkpoint.Pods {
		pods, err := checkpoint.Read(root, name)
		if err != nil {
			a.log.Warn("what pods were granted could not be read; going on with what they ask for", "error", err)
		}
		return pods
	}
	return read(checkpoint.Allocated), read(checkpoint.Actuated)
}

func maxBackoff(c *config.Config) time.Duration {
	if d := c.Kubelet.CrashLoopBackOff.MaxContainerRestartPeriod; d != nil {
		return d.Duration
	}
	return 0
}
