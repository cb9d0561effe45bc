package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/metrics/metricstest"
)

// series is what the node's own series show at a path, through the apiserver.
func (j *joined) series(path string) map[string]float64 {
	j.t.Helper()
	return metricstest.Parse(j.proxied(path))
}

// TestMetrics: the agent's own series move with what it does: a pod starts, is
// probed and deleted, and another has no image.
func TestMetrics(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	before := j.series("/metrics")
	const meta = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":%q},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"main","image":%q,"command":["sleep","1000"]%s}]}}`
	j.create(fmt.Sprintf(meta, "well", lab.BusyboxImage, `,"readinessProbe":{"exec":{"command":["true"]},"periodSeconds":1}`))
	j.create(fmt.Sprintf(meta, "bad", "127.0.0.1:1/none:1", ""))
	j.waitReady("well")
	j.waitPod("bad", "has no image", func(p *v1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			strings.Contains(p.Status.ContainerStatuses[0].State.Waiting.Reason, "ImagePull")
	})
	for name, want := range map[string]float64{
		fmt.Sprintf("kubelet_node_name{node=%q}", j.Node): 1, "kubelet_running_pods": 2, `kubelet_running_containers{container_state="running"}`: 1,
		`kubelet_active_pods{static=""}`: 2, `volume_manager_total_volumes{plugin_name="kubernetes.io/projected",state="actual_state_of_world"}`: 2,
	} {
		if got := j.series("/metrics")[name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	probes := fmt.Sprintf(`{container="main",namespace=%q,pod="well"`, j.ns)
	j.eventually("the probe is counted", 30*time.Second, func() error {
		for name, n := range j.series("/metrics/probes") {
			if strings.HasPrefix(name, "prober_probe_total"+probes) && strings.Contains(name, `result="successful"`) && n >= 2 {
				return nil
			}
		}
		return fmt.Errorf("%v", j.series("/metrics/probes"))
	})
	j.kubectl("delete", "pod", "well", "--wait=false")
	j.waitGone("well")
	j.eventually("all has moved", 30*time.Second, func() error { return moved(before, j.series("/metrics")) })
	for name := range j.series("/metrics/probes") {
		if strings.Contains(name, `pod="well"`) {
			t.Errorf("the pod is gone, and there is %s", name)
		}
	}
	if got := j.series("/metrics/slis"); got[`kubernetes_healthcheck{name="ping",type="healthz"}`] != 0 {
		t.Errorf("health before anybody asked: %v", got)
	}
	j.proxied("/healthz")
	got := j.series("/metrics/slis")
	for _, check := range []string{"ping", "syncloop", "log"} {
		if got[fmt.Sprintf(`kubernetes_healthcheck{name=%q,type="healthz"}`, check)] != 1 {
			t.Errorf("check %s: %v", check, got)
		}
	}
}

// moved says which series have not moved as they should when one pod started and
// was deleted, and one has no image.
func moved(before, after map[string]float64) error {
	least := map[string]float64{
		"kubelet_pod_start_sli_duration_seconds_count": 1, "kubelet_pod_start_total_duration_seconds_count": 1, "kubelet_pod_start_duration_seconds_count": 1,
		`kubelet_pod_worker_duration_seconds_count{operation_type="create"}`: 2, `kubelet_pod_worker_duration_seconds_count{operation_type="kill"}`: 1,
		"kubelet_started_pods_total": 2, `kubelet_started_containers_total{container_type="container"}`: 2,
		`kubelet_started_containers_errors_total{code="ErrImagePull",container_type="container"}`:                                                           1,
		`nodeagent_pod_step_errors_total{step="pull"}`:                                                                                                      1,
		`kubelet_runtime_operations_errors_total{operation_type="pull_image"}`:                                                                              1,
		`kubelet_runtime_operations_total{operation_type="exec_sync"}`:                                                                                      2,
		`kubelet_run_podsandbox_duration_seconds_count{runtime_handler=""}`:                                                                                 2,
		"kubelet_pod_status_sync_duration_seconds_count":                                                                                                    2,
		`nodeagent_pod_writes_total{result="ok",verb="patch"}`:                                                                                              2,
		`nodeagent_pod_writes_total{result="ok",verb="delete"}`:                                                                                             1,
		`storage_operation_duration_seconds_count{migrated="false",operation_name="volume_mount",status="success",volume_plugin="kubernetes.io/projected"}`: 2,
		`kubelet_cgroup_manager_duration_seconds_count{operation_type="create"}`:                                                                            2,
		`kubelet_cgroup_manager_duration_seconds_count{operation_type="destroy"}`:                                                                           1,
		`kubelet_http_requests_total{long_running="false",method="GET",path="metrics",server_type="readwrite"}`:                                             1,
	}
	for _, step := range []string{"admit", "prepare", "volumes", "sandbox", "create", "start", "ready"} {
		least[fmt.Sprintf(`nodeagent_pod_start_step_seconds_count{step=%q}`, step)] = 1
	}
	var still []string
	for name, n := range least {
		if after[name]-before[name] < n {
			still = append(still, fmt.Sprintf("%s by %v of %v", name, after[name]-before[name], n))
		}
	}
	requests := 0.0
	for name, n := range after {
		if strings.HasPrefix(name, "rest_client_requests_total{") {
			requests += n
		}
	}
	if requests == 0 {
		still = append(still, "rest_client_requests_total")
	}
	if ttl := after["kubelet_certificate_manager_client_ttl_seconds"]; ttl <= 0 {
		still = append(still, fmt.Sprintf("kubelet_certificate_manager_client_ttl_seconds is %v", ttl))
	}
	if len(still) > 0 {
		return fmt.Errorf("moved too little: %s", strings.Join(still, "; "))
	}
	return nil
}
