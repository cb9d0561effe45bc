package volumes

import (
	"reflect"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Of every kind of volume that there is, pods either get it from here or know
// that it is not built: none is tried in vain.
func TestEveryKindIsBuiltOrSaidNotToBe(t *testing.T) {
	v, err := New(t.TempDir(), 0, env.Resolver{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kinds := reflect.TypeFor[v1.VolumeSource]()
	for i := range kinds.NumField() {
		vol := v1.Volume{Name: "v"}
		reflect.ValueOf(&vol.VolumeSource).Elem().Field(i).Set(reflect.New(kinds.Field(i).Type.Elem()))
		p := &v1.Pod{Spec: v1.PodSpec{Volumes: []v1.Volume{vol},
			Containers: []v1.Container{{VolumeMounts: []v1.VolumeMount{{Name: "v"}}}}}}
		has := vol.Image != nil || v.kinds[source(&vol)] != nil
		if waits := len(pod.Unbuilt(p)) > 0; has == waits {
			t.Errorf("%s: built here %v, pods wait for it %v", kinds.Field(i).Name, has, waits)
		}
		p.Spec.Containers[0].VolumeMounts = nil
		if len(pod.Unbuilt(p)) > 0 {
			t.Errorf("%s: waited for, but no container uses it", kinds.Field(i).Name)
		}
	}
}
