package cri

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/metrics"
)

// operations are the calls of CRI by the names that the kubelet counts them by.
var operations = map[string]string{
	"Version": "version", "Status": "status", "RuntimeConfig": "runtime_config", "UpdateRuntimeConfig": "update_runtime_config",
	"RunPodSandbox": "run_podsandbox", "StopPodSandbox": "stop_podsandbox", "RemovePodSandbox": "remove_podsandbox",
	"PodSandboxStatus": "podsandbox_status", "ListPodSandbox": "list_podsandbox", "PodSandboxStats": "podsandbox_stats",
	"ListPodSandboxStats": "list_podsandbox_stats", "UpdatePodSandboxResources": "update_podsandbox_resources",
	"CreateContainer": "create_container", "StartContainer": "start_container", "StopContainer": "stop_container",
	"RemoveContainer": "remove_container", "ListContainers": "list_containers", "ContainerStatus": "container_status",
	"UpdateContainerResources": "update_container", "ReopenContainerLog": "reopen_container_log",
	"ContainerStats": "container_stats", "ListContainerStats": "list_container_stats", "CheckpointContainer": "checkpoint_container",
	"ListMetricDescriptors": "list_metric_descriptors", "ListPodSandboxMetrics": "list_pod_sandbox_metrics",
	"ExecSync": "exec_sync", "Exec": "exec", "Attach": "attach", "PortForward": "port_forward",
	"ListImages": "list_images", "ImageStatus": "image_status", "PullImage": "pull_image", "RemoveImage": "remove_image",
	"ImageFsInfo": "image_fs_info",
}

// observe tells the metrics of every call.
func observe(to *metrics.Runtime) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		began := time.Now()
		err := invoke(ctx, method, req, reply, conn, opts...)
		took := time.Since(began)
		to.Call(operationOf(method), took, err != nil)
		if r, ok := req.(*runtimeapi.RunPodSandboxRequest); ok {
			to.Sandbox(r.RuntimeHandler, took, err != nil)
		}
		return err
	}
}

// operationOf is the name of the gRPC method /runtime.v1.Service/Call.
func operationOf(method string) string {
	call := method[strings.LastIndexByte(method, '/')+1:]
	if name, ok := operations[call]; ok {
		return name
	}
	return "other"
}
