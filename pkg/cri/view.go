package cri

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Found is a pod that the runtime knows, whoever asked for it.
type Found struct {
	Name, Namespace string
	UID             types.UID
	// Annotations are the newest sandbox's: the pod's at that time.
	Annotations map[string]string
	View        pod.View
	// Grace is how long the pod wished to be given to end, negative when its
	// containers don't say.
	Grace time.Duration
	// PreStop are the preStop hooks by container, for a pod whose spec nobody
	// has any more (behaviour row 1.5-18).
	PreStop map[string]*v1.LifecycleHandler
}

// statusCalls is how many status calls one reader has in flight. They cost
// the runtime little, and one after another would take a second for a full
// node.
const statusCalls = 8

// List reads every pod that carries a pod UID label.
func (c *Client) List(ctx context.Context) (map[types.UID]Found, error) {
	return c.read(ctx, "")
}

// View reads one pod. A pod that the runtime does not know has an empty view.
func (c *Client) View(ctx context.Context, uid types.UID) (pod.View, error) {
	found, err := c.read(ctx, uid)
	return found[uid].View, err
}

// read reads the pod uid, or all for "".
func (c *Client) read(ctx context.Context, uid types.UID) (map[types.UID]Found, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	var selector map[string]string
	if uid != "" {
		selector = map[string]string{LabelPodUID: string(uid)}
	}
	// Containers first: one that is listed has its sandbox in the later list,
	// so no pod shows a container without the sandbox it runs in.
	cs, err := c.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: selector}})
	if err != nil {
		return nil, failed("", "list containers", err)
	}
	ss, err := c.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: selector}})
	if err != nil {
		return nil, failed("", "list sandboxes", err)
	}
	sandboxes := slices.DeleteFunc(ss.Items, func(s *runtimeapi.PodSandbox) bool { return s.Labels[LabelPodUID] == "" })
	conts := slices.DeleteFunc(cs.Containers, func(k *runtimeapi.Container) bool { return k.Labels[LabelPodUID] == "" })
	found := map[types.UID]Found{}
	if err := c.addSandboxes(ctx, sandboxes, found); err != nil {
		return nil, err
	}
	if err := c.addContainers(ctx, conts, found); err != nil {
		return nil, err
	}
	return found, nil
}

// addSandboxes enters sandboxes, newest first; what has gone since is left out.
func (c *Client) addSandboxes(ctx context.Context, listed []*runtimeapi.PodSandbox, found map[types.UID]Found) error {
	slices.SortFunc(listed, func(a, b *runtimeapi.PodSandbox) int {
		return cmp.Or(cmp.Compare(b.CreatedAt, a.CreatedAt), cmp.Compare(b.GetMetadata().GetAttempt(), a.GetMetadata().GetAttempt()), cmp.Compare(a.Id, b.Id))
	})
	statuses := make([]*runtimeapi.PodSandboxStatus, len(listed))
	err := each(ctx, len(listed), func(ctx context.Context, i int) error {
		r, err := c.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: listed[i].Id})
		if err != nil && !gone(err) {
			return failed("", "read status of sandbox "+listed[i].Id, err)
		}
		statuses[i] = r.GetStatus()
		return nil
	})
	if err != nil {
		return err
	}
	for i, s := range statuses {
		if s == nil {
			continue
		}
		f := entry(found, listed[i].Labels)
		if len(f.View.Sandboxes) == 0 {
			f.Annotations = s.Annotations
		}
		f.View.Sandboxes = append(f.View.Sandboxes, sandboxOf(s))
		found[f.UID] = f
	}
	return nil
}

// addContainers enters containers, newest first; what has gone since is left
// out.
func (c *Client) addContainers(ctx context.Context, listed []*runtimeapi.Container, found map[types.UID]Found) error {
	slices.SortFunc(listed, func(a, b *runtimeapi.Container) int {
		return cmp.Or(cmp.Compare(b.CreatedAt, a.CreatedAt), cmp.Compare(b.GetMetadata().GetAttempt(), a.GetMetadata().GetAttempt()), cmp.Compare(a.Id, b.Id))
	})
	conts := make([]*pod.Container, len(listed))
	err := each(ctx, len(listed), func(ctx context.Context, i int) error {
		s, err := c.containerStatus(ctx, listed[i].Id)
		if err != nil || s == nil {
			return err
		}
		conts[i] = c.containerOf(s, listed[i].PodSandboxId)
		return nil
	})
	if err != nil {
		return err
	}
	for i, k := range conts {
		if k == nil {
			continue
		}
		f := entry(found, listed[i].Labels)
		f.View.Containers = append(f.View.Containers, *k)
		f.Grace = max(f.Grace, graceOf(listed[i].Annotations))
		if _, newer := f.PreStop[k.Name]; !newer {
			f.PreStop[k.Name] = preStopOf(listed[i].Annotations)
		}
		found[f.UID] = f
	}
	return nil
}

// entry is the pod that the labels name, new if it was not found before.
func entry(found map[types.UID]Found, labels map[string]string) Found {
	uid := types.UID(labels[LabelPodUID])
	if f, ok := found[uid]; ok {
		return f
	}
	return Found{UID: uid, Name: labels[LabelPodName], Namespace: labels[LabelPodNamespace], Grace: -1, PreStop: map[string]*v1.LifecycleHandler{}}
}

// each calls do for 0 to n-1, statusCalls at a time, until one fails.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(statusCalls)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

// containerStatus is nil without an error when the runtime has no such
// container.
func (c *Client) containerStatus(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	r, err := c.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil && !gone(err) {
		return nil, failed("", "read status of container "+id, err)
	}
	return r.GetStatus(), nil
}

func sandboxOf(s *runtimeapi.PodSandboxStatus) pod.Sandbox {
	out := pod.Sandbox{
		ID:          s.Id,
		Attempt:     s.GetMetadata().GetAttempt(),
		Ready:       s.State == runtimeapi.PodSandboxState_SANDBOX_READY,
		HostNetwork: s.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE,
		CreatedAt:   nanos(s.CreatedAt),
	}
	if ip := s.GetNetwork().GetIp(); ip != "" {
		out.IPs = append(out.IPs, ip)
	}
	for _, more := range s.GetNetwork().GetAdditionalIps() {
		out.IPs = append(out.IPs, more.Ip)
	}
	return out
}

func (c *Client) containerOf(s *runtimeapi.ContainerStatus, sandboxID string) *pod.Container {
	out := &pod.Container{
		ID:         s.Id,
		Name:       s.GetMetadata().GetName(),
		SandboxID:  sandboxID,
		Attempt:    s.GetMetadata().GetAttempt(),
		State:      stateOf(s.State),
		Image:      cmp.Or(s.GetImage().GetUserSpecifiedImage(), s.GetImage().GetImage()),
		ImageRef:   s.ImageRef,
		Hash:       s.Annotations[annotationHash],
		CreatedAt:  nanos(s.CreatedAt),
		StartedAt:  nanos(s.StartedAt),
		FinishedAt: nanos(s.FinishedAt),
		ExitCode:   s.ExitCode,
		Reason:     s.Reason,
		Message:    s.Message,
		Has:        resourcesOf(s.GetResources().GetLinux()),
	}
	if u := s.GetUser().GetLinux(); u != nil {
		out.User = &v1.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}
	}
	if out.State == pod.Exited {
		out.Message = joinMessages(s.Message, c.terminationMessage(s))
	}
	return out
}

func stateOf(s runtimeapi.ContainerState) pod.State {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return pod.Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return pod.Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return pod.Exited
	}
	return pod.Unknown
}

// nanos is CRI's time; it says 0 for never.
func nanos(n int64) time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// preStopOf reads a container's hook from its annotations, nil when there is
// none that can be read.
func preStopOf(annotations map[string]string) *v1.LifecycleHandler {
	text := annotations[annotationPreStop]
	if text == "" {
		return nil
	}
	hook := &v1.LifecycleHandler{}
	if err := json.Unmarshal([]byte(text), hook); err != nil {
		slog.Warn("preStop hook in an annotation is not JSON: it will not run", "annotation", annotationPreStop, "error", err)
		return nil
	}
	return hook
}

// graceOf reads the pod's grace from a container's annotations, that of its
// deletion first.
func graceOf(annotations map[string]string) time.Duration {
	for _, key := range []string{annotationDeletionGrace, annotationGrace} {
		if s, err := strconv.ParseInt(annotations[key], 10, 64); err == nil && s >= 0 {
			return time.Duration(s) * time.Second
		}
	}
	return -1
}
