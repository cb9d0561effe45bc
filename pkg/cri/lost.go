package cri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// lostTask is how containerd refuses to remove a container whose task it lost.
//
// When a client dies, or gives up, just as containerd has made the task of the
// container that the client starts and asks for the task's process id, the
// start fails and the task stays: CRI shows the container as ended, and no CRI
// call reaches the task any more, yet nothing can be removed while there is
// one. Only a restart of containerd would end that (its issue 11037).
var lostTask = regexp.MustCompile(`cannot delete running task ([0-9a-f]+)`)

// remove does a call that removes a container or a sandbox. If a lost task is
// in its way, that is deleted and the call done again; a sandbox may hold
// several, and containerd names one at a time.
func (c *Client) remove(ctx context.Context, call func() error) error {
	err := call()
	for last := ""; err != nil; {
		lost := lostTask.FindStringSubmatch(message(err))
		if lost == nil || lost[1] == last {
			break
		}
		last = lost[1]
		if derr := c.deleteTask(ctx, last); derr != nil {
			return errors.Join(err, derr)
		}
		slog.InfoContext(ctx, "deleted the task of an ended container, which containerd had lost", "container", last)
		err = call()
	}
	return err
}

// deleteTask asks containerd's own API, which is on the CRI socket too, to
// delete a task. It ends a process that waits to be started, and refuses if
// the task runs. A DeleteTaskRequest has the container's id where a
// StringValue has its value, and what the answer holds is of no use here.
func (c *Client) deleteTask(ctx context.Context, id string) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", "k8s.io")
	err := c.conns[0].Invoke(ctx, "/containerd.services.tasks.v1.Tasks/Delete", wrapperspb.String(id), &emptypb.Empty{})
	if err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("delete task %s, which containerd lost: %w", id, err)
	}
	return nil
}
