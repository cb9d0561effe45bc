package cri

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Images are those that the runtime has, in no order, with all their names:
// digests before tags.
func (c *Client) Images(ctx context.Context) ([]v1.ContainerImage, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	r, err := c.image.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images of the runtime: %w", err)
	}
	out := make([]v1.ContainerImage, 0, len(r.Images))
	for _, image := range r.Images {
		out = append(out, v1.ContainerImage{Names: slices.Concat(image.RepoDigests, image.RepoTags), SizeBytes: int64(image.Size)})
	}
	return out, nil
}

// SetPodCIDR tells the runtime's network which addresses pods get, separated by
// commas. A runtime without a use for it takes it all the same.
func (c *Client) SetPodCIDR(ctx context.Context, cidr string) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	_, err := c.runtime.UpdateRuntimeConfig(ctx, &runtimeapi.UpdateRuntimeConfigRequest{
		RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: cidr}},
	})
	if err != nil {
		return fmt.Errorf("tell the runtime podCIDR %s: %w", cidr, err)
	}
	return nil
}
