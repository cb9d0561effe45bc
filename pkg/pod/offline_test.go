package pod

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMayStartOffline(t *testing.T) {
	owner := func(kind string, controller *bool) func(*Record) {
		return func(r *Record) {
			r.Spec.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: "o", Controller: controller}}
		}
	}
	daemon := owner("DaemonSet", new(true))
	annotated := func(value string) func(*Record) {
		return func(r *Record) { r.Spec.Annotations = map[string]string{OfflineAnnotation: value} }
	}
	volume := func(v v1.VolumeSource) func(*Record) {
		return func(r *Record) { r.Spec.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v}} }
	}
	for _, c := range []struct {
		name string
		make []func(*Record)
		want bool
	}{
		{"any", nil, false},
		{"of a DaemonSet", []func(*Record){daemon}, true},
		{"owned but not controlled by one", []func(*Record){owner("DaemonSet", nil)}, false},
		{"owned and expressly not controlled by one", []func(*Record){owner("DaemonSet", new(false))}, false},
		{"of a ReplicaSet", []func(*Record){owner("ReplicaSet", new(true))}, false},
		{"marked", []func(*Record){annotated("true")}, true},
		{"marked with something else", []func(*Record){annotated("yes")}, false},
		{"marked, of a ReplicaSet", []func(*Record){owner("ReplicaSet", new(true)), annotated("true")}, true},
		{"with a claim", []func(*Record){daemon, volume(v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}})}, false},
		{"with a claim of its own", []func(*Record){daemon, volume(v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{}})}, false},
		{"with other volumes", []func(*Record){daemon, volume(v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}})}, true},
		{"never granted", []func(*Record){daemon, func(r *Record) { r.Granted = false }}, false},
		{"that was to end", []func(*Record){daemon, func(r *Record) { r.Stop = &Stop{} }}, false},
		{"that failed", []func(*Record){daemon, func(r *Record) { r.Phase = v1.PodFailed }}, false},
		{"that succeeded", []func(*Record){daemon, func(r *Record) { r.Phase = v1.PodSucceeded }}, false},
		{"that is deleted", []func(*Record){daemon, func(r *Record) { r.Spec.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Record{Spec: &v1.Pod{}, Granted: true}
			for _, change := range c.make {
				change(&r)
			}
			if got := MayStartOffline(r); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
