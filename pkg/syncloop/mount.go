package syncloop

import (
	"context"
	"errors"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// mount makes the pod's volumes ready. What was mounted before is what containers
// get for as long as it cannot be brought up to date.
func (a *actor) mount(ctx context.Context, spec *v1.Pod, done *pod.Done) error {
	mounts, renew, err := a.loop.Volumes.Mount(ctx, spec)
	done.Told = eventsOf(err)
	if err != nil && mounts == nil {
		return err
	}
	done.Usable, done.Renew = true, renew
	a.mu.Lock()
	a.mounts = mounts
	a.mu.Unlock()
	return err
}

// eventsOf is what people are told of the error beside that the step failed: some
// errors have a reason of their own (behaviour row 1.23-5).
func eventsOf(err error) []pod.Note {
	var told interface {
		error
		EventReason() string
	}
	if !errors.As(err, &told) {
		return nil
	}
	return []pod.Note{{Warning: true, Reason: told.EventReason(), Message: told.Error()}}
}
