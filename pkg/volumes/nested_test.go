package volumes

import (
	"fmt"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

// mounting is a pod of one container with these mounts, as volume:path.
func mounting(mounts ...[2]string) *v1.Pod {
	c := v1.Container{}
	for _, m := range mounts {
		c.VolumeMounts = append(c.VolumeMounts, v1.VolumeMount{Name: m[0], MountPath: m[1]})
	}
	return &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{c}}}
}

func TestNested(t *testing.T) {
	for _, c := range []struct {
		pod  *v1.Pod
		want []string
	}{
		{mounting([2]string{"v", "/etc/a"}, [2]string{"o", "/etc/b"}), nil},
		{mounting([2]string{"v", "/etc"}, [2]string{"o", "/etc/b/c/"}, [2]string{"o", "/etc/a"}), []string{"a", "b/c"}},
		{mounting([2]string{"v", "/etc"}, [2]string{"o", "/etc/b"}, [2]string{"x", "/etc/b/c"}), []string{"b"}},
		{mounting([2]string{"v", "/"}, [2]string{"o", "/b"}), []string{"b"}},
		{mounting([2]string{"v", "etc"}, [2]string{"v", "/etc/b"}, [2]string{"o", "/etc/b/c"}), []string{"b", "c"}},
		{mounting([2]string{"v", "/etc"}, [2]string{"o", "/etcetera/b"}), nil},
	} {
		if got := nested(c.pod, "v"); !slices.Equal(got, c.want) {
			t.Errorf("%v: got %v, want %v", c.pod.Spec.Containers[0].VolumeMounts, got, c.want)
		}
	}
}

// As many mounts as a manifest may hold take no longer than reading them.
func TestManyMounts(t *testing.T) {
	var mounts [][2]string
	for i := range 20_000 {
		mounts = append(mounts, [2]string{"v", fmt.Sprint("/", i)})
	}
	begin := time.Now()
	nested(mounting(mounts...), "v")
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}
