package cri

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Alive are the IDs of the ready sandboxes and running containers of every
// pod that has a sandbox, sorted; none for one whose sandboxes are all down. It
// costs two calls however many containers there are.
func (c *Client) Alive(ctx context.Context) (map[types.UID][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	running := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	cs, err := c.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{State: running}})
	if err != nil {
		return nil, failed("", "list containers", err)
	}
	ss, err := c.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, failed("", "list sandboxes", err)
	}
	alive := map[types.UID][]string{}
	add := func(labels map[string]string, ids ...string) {
		if uid := types.UID(labels[LabelPodUID]); uid != "" {
			alive[uid] = append(alive[uid], ids...)
		}
	}
	for _, x := range cs.Containers {
		add(x.Labels, x.Id)
	}
	for _, x := range ss.Items {
		if x.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			add(x.Labels, x.Id)
		} else {
			add(x.Labels)
		}
	}
	for _, ids := range alive {
		slices.Sort(ids)
	}
	return alive, nil
}
