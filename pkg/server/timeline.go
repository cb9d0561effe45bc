package server

import (
	"net/http"
	"time"

	"github.com/nodeagent/nodeagent/pkg/timeline"
)

// timeline is how pods came to be as they are and what they wait for, of all or of
// those that ?pod names: see timeline.All. It is this agent's own.
func (s *Server) timeline(w http.ResponseWriter, r *http.Request) {
	pods := s.options.Pods
	reply(w, timeline.All(pods.Pods(), pods.Node(), time.Now(), r.URL.Query().Get("pod")))
}
