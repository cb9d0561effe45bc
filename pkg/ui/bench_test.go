package ui

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// BenchmarkRound is what an open page asks every two seconds of a node with 100
// pods, but for what measuring takes.
func BenchmarkRound(b *testing.B) {
	n := &node{}
	for i := range 100 {
		n.pods = append(n.pods, withState(podOf(types.UID(fmt.Sprint("u", i)), fmt.Sprint("web", i)), pod.Running, 0))
	}
	h := n.handler()
	for b.Loop() {
		for _, target := range []string{"/ui/api/pods", "/ui/api/events", "/ui/api/stats", "/ui/api/pods/u1"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		}
	}
}
