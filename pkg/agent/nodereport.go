package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/nodedeclaredfeatures"
	featuretypes "k8s.io/component-helpers/nodedeclaredfeatures/types"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/ledger"
	"github.com/nodeagent/nodeagent/pkg/node"
)

// builtFeatures are those of the features that a node may declare that are
// built here; a gate can turn each off.
var builtFeatures = []string{"InPlacePodLevelResourcesVerticalScaling", "RestartAllContainersOnContainerExits"}

// nodeReport prepares the report of this node to its cluster.
func (a *Agent) nodeReport(m machine, to *cluster, runtime *cri.Client) (*node.Reporter, error) {
	c, k := a.config, &a.config.Kubelet
	heartbeat, err := kubernetes.NewForConfig(to.credentials.Heartbeat())
	if err != nil {
		return nil, fmt.Errorf("client for node lease and status: %w", err)
	}
	info, err := node.SystemInfo("/", config.GitVersion())
	if err != nil {
		return nil, err
	}
	settings := nodeSettings(c)
	finder := node.Finder{Name: c.Node.Name, Configured: c.Node.IPs}
	r := node.NewReporter(node.ReporterOptions{
		Client: to.client, Heartbeat: heartbeat, Settings: settings,
		Machine: node.Machine{Capacity: m.capacity, Allocatable: m.allocatable, Port: k.Port, Info: info, Features: declaredFeatures(c)},
		Cadence: node.Cadence{
			Lease:  time.Duration(k.NodeLeaseDurationSeconds) * time.Second,
			Update: k.NodeStatusUpdateFrequency.Duration, Report: k.NodeStatusReportFrequency.Duration,
		},
		Addresses: func(ctx context.Context) ([]string, error) {
			if settings.External && len(c.Node.IPs) == 0 {
				return []string{}, nil // its cloud knows them
			}
			return finder.Find(ctx)
		},
		Runtime: to.runtime.now, Images: runtime.Images, PodCIDR: runtime.SetPodCIDR,
		Changed: to.tellNode, Events: to.events, Log: a.log,
	})
	to.runtime.changed = r.Poke
	return r, nil
}

func nodeSettings(c *config.Config) node.Settings {
	k := &c.Kubelet
	s := node.Settings{
		Name: c.Node.Name, Labels: c.Node.Labels, Taints: k.RegisterWithTaints, Register: *k.RegisterNode, ProviderID: k.ProviderID,
		External: c.Node.CloudProvider == "external", Attach: *k.EnableControllerAttachDetach, MaxImages: *k.NodeStatusMaxImages,
	}
	for _, ip := range c.Node.IPs {
		if !ip.IsUnspecified() {
			s.IPs = append(s.IPs, ip.String())
		}
	}
	return s
}

// nodeToChoose is the node as pods choose among nodes, before its object is seen.
func nodeToChoose(c *config.Config) ledger.Node {
	s := nodeSettings(c)
	return ledger.Node{Name: s.Name, Labels: node.Labels(s), Taints: node.Taints(s), Features: declaredFeatures(c)}
}

// tellNode tells by which labels and taints pods are let in, and which addresses
// they see and the node's certificate is for. Without a Node the last ones count.
func (c *cluster) tellNode(n *v1.Node) {
	c.status.Registered(n)
	if n != nil {
		c.loop.SetNode(n.Labels, n.Spec.Taints, node.HostIPs(n))
		if c.addresses != nil {
			c.addresses(n.Status.Addresses)
		}
	}
}

// askNode does so with the newest ones.
func (c *cluster) askNode(ctx context.Context) error {
	n, err := c.client.CoreV1().Nodes().Get(ctx, c.name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get node %s: %w", c.name, err)
	}
	c.tellNode(n)
	return nil
}

// reportNode reports this node once there are credentials.
func (c *cluster) reportNode(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.credentials.Ready():
		return c.node.Run(ctx)
	}
}

// declaredFeatures are what schedulers and apiservers may ask of this node.
func declaredFeatures(c *config.Config) []string {
	gates := featuretypes.FeatureGateMap{}
	for _, name := range builtFeatures {
		gates[name] = c.Gate("NodeDeclaredFeatures") && c.Gate(name)
	}
	return nodedeclaredfeatures.DefaultFramework.DiscoverNodeFeatures(&featuretypes.NodeConfiguration{
		FeatureGates: gates, Version: version.MustParseSemantic(config.KubernetesVersion),
	})
}

// runtimeSeen is how the runtime was last seen.
type runtimeSeen struct {
	changed func() // set before it is told anything; must not block

	mu    sync.Mutex
	state node.RuntimeState
}

func newRuntimeSeen() *runtimeSeen {
	return &runtimeSeen{state: node.RuntimeState{Error: node.RuntimeUnknown, Since: time.Now()}}
}

func (s *runtimeSeen) now() node.RuntimeState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// see takes what the loop over all pods saw of it (syncloop.Config.Seen).
func (s *runtimeSeen) see(rt cri.Runtime, err error) {
	s.mu.Lock()
	old := s.state
	switch {
	case err == nil || rt.RuntimeReady != "": // it answers
		s.state = node.RuntimeState{
			NotReady: rt.RuntimeReady, Network: rt.NetworkReady,
			Name: rt.Name, Version: rt.Version, Handlers: handlersOf(rt), Session: old.Session,
		}
		if rt.TellsFeatures {
			s.state.Features = &v1.NodeFeatures{SupplementalGroupsPolicy: &rt.StrictGroups}
		}
		if old.Error != "" {
			s.state.Session++
		}
	default:
		s.state.Error = err.Error()
		if old.Error == "" {
			s.state.Since = time.Now()
		}
	}
	s.mu.Unlock()
	s.changed()
}

// handlersOf are the runtime's handlers as a Node lists them.
func handlersOf(rt cri.Runtime) []v1.NodeRuntimeHandler {
	var out []v1.NodeRuntimeHandler
	for name, h := range rt.Handlers {
		out = append(out, v1.NodeRuntimeHandler{Name: name, Features: &v1.NodeRuntimeHandlerFeatures{
			RecursiveReadOnlyMounts: &h.RecursiveReadOnly, UserNamespaces: &h.UserNamespaces}})
	}
	slices.SortFunc(out, func(a, b v1.NodeRuntimeHandler) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
