package cri

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/env"
)

// imageVolumes are those that the container mounts, each as a container that
// would be made from it: they are pulled alike (behaviour row 1.10-15).
func imageVolumes(p *v1.Pod, k *v1.Container) []*v1.Container {
	var out []*v1.Container
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.Image == nil || v.Image.Reference == "" {
			continue
		}
		for _, m := range k.VolumeMounts {
			if m.Name == v.Name {
				out = append(out, &v1.Container{Name: k.Name, Image: v.Image.Reference, ImagePullPolicy: v.Image.PullPolicy})
				break
			}
		}
	}
	return out
}

// imageMount is the mount of an image (behaviour row 1.12-13), nil when the
// volume is of another kind. The image is there: the container's pull brought
// it.
func (c *Client) imageMount(ctx context.Context, p *v1.Pod, vm v1.VolumeMount, values map[string]string) (*runtimeapi.Mount, error) {
	v := volumeNamed(p, vm.Name)
	if v.Image == nil {
		return nil, nil
	}
	if v.Image.Reference == "" {
		return nil, errors.New("the image volume has no reference")
	}
	if c.noImages.Load() {
		return nil, errors.New("image volumes need containerd 2.1 or newer")
	}
	sub := vm.SubPath
	if vm.SubPathExpr != "" {
		var err error
		if sub, err = env.ExpandStrictly(vm.SubPathExpr, values); err != nil {
			return nil, fmt.Errorf("subPathExpr %w", err)
		}
	}
	name, _, err := imageName(v.Image.Reference)
	if err != nil {
		return nil, err
	}
	image, err := c.imageStatus(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", name, err)
	}
	if image == nil {
		return nil, fmt.Errorf("image %s was removed since it was pulled", name)
	}
	return &runtimeapi.Mount{
		ContainerPath:  absolute(vm.MountPath),
		Image:          &runtimeapi.ImageSpec{Image: image.Id, UserSpecifiedImage: v.Image.Reference},
		ImageSubPath:   sub,
		Readonly:       true,
		SelinuxRelabel: c.machine.SELinux,
	}, nil
}
