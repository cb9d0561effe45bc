package pod

import (
	"reflect"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

func TestOverlaps(t *testing.T) {
	ids := IDs{First: 65536, Length: 65536}
	for _, c := range []struct {
		other IDs
		want  bool
	}{
		{IDs{}, false}, {ids, true},
		{IDs{0, 65536}, false}, {IDs{131072, 65536}, false},
		{IDs{0, 65537}, true}, {IDs{131071, 1}, true},
		{IDs{4294901760, 65536}, false}, // the last range there is
	} {
		if got := ids.Overlaps(c.other); got != c.want || c.other.Overlaps(ids) != got {
			t.Errorf("%v: %v, want %v", c.other, got, c.want)
		}
	}
}

// The status says whom the container began as, if the runtime does (behaviour
// row 1.3-26).
func TestUserInStatus(t *testing.T) {
	user := &v1.LinuxContainerUser{UID: 1000, GID: 1000, SupplementalGroups: []int64{1000, 4000}}
	spec := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "a"}, {Name: "b"}}}}
	p := New(Wanted{At: time.Unix(1, 0), Spec: spec}, View{Containers: []Container{
		{ID: "1", Name: "a", State: Running, User: user}, {ID: "2", Name: "b", State: Running},
	}}, nil)
	s := Status(p, Node{}, time.Unix(2, 0))
	if got := s.ContainerStatuses[0].User; got == nil || !reflect.DeepEqual(got.Linux, user) {
		t.Errorf("user %+v, want %+v", got, user)
	}
	if got := s.ContainerStatuses[1].User; got != nil {
		t.Errorf("user %+v of a runtime that says nothing", got)
	}
}
