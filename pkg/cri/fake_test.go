package cri

import (
	"context"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fake is a runtime of a few maps behind a real socket.
type fake struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer

	mu         sync.Mutex
	version    string // of containerd; "": not CRI
	handlers   []*runtimeapi.RuntimeHandler
	features   *runtimeapi.RuntimeFeatures
	conditions []*runtimeapi.RuntimeCondition
	sandboxes  []*runtimeapi.PodSandboxStatus
	containers []*runtimeapi.ContainerStatus
	of         map[string]string // sandbox by container
	images     map[string]*runtimeapi.Image
	password   string // that a pull must know
	fail       map[string]error
	events     chan *runtimeapi.ContainerEventResponse
	exec       *runtimeapi.ExecSyncRequest // the newest
	podCIDR    string
	tasks      []string // that containerd lost, in its own order
}

// failure is the error that a call is to end with.
func (f *fake) failure(call string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fail[call]
}

// serve runs the fake and dials it. Everything is below one folder.
func serve(t *testing.T, f *fake) *Client {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, f)
	runtimeapi.RegisterImageServiceServer(server, f)
	server.RegisterService(&taskService, f)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	c := dialed(t, dir, "unix://"+socket)
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c
}

func dialed(t *testing.T, dir, endpoint string) *Client {
	t.Helper()
	t.Setenv("HOME", dir) // no credentials of the machine's own
	c, err := Dial(Options{
		Endpoint: endpoint, LinksDir: filepath.Join(dir, "links"), RequestTimeout: 10 * time.Second,
		Pods: PodOptions{RootDir: filepath.Join(dir, "root"), LogsDir: filepath.Join(dir, "logs")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (f *fake) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	if f.version == "" {
		return nil, status.Error(codes.Unimplemented, "unknown service runtime.v1.RuntimeService")
	}
	return &runtimeapi.VersionResponse{RuntimeName: "containerd", RuntimeVersion: f.version, RuntimeApiVersion: "v1"}, nil
}

func (f *fake) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: f.conditions}, RuntimeHandlers: f.handlers, Features: f.features}, nil
}

func (f *fake) UpdateRuntimeConfig(_ context.Context, r *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.podCIDR = r.RuntimeConfig.NetworkConfig.PodCidr
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}

func (f *fake) ListImages(context.Context, *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &runtimeapi.ListImagesResponse{Images: slices.Collect(maps.Values(f.images))}, nil
}

func (f *fake) ListPodSandbox(_ context.Context, r *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &runtimeapi.ListPodSandboxResponse{}
	for _, s := range f.sandboxes {
		if selected(r.GetFilter().GetLabelSelector(), s.Labels) {
			out.Items = append(out.Items, &runtimeapi.PodSandbox{Id: s.Id, Metadata: s.Metadata, CreatedAt: s.CreatedAt, Labels: s.Labels})
		}
	}
	return out, f.fail["ListPodSandbox"]
}

func (f *fake) PodSandboxStatus(_ context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	if err := f.failure("PodSandboxStatus"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sandboxes {
		if s.Id == r.PodSandboxId {
			return &runtimeapi.PodSandboxStatusResponse{Status: s}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "no such sandbox")
}

func (f *fake) ListContainers(_ context.Context, r *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &runtimeapi.ListContainersResponse{}
	for _, k := range f.containers {
		if selected(r.GetFilter().GetLabelSelector(), k.Labels) {
			out.Containers = append(out.Containers, &runtimeapi.Container{
				Id: k.Id, PodSandboxId: f.of[k.Id], Metadata: k.Metadata, CreatedAt: k.CreatedAt, Labels: k.Labels, Annotations: k.Annotations,
			})
		}
	}
	return out, nil
}

func (f *fake) ContainerStatus(_ context.Context, r *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	if err := f.failure("ContainerStatus"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range f.containers {
		if k.Id == r.ContainerId {
			return &runtimeapi.ContainerStatusResponse{Status: k}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "no such container")
}

func (f *fake) RunPodSandbox(_ context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	if err := f.failure("RunPodSandbox"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sandboxes = append(f.sandboxes, &runtimeapi.PodSandboxStatus{
		Id: "new", RuntimeHandler: r.RuntimeHandler, Metadata: r.Config.Metadata, Labels: r.Config.Labels, CreatedAt: 1,
		Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "192.0.2.1"},
	})
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: "new"}, nil
}

func (f *fake) CreateContainer(context.Context, *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	return &runtimeapi.CreateContainerResponse{ContainerId: "new"}, f.failure("CreateContainer")
}

func (f *fake) StartContainer(context.Context, *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	return &runtimeapi.StartContainerResponse{}, f.failure("StartContainer")
}

func (f *fake) StopContainer(context.Context, *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	return &runtimeapi.StopContainerResponse{}, f.failure("StopContainer")
}

func (f *fake) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream runtimeapi.RuntimeService_GetContainerEventsServer) error {
	if f.events == nil {
		return status.Error(codes.Unimplemented, "method GetContainerEvents not implemented")
	}
	for e := range f.events {
		if err := stream.Send(e); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) ImageStatus(_ context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &runtimeapi.ImageStatusResponse{Image: f.images[r.Image.Image]}, f.fail["ImageStatus"]
}

func (f *fake) PullImage(_ context.Context, r *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	if err := f.failure("PullImage"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Auth.GetPassword() != f.password {
		return nil, status.Error(codes.Unknown, "denied to "+r.Auth.GetUsername())
	}
	ref := "sha256:" + r.Image.Image
	f.images[r.Image.Image] = &runtimeapi.Image{Id: ref, Size: 42}
	f.images[ref] = f.images[r.Image.Image]
	return &runtimeapi.PullImageResponse{ImageRef: ref}, nil
}

func selected(want, labels map[string]string) bool {
	for key, value := range want {
		if labels[key] != value {
			return false
		}
	}
	return true
}

// web is a pod of one container.
func web() *v1.Pod {
	p := &v1.Pod{}
	p.Name, p.Namespace, p.UID = "web", "default", "u1"
	p.Spec.Containers = []v1.Container{{Name: "main", Image: "example.com/app:1", TerminationMessagePath: "/dev/termination-log"}}
	return p
}

// ExecSync ends with 3 and says something on both streams.
func (f *fake) ExecSync(_ context.Context, r *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exec = r
	return &runtimeapi.ExecSyncResponse{ExitCode: 3, Stdout: []byte("out"), Stderr: []byte("err")}, nil
}
