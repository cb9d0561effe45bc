package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// floor makes pods by bare CRI calls, with the configs that the agent sent for
// such a pod. They carry no pod UID label, so that the agent, which would end
// pods that nobody wants, sees none of its business in them.
type floor struct {
	*lab.CRI
	dir       string // logs, and the files that containers mount
	cgroup    string
	sandbox   *cri.PodSandboxConfig
	container *cri.ContainerConfig
}

// barePod is a pod on the floor.
type barePod struct {
	sandbox, container string
	took               [3]time.Duration // by call
}

// learn reads back from the runtime what the agent asked for.
func learn(ctx context.Context, l *lab.Lab, e event) (*floor, error) {
	f := &floor{CRI: l.CRI, dir: l.Path("bare"), cgroup: l.CgroupRoot + "/bare"}
	s, err := l.CRI.Runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: e.sandbox, Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("read the agent's sandbox: %w", err)
	}
	c, err := l.CRI.Runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: e.id, Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("read the agent's container: %w", err)
	}
	if err := unpack(s.Info, &f.sandbox); err != nil {
		return nil, err
	}
	if err := unpack(c.Info, &f.container); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return nil, err
	}
	// The agent's own files go with its pod.
	for i, m := range f.container.Mounts {
		m.HostPath = filepath.Join(f.dir, fmt.Sprintf("mount%d", i))
		if err := os.WriteFile(m.HostPath, nil, 0o666); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// unpack reads the config out of a verbose status.
func unpack(info map[string]string, config any) error {
	var all struct {
		Config json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal([]byte(info["info"]), &all); err != nil {
		return fmt.Errorf("read config from status: %w", err)
	}
	if err := json.Unmarshal(all.Config, config); err != nil {
		return fmt.Errorf("read config from status: %w", err)
	}
	return nil
}

// run makes the pod, one call after another.
func (f *floor) run(ctx context.Context, name string) (p barePod, err error) {
	sandbox := proto.Clone(f.sandbox).(*cri.PodSandboxConfig)
	container := proto.Clone(f.container).(*cri.ContainerConfig)
	sandbox.Metadata.Name, sandbox.Metadata.Uid, sandbox.Hostname = name, name, name
	sandbox.LogDirectory, sandbox.Linux.CgroupParent = filepath.Join(f.dir, name), f.cgroup
	delete(sandbox.Labels, "io.kubernetes.pod.uid")
	delete(container.Labels, "io.kubernetes.pod.uid")
	if err := os.MkdirAll(filepath.Join(sandbox.LogDirectory, containerName), 0o755); err != nil {
		return p, err
	}
	began := time.Now()
	lap := func(call int) {
		p.took[call] = time.Since(began)
		began = time.Now()
	}
	s, err := f.Runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		return p, fmt.Errorf("run sandbox %s: %w", name, err)
	}
	p.sandbox = s.PodSandboxId
	lap(0)
	c, err := f.Runtime.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: p.sandbox, Config: container, SandboxConfig: sandbox})
	if err != nil {
		return p, fmt.Errorf("create container of %s: %w", name, err)
	}
	p.container = c.ContainerId
	lap(1)
	if _, err := f.Runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: p.container}); err != nil {
		return p, fmt.Errorf("start container of %s: %w", name, err)
	}
	lap(2)
	return p, nil
}

// end stops and removes the pod.
func (f *floor) end(ctx context.Context, p barePod) error {
	if _, err := f.Runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: p.container, Timeout: int64(grace / time.Second)}); err != nil {
		return fmt.Errorf("stop container %s: %w", p.container, err)
	}
	return f.RemoveSandbox(ctx, p.sandbox)
}
