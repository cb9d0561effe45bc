package lab

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The label that carries a pod's UID on its sandboxes and containers.
const podUIDLabel = "io.kubernetes.pod.uid"

// CRI is a raw client: what the runtime itself says, past the agent.
type CRI struct {
	Runtime cri.RuntimeServiceClient
	Images  cri.ImageServiceClient
	conn    *grpc.ClientConn
}

// DialCRI connects to the socket at path, lazily: a dead socket shows at the
// first call.
func DialCRI(path string) (*CRI, error) {
	conn, err := grpc.NewClient("unix://"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, fmt.Errorf("dial CRI at %s: %w", path, err)
	}
	return &CRI{Runtime: cri.NewRuntimeServiceClient(conn), Images: cri.NewImageServiceClient(conn), conn: conn}, nil
}

// Close ends the connection.
func (c *CRI) Close() error { return c.conn.Close() }

// Ready is nil if the runtime and its network are ready.
func (c *CRI) Ready(ctx context.Context) error {
	// Each attempt connects anew: after a refused one grpc would wait a second.
	c.conn.ResetConnectBackoff()
	status, err := c.Runtime.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return fmt.Errorf("ask runtime status: %w", err)
	}
	for _, cond := range status.GetStatus().GetConditions() {
		if !cond.Status && (cond.Type == cri.RuntimeReady || cond.Type == cri.NetworkReady) {
			return fmt.Errorf("runtime condition %s is false: %s: %s", cond.Type, cond.Reason, cond.Message)
		}
	}
	return nil
}

// HasImage says whether the runtime has an image under this reference.
func (c *CRI) HasImage(ctx context.Context, ref string) (bool, error) {
	r, err := c.Images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: ref}})
	if err != nil {
		return false, fmt.Errorf("ask status of image %s: %w", ref, err)
	}
	return r.Image != nil, nil
}

// Sandboxes lists the sandboxes of a pod, or all if uid is empty.
func (c *CRI) Sandboxes(ctx context.Context, uid string) ([]*cri.PodSandbox, error) {
	r, err := c.Runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{
		Filter: &cri.PodSandboxFilter{LabelSelector: uidSelector(uid)},
	})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	return r.Items, nil
}

// Containers lists the containers of a pod in every state, or all if uid is empty.
func (c *CRI) Containers(ctx context.Context, uid string) ([]*cri.Container, error) {
	r, err := c.Runtime.ListContainers(ctx, &cri.ListContainersRequest{
		Filter: &cri.ContainerFilter{LabelSelector: uidSelector(uid)},
	})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return r.Containers, nil
}

func uidSelector(uid string) map[string]string {
	if uid == "" {
		return nil
	}
	return map[string]string{podUIDLabel: uid}
}

// BarePod is a pod of one container made by CRI calls alone, the floor that
// the agent is measured against.
type BarePod struct {
	Name, Namespace, UID string
	LogDir               string // a folder that exists
	CgroupParent         string
	Image                string // default: BusyboxImage
	Command              []string
	HostNetwork          bool

	Sandbox, Container string // ids, set by RunPod
}

// RunPod makes the sandbox, creates the container and starts it, one call
// after another.
func (c *CRI) RunPod(ctx context.Context, p *BarePod) error {
	s, err := c.Runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: p.sandboxConfig()})
	if err != nil {
		return fmt.Errorf("run sandbox of pod %s: %w", p.Name, err)
	}
	p.Sandbox = s.PodSandboxId
	made, err := c.Runtime.CreateContainer(ctx, p.Create("main"))
	if err != nil {
		return fmt.Errorf("create container of pod %s: %w", p.Name, err)
	}
	p.Container = made.ContainerId
	_, err = c.Runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: p.Container})
	if err != nil {
		return fmt.Errorf("start container of pod %s: %w", p.Name, err)
	}
	return nil
}

// Create asks for a container of that name in the pod's sandbox.
func (p *BarePod) Create(name string) *cri.CreateContainerRequest {
	return &cri.CreateContainerRequest{PodSandboxId: p.Sandbox, Config: p.containerConfig(name), SandboxConfig: p.sandboxConfig()}
}

// StopPod stops the container within the grace (seconds) and the sandbox, and
// removes both.
func (c *CRI) StopPod(ctx context.Context, p *BarePod, grace int64) error {
	if p.Container != "" {
		_, err := c.Runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: p.Container, Timeout: grace})
		if err != nil {
			return fmt.Errorf("stop container of pod %s: %w", p.Name, err)
		}
	}
	return c.RemoveSandbox(ctx, p.Sandbox)
}

// RemoveSandbox stops and removes a sandbox with its containers.
func (c *CRI) RemoveSandbox(ctx context.Context, id string) error {
	if _, err := c.Runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("stop sandbox %s: %w", id, err)
	}
	if _, err := c.Runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("remove sandbox %s: %w", id, err)
	}
	return nil
}

func (p *BarePod) labels() map[string]string {
	return map[string]string{
		"io.kubernetes.pod.name":      p.Name,
		"io.kubernetes.pod.namespace": p.Namespace,
		podUIDLabel:                   p.UID,
	}
}

func (p *BarePod) sandboxConfig() *cri.PodSandboxConfig {
	namespaces := &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER}
	if p.HostNetwork {
		namespaces.Network = cri.NamespaceMode_NODE
	}
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: p.UID},
		Labels:       p.labels(),
		LogDirectory: p.LogDir,
		Hostname:     p.Name,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    p.CgroupParent,
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: namespaces},
		},
	}
}

func (p *BarePod) containerConfig(name string) *cri.ContainerConfig {
	image, command := p.Image, p.Command
	if image == "" {
		image = BusyboxImage
	}
	if command == nil {
		// A first process has no default handlers: sleep itself would ignore TERM.
		command = []string{"sh", "-c", "trap exit TERM; sleep 86400 & wait"}
	}
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name},
		Image:    &cri.ImageSpec{Image: image},
		Command:  command,
		Labels:   p.labels(),
		LogPath:  name + ".log",
		Linux: &cri.LinuxContainerConfig{
			SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: p.sandboxConfig().Linux.SecurityContext.NamespaceOptions,
			},
		},
	}
}
