package cri

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Exec runs a command in a running instance and returns its exit code and what
// it printed. The runtime ends the command limit after it began, which may be
// long after it was asked for; a limit of 0 is what ctx's deadline leaves. A
// command that is ended by either is context.DeadlineExceeded.
func (c *Client) Exec(ctx context.Context, id string, command []string, limit time.Duration) (exit int32, output string, err error) {
	req := &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command}
	if end, ok := ctx.Deadline(); ok && limit == 0 {
		limit = max(time.Until(end), 1) // 0 would be none
	}
	req.Timeout = int64(math.Ceil(limit.Seconds()))
	r, err := c.runtime.ExecSync(ctx, req)
	if code(err) == codes.DeadlineExceeded {
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	if err != nil {
		return 0, "", failed("", "exec in container "+id, err)
	}
	return r.ExitCode, string(r.Stdout) + string(r.Stderr), nil
}
