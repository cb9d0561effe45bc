package cri

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/metrics/metricstest"
)

// Every call is counted by its name, and what becomes of images.
func TestCallsAreCounted(t *testing.T) {
	f := &fake{version: "v2.1.0", images: map[string]*runtimeapi.Image{"example.com/here:1": {Id: "id"}}, fail: map[string]error{}}
	o := serve(t, f).opts
	series := metrics.New(metrics.Build{})
	o.Metrics = series.Runtime
	c, err := Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	if _, err := c.Probe(ctx); err != nil {
		t.Fatal(err)
	}
	p := &v1.Pod{}
	p.Name, p.Namespace, p.UID = "web", "default", "u1"
	p.Spec.Containers = []v1.Container{{Name: "app"}}
	for _, q := range []struct {
		image  string
		policy v1.PullPolicy
		well   bool
	}{
		{"example.com/here:1", v1.PullIfNotPresent, true},
		{"example.com/app:1", v1.PullNever, false},
		{"example.com/app:1", v1.PullIfNotPresent, true},
		{"example.com/app:2", v1.PullAlways, true},
	} {
		p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = q.image, q.policy
		if _, _, err := c.Pull(ctx, p, PullRequest{Container: "app", Begun: func(string) {}}); (err == nil) != q.well {
			t.Errorf("%s %s: %v", q.policy, q.image, err)
		}
	}
	f.mu.Lock()
	f.fail["RunPodSandbox"] = status.Error(codes.Unknown, "no network")
	f.mu.Unlock()
	if _, err := c.RunSandbox(ctx, p, SandboxRequest{Handler: "safe"}); err == nil {
		t.Error("the sandbox did not fail")
	}
	got := metricstest.Of(series.Handler())
	for name, want := range map[string]float64{
		`kubelet_runtime_operations_total{operation_type="version"}`:                     1,
		`kubelet_runtime_operations_total{operation_type="status"}`:                      1,
		`kubelet_runtime_operations_total{operation_type="pull_image"}`:                  2,
		`kubelet_runtime_operations_errors_total{operation_type="pull_image"}`:           0,
		`kubelet_runtime_operations_errors_total{operation_type="run_podsandbox"}`:       1,
		`kubelet_runtime_operations_duration_seconds_count{operation_type="pull_image"}`: 2,
		`kubelet_run_podsandbox_duration_seconds_count{runtime_handler="safe"}`:          1,
		`kubelet_run_podsandbox_errors_total{runtime_handler="safe"}`:                    1,
		`kubelet_image_pull_duration_seconds_count{image_size_in_bytes="0-10MB"}`:        2,

		`kubelet_image_manager_ensure_image_requests_total{present_locally="true",pull_policy="ifnotpresent",pull_required="false"}`: 1,
		`kubelet_image_manager_ensure_image_requests_total{present_locally="false",pull_policy="never",pull_required="false"}`:       1,
		`kubelet_image_manager_ensure_image_requests_total{present_locally="false",pull_policy="ifnotpresent",pull_required="true"}`: 1,
		`kubelet_image_manager_ensure_image_requests_total{present_locally="unknown",pull_policy="always",pull_required="true"}`:     1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

// Every call that there is has a name to be counted by.
func TestCallsHaveNames(t *testing.T) {
	for _, service := range []grpc.ServiceDesc{runtimeapi.RuntimeService_ServiceDesc, runtimeapi.ImageService_ServiceDesc} {
		for _, m := range service.Methods {
			if method := "/" + service.ServiceName + "/" + m.MethodName; operationOf(method) == "other" {
				t.Errorf("%s has no name", method)
			}
		}
	}
	if got := operationOf("/runtime.v2.RuntimeService/New"); got != "other" {
		t.Errorf("a call that is not known is %s", got)
	}
}
