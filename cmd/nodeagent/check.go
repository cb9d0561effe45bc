package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/cgroups"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/local"
)

// runCheck is the preflight: each line ok or not, and the remedy. It takes the
// agent's own flags, so that it looks at what the agent would use.
func runCheck(ctx context.Context, args []string) error {
	c, err := config.Load(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	running := agentRuns(ctx, c)
	bad := 0
	for _, check := range []struct {
		name string
		run  func() (string, error)
	}{
		{"host", func() (string, error) { return "swap and cgroup version", agent.CheckHost(c) }},
		{"cgroups", checkCgroups},
		{"runtime", func() (string, error) { return checkRuntime(ctx, c) }},
		{"network", func() (string, error) { return checkNetwork(ctx, c) }},
		{"folders", func() (string, error) { return checkFolders(c) }},
		{"manifests", func() (string, error) { return checkManifests(c) }},
		{"ports", func() (string, error) { return checkPorts(c, running) }},
	} {
		text, err := check.run()
		if err != nil {
			bad++
			fmt.Printf("NOT OK  %-10s %v\n", check.name, err)
			continue
		}
		fmt.Printf("ok      %-10s %s\n", check.name, text)
	}
	if bad > 0 {
		return fmt.Errorf("%d of the checks failed", bad)
	}
	return nil
}

func agentRuns(ctx context.Context, c *config.Config) bool {
	_, err := local.NewClient(c.Paths.RootDir).Report(ctx)
	return err == nil
}

func checkCgroups() (string, error) {
	facts, err := cgroups.Check()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s with %s", facts.Version, strings.Join(facts.Controllers, ", ")), facts.Err()
}

func probe(ctx context.Context, c *config.Config) (cri.Runtime, error) {
	client, err := cri.Dial(cri.Options{Endpoint: c.Kubelet.ContainerRuntimeEndpoint, RequestTimeout: 5 * time.Second})
	if err != nil {
		return cri.Runtime{}, err
	}
	defer client.Close()
	return client.Probe(ctx)
}

func checkRuntime(ctx context.Context, c *config.Config) (string, error) {
	rt, err := probe(ctx, c)
	if err == nil && rt.Ready != "" {
		err = errors.New(rt.Ready)
	}
	text := fmt.Sprintf("%s %s at %s", rt.Name, rt.Version, c.Kubelet.ContainerRuntimeEndpoint)
	if doubt := rt.Untested(); doubt != "" {
		text += ", " + doubt
	}
	return text, err
}

func checkNetwork(ctx context.Context, c *config.Config) (string, error) {
	rt, err := probe(ctx, c)
	if err != nil {
		return "", errors.New("not known, as the runtime does not answer")
	}
	if rt.Network != "" {
		return "", fmt.Errorf("%s: put a network list into the runtime's CNI folder, /etc/cni/net.d by default; until then only pods with hostNetwork start", rt.Network)
	}
	return "the runtime has a pod network", nil
}

func checkFolders(c *config.Config) (string, error) {
	for _, dir := range []string{c.Paths.RootDir, c.Kubelet.PodLogsDir} {
		existing := dir
		for {
			if _, err := os.Stat(existing); err == nil {
				break
			}
			existing = filepath.Dir(existing)
		}
		f, err := os.CreateTemp(existing, ".nodeagent-check-*")
		if err != nil {
			return "", fmt.Errorf("%s can't be written: %w; run as root, or choose another folder", dir, err)
		}
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			return "", err
		}
	}
	return c.Paths.RootDir + " and " + c.Kubelet.PodLogsDir + " can be written", nil
}

func checkManifests(c *config.Config) (string, error) {
	path := c.Kubelet.StaticPodPath
	if path == "" {
		return "no folder of pods (staticPodPath) is set", nil
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("staticPodPath: %w; make it, or set another", err)
	}
	return "pods are read from " + path, nil
}

func checkPorts(c *config.Config, running bool) (string, error) {
	port := int(*c.Kubelet.HealthzPort)
	if port == 0 {
		return "no port is used", nil
	}
	address := net.JoinHostPort(c.Kubelet.HealthzBindAddress, strconv.Itoa(port))
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		return address + " is free", l.Close()
	case running:
		return address + " is the running agent's", nil
	}
	return "", fmt.Errorf("%w; stop what listens there, or set healthzPort", err)
}
