package stats

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/volumes"
)

// TestVolumeThatCannotBeCountedWholly is told with the part that could be, or with
// what it was before if that is more.
func TestVolumeThatCannotBeCountedWholly(t *testing.T) {
	var answer volumes.Usage
	w := &world{volumes: func(*v1.Volume) (volumes.Usage, error) { return answer, errors.New("too deep") }}
	s := &Stats{options: Options{Volumes: w, Log: slog.New(slog.DiscardHandler)}}
	p := pod.Pod{Spec: &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: v1.PodSpec{Volumes: []v1.Volume{{Name: "data"}}}}}
	var known sizes
	for _, step := range []struct{ counted, want uint64 }{{0, 0}, {100, 100}, {50, 100}, {200, 200}} {
		answer = volumes.Usage{}
		if step.counted > 0 {
			answer = volumes.Usage{At: time.Now(), Used: step.counted}
		}
		got, err := s.measurePod(t.Context(), p, known)
		if err == nil {
			t.Error("nobody is told")
		}
		if u, ok := got.volumes["data"]; u.Used != step.want || ok != (step.want > 0) {
			t.Errorf("%d counted: told %d, want %d", step.counted, u.Used, step.want)
		}
		known = got
	}
}
