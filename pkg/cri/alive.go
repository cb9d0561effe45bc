package cri

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Alive are the IDs of the ready sandboxes and running containers of every
// pod, sorted. It costs two calls however many containers there are.
func (c *Client) Alive(ctx context.Context) (map[types.UID][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	running := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	cs, err := c.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{State: running}})
	if err != nil {
		return nil, failed("", "list containers", err)
	}
	ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	ss, err := c.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{State: ready}})
	if err != nil {
		return nil, failed("", "list sandboxes", err)
	}
	alive := map[types.UID][]string{}
	add := func(labels map[string]string, id string) {
		if uid := types.UID(labels[LabelPodUID]); uid != "" {
			alive[uid] = append(alive[uid], id)
		}
	}
	for _, x := range cs.Containers {
		add(x.Labels, x.Id)
	}
	for _, x := range ss.Items {
		add(x.Labels, x.Id)
	}
	for _, ids := range alive {
		slices.Sort(ids)
	}
	return alive, nil
}
