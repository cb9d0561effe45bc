package cri

import (
	"context"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Exec runs a command in a running instance and returns its exit code and what
// it printed. It takes as long as ctx allows.
func (c *Client) Exec(ctx context.Context, id string, command []string) (code int32, output string, err error) {
	req := &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command}
	if end, ok := ctx.Deadline(); ok {
		req.Timeout = int64(max(time.Until(end)/time.Second, 1))
	}
	r, err := c.runtime.ExecSync(ctx, req)
	if err != nil {
		return 0, "", failed("", "exec in container "+id, err)
	}
	return r.ExitCode, string(r.Stdout) + string(r.Stderr), nil
}
