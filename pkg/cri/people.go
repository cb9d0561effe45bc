package cri

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Streams are those of a command or an attached container. With TTY, what it
// says on stderr comes on stdout.
type Streams struct{ Stdin, Stdout, Stderr, TTY bool }

// ExecURL is where the runtime runs a command in instance id, for one client
// who speaks the streaming protocol (SPDY or websocket, behaviour row 1.20-21).
func (c *Client) ExecURL(ctx context.Context, id string, command []string, s Streams) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	r, err := c.runtime.Exec(ctx, &runtimeapi.ExecRequest{
		ContainerId: id, Cmd: command, Tty: s.TTY, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr && !s.TTY})
	if err != nil {
		return "", failed("", "exec in container "+id, err)
	}
	return r.Url, nil
}

// AttachURL is where the runtime attaches one client to instance id. TTY must
// be what the container was made with.
func (c *Client) AttachURL(ctx context.Context, id string, s Streams) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	r, err := c.runtime.Attach(ctx, &runtimeapi.AttachRequest{
		ContainerId: id, Tty: s.TTY, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr && !s.TTY})
	if err != nil {
		return "", failed("", "attach to container "+id, err)
	}
	return r.Url, nil
}

// PortForwardURL is where the runtime forwards one client's connections to
// ports of a sandbox; without ports, to those that the client asks for.
func (c *Client) PortForwardURL(ctx context.Context, sandboxID string, ports []int32) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	r, err := c.runtime.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: sandboxID, Port: ports})
	if err != nil {
		return "", failed("", "forward ports of sandbox "+sandboxID, err)
	}
	return r.Url, nil
}

// Instance is an instance of a pod's container.
type Instance struct {
	Namespace, Pod string
	UID            types.UID
	Container      string
	ID             string
	SandboxID      string
	Attempt        uint32
	State          pod.State
	Image          string // as the runtime names it
}

// Instances are those of all pods that bear the name: a name,
// namespace/name or UID. The newest come first.
func (c *Client) Instances(ctx context.Context, name string) ([]Instance, error) {
	return c.instances(ctx, nil, func(labels map[string]string) bool { return named(labels, name) })
}

// Running are the instances that run, of all pods, whoever wants them.
func (c *Client) Running(ctx context.Context) ([]Instance, error) {
	running := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	return c.instances(ctx, &runtimeapi.ContainerFilter{State: running}, func(labels map[string]string) bool { return labels[LabelPodUID] != "" })
}

func (c *Client) instances(ctx context.Context, filter *runtimeapi.ContainerFilter, wanted func(labels map[string]string) bool) ([]Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	r, err := c.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: filter})
	if err != nil {
		return nil, failed("", "list containers", err)
	}
	slices.SortFunc(r.Containers, func(a, b *runtimeapi.Container) int {
		return cmp.Or(cmp.Compare(b.CreatedAt, a.CreatedAt), cmp.Compare(b.GetMetadata().GetAttempt(), a.GetMetadata().GetAttempt()))
	})
	var out []Instance
	for _, k := range r.Containers {
		if wanted(k.Labels) {
			out = append(out, Instance{
				Namespace: k.Labels[LabelPodNamespace], Pod: k.Labels[LabelPodName], UID: types.UID(k.Labels[LabelPodUID]),
				Container: k.Labels[LabelContainerName], ID: k.Id, SandboxID: k.PodSandboxId,
				Attempt: k.GetMetadata().GetAttempt(), State: stateOf(k.State),
				Image: k.GetImage().GetImage(),
			})
		}
	}
	return out, nil
}

// named says whether these are the labels of a pod that people call name.
func named(labels map[string]string, name string) bool {
	pod, uid := labels[LabelPodName], labels[LabelPodUID]
	return uid != "" && (name == pod || name == labels[LabelPodNamespace]+"/"+pod || name == uid)
}

// LogFile is where the log of a container's instance with this restart count is,
// by the pod's identity alone: it outlives what the runtime knows of it
// (behaviour row 1.11-4).
func (c *Client) LogFile(p *v1.Pod, container string, attempt uint32) (string, error) {
	folder, err := LogFolder(p.Namespace, p.Name, p.UID)
	if err != nil {
		return "", err
	}
	return filepath.Join(c.opts.Pods.LogsDir, folder, container, fmt.Sprintf("%d.log", attempt)), nil
}

// LogPath is where the log of instance id is.
func (c *Client) LogPath(ctx context.Context, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	s, err := c.containerStatus(ctx, id)
	switch {
	case err != nil:
		return "", err
	case s == nil:
		return "", fmt.Errorf("container %s is gone", id)
	case s.LogPath == "":
		return "", fmt.Errorf("container %s has no log", id)
	}
	return s.LogPath, nil
}

// StateOf is the state of instance id; one that is gone has ended.
func (c *Client) StateOf(ctx context.Context, id string) (pod.State, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	s, err := c.containerStatus(ctx, id)
	if err != nil || s == nil {
		return pod.Exited, err
	}
	return stateOf(s.State), nil
}
