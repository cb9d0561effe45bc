package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// hooks runs lifecycle hooks (behaviour rows 1.5-1 to 1.5-6).
type hooks struct{ runtime *cri.Client }

// Run implements syncloop.Hooks.
func (h hooks) Run(ctx context.Context, p *v1.Pod, id string, hook *v1.LifecycleHandler) error {
	switch {
	case hook.Exec != nil:
		code, out, err := h.runtime.Exec(ctx, id, hook.Exec.Command)
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("hook ended with exit code %d: %.512s", code, out)
		}
		return nil
	case hook.Sleep != nil:
		t := time.NewTimer(time.Duration(hook.Sleep.Seconds) * time.Second)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return errors.New("container terminated before sleep hook finished")
		case <-t.C:
			return nil
		}
	}
	return errors.New("only exec and sleep hooks are built yet")
}
