package cri

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrNoCheckpoints says that the runtime cannot write checkpoints: it is too
// old, or lacks a program for it (criu).
var ErrNoCheckpoints = errors.New("the runtime cannot checkpoint containers")

// Checkpoint has the runtime write the state of running instance id into an
// archive (CRI CheckpointContainer, behaviour row 1.20-14). Zero timeout means
// the runtime's own; others count in whole seconds.
func (c *Client) Checkpoint(ctx context.Context, id, archive string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, max(c.opts.RequestTimeout, timeout))
	defer cancel()
	_, err := c.runtime.CheckpointContainer(ctx, &runtimeapi.CheckpointContainerRequest{
		ContainerId: id, Location: archive, Timeout: int64(timeout / time.Second)})
	if code(err) == codes.Unimplemented {
		return fmt.Errorf("checkpoint container %s: %w: %s", id, ErrNoCheckpoints, message(err))
	}
	if err != nil {
		return failed("", "checkpoint container "+id, err)
	}
	return nil
}
