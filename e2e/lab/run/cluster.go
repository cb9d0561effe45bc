package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// cluster starts a control plane and joins the agent to it, on a containerd of
// its own. Ctrl-C ends it all and nothing is kept.
func cluster(ctx context.Context) error {
	return lab.Run(func(tb lab.TB) error {
		began := time.Now()
		p, err := lab.StartControlPlane(tb, lab.ControlPlaneOptions{})
		if err != nil {
			return err
		}
		fmt.Printf("plane     %s in network %s, up after %.1f s, logs %s\n",
			p.Server(), p.Network.Name, time.Since(began).Seconds(), filepath.Join(p.Dir, "*.log"))
		l := lab.New(tb, lab.Options{Plane: p})
		fmt.Printf("runtime   containerd pid %d, socket %s\n", l.Runtime.Pid(), l.Runtime.Socket())
		a, err := joinAgent(l, p)
		if err != nil {
			return err
		}
		fmt.Printf("agent     pid %d, log %s\n", a.Pid(), a.LogFile())
		for _, state := range []string{"create", "condition=Ready"} {
			if _, err := p.Kubectl("wait", "node", a.Node, "--for="+state, "--timeout=60s"); err != nil {
				return err
			}
		}
		fmt.Printf("node      %s is Ready, %.1f s after the beginning\n", a.Node, time.Since(began).Seconds())
		fmt.Printf(`kubeconfig %s

in another terminal:
  alias kubectl='%s'
  kubectl get nodes
  kubectl create deployment web --image=%s -- sleep 1000000
  %s pods --root-dir=%s

Ctrl-C ends all of it and removes it.
`, p.AdminKubeconfig(), p.KubectlCommand(), lab.BusyboxImage, agentBinary, a.Root)
		select {
		case <-ctx.Done():
			return a.Stop()
		case <-a.Ended():
			return errors.New("the agent ended by itself")
		}
	})
}

func joinAgent(l *lab.Lab, p *lab.ControlPlane) (*lab.Agent, error) {
	binary, err := filepath.Abs(agentBinary)
	if err != nil {
		return nil, fmt.Errorf("join agent: %w", err)
	}
	a, err := l.Agent(binary)
	if err != nil {
		return nil, fmt.Errorf("join agent: %w", err)
	}
	if a.Kubeconfig, err = p.NodeKubeconfig(a.Node); err != nil {
		return nil, fmt.Errorf("join agent: %w", err)
	}
	return a, a.Start()
}
