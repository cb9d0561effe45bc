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
// it printed. It takes as long as ctx allows; a command that is ended by ctx's
// deadline is context.DeadlineExceeded.
func (c *Client) Exec(ctx context.Context, id string, command []string) (exit int32, output string, err error) {
	req := &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command}
	if end, ok := ctx.Deadline(); ok {
		req.Timeout = max(int64(math.Ceil(time.Until(end).Seconds())), 1) // 0 would be no limit
	}
	r, err := c.runtime.ExecSync(ctx, req)
	if code(err) == codes.DeadlineExceeded {
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	if err != nil {
		return 0, "", failed("", "exec in container "+id, err)
	}
	return r.ExitCode, string(r.Stdout) + string(r.Stderr), nil
}
