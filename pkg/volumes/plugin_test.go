package volumes

import (
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/metrics/metricstest"
)

// Volumes that are made ready and taken away are counted by their kind, those that
// fail too.
func TestVolumesAreCounted(t *testing.T) {
	v := node(t)
	series := metrics.New(metrics.Build{})
	v.Metrics = series.Storage
	good := newPod(disk("one"), disk("two"))
	mustMount(t, v, good)
	if err := v.Unmount(t.Context(), good.UID); err != nil {
		t.Fatal(err)
	}
	missing := v1.Volume{Name: "three", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "missing"}}}}
	foreign := v1.Volume{Name: "four", VolumeSource: v1.VolumeSource{ScaleIO: &v1.ScaleIOVolumeSource{}}}
	bad := newPod(missing, foreign)
	if err := v.Prepare(bad); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Mount(t.Context(), bad); err == nil {
		t.Error("mounted what is not there")
	}
	got := metricstest.Of(series.Handler())
	for labels, want := range map[string]float64{
		`operation_name="volume_mount",status="success",volume_plugin="kubernetes.io/empty-dir"`:      2,
		`operation_name="volume_unmount",status="success",volume_plugin="kubernetes.io/empty-dir"`:    2,
		`operation_name="volume_mount",status="fail-unknown",volume_plugin="kubernetes.io/configmap"`: 1,
		`operation_name="volume_mount",status="fail-unknown",volume_plugin="N/A"`:                     1,
	} {
		if name := `storage_operation_duration_seconds_count{migrated="false",` + labels + `}`; got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

// Every kind that there is has a name to be counted by.
func TestKindsHaveNames(t *testing.T) {
	for kind := range node(t).kinds {
		if pluginOf(kind) == "N/A" {
			t.Errorf("%s has no name in plugins", kind)
		}
	}
}
