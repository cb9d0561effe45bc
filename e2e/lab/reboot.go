package lab

import (
	"context"
	"errors"
	"fmt"
)

// Reboot does to the node what a restart of the machine would: agents, runtime
// and pods are killed and what the agents mounted is not any more; then the
// runtime starts. The kernel's boot ID stays, and so do cgroups.
func (l *Lab) Reboot(ctx context.Context) error {
	var err error
	for _, a := range l.agents {
		err = errors.Join(err, a.Kill())
	}
	err = errors.Join(err, l.Runtime.Stop(), unmountUnder(l.Path("agent")))
	if err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	return l.Runtime.Start(ctx)
}
