package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Stats is who knows what the node and its pods use.
type Stats interface {
	Summary(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.Summary, error)
}

// summary is what the node and its pods use (behaviour rows 1.21-1, 1.21-2). Of
// the form's fields, in the URL or the body, only_cpu_and_memory=true is known.
func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		refuse(w, r, http.StatusInternalServerError, fmt.Sprintf("Internal Error: parse form failed: %v", err))
		return
	}
	summary, err := s.options.Stats.Summary(r.Context(), slices.Equal(r.Form["only_cpu_and_memory"], []string{"true"}))
	if err != nil {
		if r.Context().Err() == nil { // else nobody is left to tell
			s.log.Error("/stats/summary could not be answered", "error", err)
		}
		refuse(w, r, http.StatusInternalServerError, fmt.Sprintf("Internal Error: %v", err))
		return
	}
	reply(w, summary)
}
