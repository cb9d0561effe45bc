package cri

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrNoEvents says that the runtime has no stream of events (containerd 1.6).
var ErrNoEvents = errors.New("the runtime has no stream of container events")

// Events calls changed for every pod of which something ended or vanished,
// until the stream ends or ctx does. The UID is empty when the runtime does
// not say whose it was, and once at the beginning, when nobody knows what was
// missed: then everything is to be read again.
//
// changed must not block: the runtime may stall all its clients when one of
// them stops reading.
func (c *Client) Events(ctx context.Context, changed func(uid types.UID)) error {
	if len(c.opts.Relay) > 0 {
		return relayed(ctx, c.opts.Relay, changed)
	}
	return c.stream(ctx, changed)
}

// stream reads the events in this process.
func (c *Client) stream(ctx context.Context, changed func(uid types.UID)) error {
	stream, err := c.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return streamEnd(err)
	}
	changed("")
	for {
		event, err := stream.Recv()
		if err != nil {
			return streamEnd(err)
		}
		switch event.ContainerEventType {
		case runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT:
			changed(eventPod(event))
		}
	}
}

func streamEnd(err error) error {
	if status.Code(err) == codes.Unimplemented {
		return ErrNoEvents
	}
	return fmt.Errorf("read container events: %w", err)
}

// eventPod is the pod an event is about; that of a removed sandbox carries
// nothing but an ID.
func eventPod(e *runtimeapi.ContainerEventResponse) types.UID {
	if uid := e.GetPodSandboxStatus().GetMetadata().GetUid(); uid != "" {
		return types.UID(uid)
	}
	for _, s := range e.ContainersStatuses {
		if uid := s.Labels[LabelPodUID]; uid != "" {
			return types.UID(uid)
		}
	}
	return ""
}
