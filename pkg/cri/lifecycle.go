package cri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// RunSandbox makes the pod's log folder and its sandbox.
func (c *Client) RunSandbox(ctx context.Context, p *v1.Pod, req SandboxRequest) (pod.Sandbox, error) {
	doing := fmt.Sprintf("run sandbox of pod %s/%s", p.Namespace, p.Name)
	ctx, cancel := context.WithTimeout(ctx, 2*c.opts.RequestTimeout)
	defer cancel()
	if pod.OwnUsers(p) && !c.handler(req.Handler).UserNamespaces {
		return pod.Sandbox{}, failed("", doing, noUserNamespaces(req.Handler))
	}
	cfg, err := SandboxConfig(p, req, c.machine, c.opts.Pods)
	if err != nil {
		return pod.Sandbox{}, failed("", doing, err)
	}
	if err := c.makeLogFolders(p); err != nil {
		return pod.Sandbox{}, failed("", doing, err)
	}
	if err := ctx.Err(); err != nil {
		return pod.Sandbox{}, failed("", doing, err) // not sent: nothing is uncertain
	}
	r, err := c.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: cfg, RuntimeHandler: req.Handler})
	if err != nil {
		return pod.Sandbox{}, mutated("", doing, err)
	}
	s, err := c.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: r.PodSandboxId})
	if err != nil {
		// It runs, but its addresses are not known: they must be asked for.
		e := failed("", "read status of sandbox of pod "+p.Namespace+"/"+p.Name, err)
		e.Uncertain = true
		return pod.Sandbox{}, e
	}
	return sandboxOf(s.Status), nil
}

func noUserNamespaces(handler string) error {
	if handler == "" {
		return errors.New("can't set `spec.hostUsers: false`, runtime does not support user namespaces")
	}
	return fmt.Errorf("can't set `spec.hostUsers: false`, RuntimeClass handler %q does not support user namespaces", handler)
}

// Create makes an instance of a container, of any kind, and what it mounts.
func (c *Client) Create(ctx context.Context, p *v1.Pod, req CreateRequest) (pod.Container, error) {
	doing := fmt.Sprintf("create container %s of pod %s/%s", req.Container, p.Namespace, p.Name)
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	sandbox, err := SandboxConfig(p, SandboxRequest{Users: req.Users}, c.machine, c.opts.Pods)
	if err != nil {
		return pod.Container{}, failed(ReasonConfig, doing, err)
	}
	cfg, err := c.containerConfig(ctx, p, req)
	if err != nil {
		return pod.Container{}, failed(ReasonConfig, doing, err)
	}
	if err := os.MkdirAll(filepath.Join(sandbox.LogDirectory, req.Container), 0o755); err != nil {
		return pod.Container{}, failed(ReasonConfig, doing, fmt.Errorf("make log folder: %w", err))
	}
	if err := ctx.Err(); err != nil {
		return pod.Container{}, failed(ReasonCreate, doing, err)
	}
	r, err := c.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: req.SandboxID, Config: cfg, SandboxConfig: sandbox})
	if err != nil {
		e := mutated(ReasonCreate, doing, err)
		if !e.Uncertain {
			c.dropMessageFile(p, req.Container, cfg)
		}
		return pod.Container{}, e
	}
	return pod.Container{
		ID:        r.ContainerId,
		Name:      req.Container,
		SandboxID: req.SandboxID,
		Attempt:   req.Attempt,
		State:     pod.Created,
		Image:     cfg.Image.UserSpecifiedImage,
		ImageRef:  req.ImageRef,
		Hash:      cfg.Annotations[annotationHash],
		CreatedAt: time.Now(), // the runtime's own follows with Start
	}, nil
}

// containerConfig gathers what the config needs, and makes the mounts last:
// a config that is refused leaves no files behind.
func (c *Client) containerConfig(ctx context.Context, p *v1.Pod, req CreateRequest) (*runtimeapi.ContainerConfig, error) {
	k, err := containerNamed(p, req.Container)
	if err != nil {
		return nil, err
	}
	parts := Parts{Request: req}
	if parts.User, err = c.imageUser(ctx, req.ImageRef); err != nil {
		return nil, err
	}
	if parts.TargetID, err = c.target(ctx, p, req.Container); err != nil {
		return nil, err
	}
	cfg, err := ContainerConfig(p, parts, c.machine, c.opts.Pods)
	if err != nil {
		return nil, err
	}
	cfg.Mounts, err = c.mounts(ctx, p, k, req)
	return cfg, err
}

func (c *Client) imageUser(ctx context.Context, ref string) (ImageUser, error) {
	if user, ok := c.users.Load(ref); ok {
		return user.(ImageUser), nil
	}
	r, err := c.image.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		return ImageUser{}, fmt.Errorf("read user of image %s: %w", ref, err)
	}
	return userOf(r.GetImage()), nil
}

// userOf is root when the image says nothing.
func userOf(image *runtimeapi.Image) ImageUser {
	if uid := image.GetUid(); uid != nil {
		return ImageUser{UID: uid.Value}
	}
	return ImageUser{Name: image.GetUsername()}
}

// target is the running container that an ephemeral one is aimed at, "" when
// it is aimed at none.
func (c *Client) target(ctx context.Context, p *v1.Pod, container string) (string, error) {
	name := ""
	for _, e := range p.Spec.EphemeralContainers {
		if e.Name == container {
			name = e.TargetContainerName
		}
	}
	if name == "" {
		return "", nil
	}
	r, err := c.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		LabelSelector: map[string]string{LabelPodUID: string(p.UID), LabelContainerName: name},
		State:         &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return "", fmt.Errorf("look for target container %s: %w", name, err)
	}
	if len(r.Containers) == 0 {
		return "", fmt.Errorf("targetContainerName %s: it does not run", name)
	}
	return r.Containers[0].Id, nil
}

// Start starts a created container, links its log where log shippers look
// for it, and returns it as the runtime shows it then.
func (c *Client) Start(ctx context.Context, p *v1.Pod, cont pod.Container) (pod.Container, error) {
	doing := fmt.Sprintf("start container %s of pod %s/%s", cont.Name, p.Namespace, p.Name)
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return cont, failed(ReasonRun, doing, err)
	}
	if _, err := c.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: cont.ID}); err != nil {
		return cont, mutated(ReasonRun, doing, err)
	}
	s, err := c.containerStatus(ctx, cont.ID)
	if err == nil && s == nil {
		err = failed("", doing, errors.New("it was removed while it started"))
	}
	if err != nil {
		e := failed("", doing, err)
		e.Uncertain = true // it was started; how it is now must be asked for
		return cont, e
	}
	if err := c.linkLog(p.Namespace, p.Name, cont.Name, cont.ID, s.LogPath); err != nil {
		// The link is for log shippers: the container must not fail for it.
		slog.WarnContext(ctx, "log link not made", "pod", p.Namespace+"/"+p.Name, "container", cont.Name, "error", err)
	}
	return *c.containerOf(s, cont.SandboxID), nil
}

// Stop ends a container with its stop signal, by force after grace. It
// returns when the container has ended.
func (c *Client) Stop(ctx context.Context, id string, grace time.Duration) error {
	grace = max(grace, 0)
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout+grace)
	defer cancel()
	seconds := int64((grace + time.Second - 1) / time.Second)
	_, err := c.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: seconds})
	return done("stop container "+id, err)
}

// Remove removes an ended container with its termination message, the link to
// its log and, if a later instance has logs, its logs.
func (c *Client) Remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	s, err := c.containerStatus(ctx, id)
	if err != nil || s == nil {
		return err
	}
	if err := c.dropFiles(s); err != nil {
		return failed("", "remove files of container "+id, err)
	}
	err = c.remove(ctx, func() error {
		_, err := c.runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
		return err
	})
	return done("remove container "+id, err)
}

// dropFiles comes before the runtime's removal: once the runtime has
// forgotten the container, nobody knows which files were its own.
func (c *Client) dropFiles(s *runtimeapi.ContainerStatus) error {
	ns, name, k := s.Labels[LabelPodNamespace], s.Labels[LabelPodName], s.Labels[LabelContainerName]
	if name == "" || k == "" {
		return nil // not a pod's container
	}
	err := removed(os.Remove(c.logLink(ns, name, k, s.Id)))
	if path := c.messageFile(s); path != "" {
		err = errors.Join(err, removed(os.Remove(path)))
	}
	uid := types.UID(s.Labels[LabelPodUID])
	return errors.Join(err, c.dropLog(ns, name, uid, k, s.GetMetadata().GetAttempt(), c.containerOf(s, "").NeverRan()))
}

// StopSandbox ends all that runs in the sandbox and takes its network down.
func (c *Client) StopSandbox(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	_, err := c.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	return done("stop sandbox "+id, err)
}

// RemoveSandbox removes a stopped sandbox and what the runtime still has of
// its containers.
func (c *Client) RemoveSandbox(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	err := c.remove(ctx, func() error {
		_, err := c.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
		return err
	})
	return done("remove sandbox "+id, err)
}

// done is the end of a call that ends or removes something: what is gone
// already is a success.
func done(doing string, err error) error {
	if err == nil || gone(err) {
		return nil
	}
	return mutated("", doing, err)
}
