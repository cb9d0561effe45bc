package cri

import (
	"context"
	"encoding/json"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// SandboxImage is the image that a sandbox was made from, as the runtime tells
// it to who asks for more than CRI has a field for; both containerd and CRI-O do.
func (c *Client) SandboxImage(ctx context.Context, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	r, err := c.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return "", failed("", "ask for the image of sandbox "+id, err)
	}
	var info struct {
		Image string `json:"image"`
	}
	if err := json.Unmarshal([]byte(r.Info["info"]), &info); err != nil || info.Image == "" {
		return "", fmt.Errorf("image of sandbox %s: the runtime doesn't tell it", id)
	}
	return info.Image, nil
}
