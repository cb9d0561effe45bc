package cri

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// taskService is the part of containerd's own API that the fake has.
var taskService = grpc.ServiceDesc{
	ServiceName: "containerd.services.tasks.v1.Tasks",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Delete", Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		id := &wrapperspb.StringValue{}
		if err := decode(id); err != nil {
			return nil, err
		}
		return &emptypb.Empty{}, srv.(*fake).deleteTask(ctx, id.Value)
	}}},
}

func (f *fake) deleteTask(ctx context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ns := metadata.ValueFromIncomingContext(ctx, "containerd-namespace"); !slices.Equal(ns, []string{"k8s.io"}) {
		return status.Errorf(codes.NotFound, "task %s not found in namespace %v", id, ns)
	}
	if err := f.fail["DeleteTask"]; err != nil {
		return err
	}
	f.tasks = slices.DeleteFunc(f.tasks, func(t string) bool { return t == id })
	return nil
}

// refusal is containerd's answer to a remove while it has lost tasks.
func (f *fake) refusal() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.tasks) == 0 {
		return nil
	}
	return status.Errorf(codes.FailedPrecondition, "failed to delete containerd container %q: cannot delete running task %s: failed precondition", f.tasks[0], f.tasks[0])
}

func (f *fake) RemoveContainer(context.Context, *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	return &runtimeapi.RemoveContainerResponse{}, errors.Join(f.failure("RemoveContainer"), f.refusal())
}

func (f *fake) RemovePodSandbox(context.Context, *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	return &runtimeapi.RemovePodSandboxResponse{}, f.refusal()
}

func TestRemoveDeletesLostTasks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tasks  []string
		delete error // what the delete of a task ends with
		ok     bool
	}{
		{"none", nil, nil, true},
		{"one", []string{"a1"}, nil, true},
		{"several", []string{"a1", "b2", "c3"}, nil, true},
		{"not deleted", []string{"a1"}, status.Error(codes.FailedPrecondition, "cannot delete a running process"), false},
		{"gone and still in the way", []string{"a1"}, status.Error(codes.NotFound, "not found"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for what, remove := range map[string]func(*Client) error{
				"sandbox":   func(c *Client) error { return c.RemoveSandbox(t.Context(), "s") },
				"container": func(c *Client) error { return c.Remove(t.Context(), "a1") },
			} {
				f := &fake{tasks: slices.Clone(tt.tasks), fail: map[string]error{"DeleteTask": tt.delete},
					containers: []*runtimeapi.ContainerStatus{{Id: "a1", Metadata: &runtimeapi.ContainerMetadata{Name: "main"}}}}
				err := remove(serve(t, f))
				if (err == nil) != tt.ok || tt.ok && len(f.tasks) > 0 {
					t.Error(what, fmt.Sprint(f.tasks), err)
				}
			}
		})
	}
}
