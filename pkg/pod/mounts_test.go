package pod

import (
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestMountsInStatus(t *testing.T) {
	enabled, possible := v1.RecursiveReadOnlyEnabled, v1.RecursiveReadOnlyIfPossible
	m := member{main, &v1.Container{VolumeMounts: []v1.VolumeMount{
		{Name: "a", MountPath: "/a"},
		{Name: "b", MountPath: "/b", ReadOnly: true},
		{Name: "c", MountPath: "/c", ReadOnly: true, RecursiveReadOnly: &enabled},
		{Name: "d", MountPath: "/d", ReadOnly: true, RecursiveReadOnly: &possible},
	}}}
	for _, c := range []struct {
		made *Container
		want []string
	}{
		{nil, []string{"", "Disabled", "Enabled", "Disabled"}},
		{&Container{}, []string{"", "Disabled", "Enabled", "Disabled"}},
		{&Container{RecursiveReadOnly: []string{"/c", "/d"}}, []string{"", "Disabled", "Enabled", "Enabled"}},
	} {
		got := m.statusMounts(c.made)
		if len(got) != len(c.want) {
			t.Fatalf("got %+v", got)
		}
		for i, s := range got {
			mode := ""
			if s.RecursiveReadOnly != nil {
				mode = string(*s.RecursiveReadOnly)
			}
			vm := m.VolumeMounts[i]
			if s.Name != vm.Name || s.MountPath != vm.MountPath || s.ReadOnly != vm.ReadOnly || mode != c.want[i] {
				t.Errorf("mount %s of %+v: %+v %s, want %s", vm.Name, c.made, s, mode, c.want[i])
			}
		}
	}
}
