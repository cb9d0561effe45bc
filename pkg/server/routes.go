package server

import (
	"encoding/json"
	"net/http"

	"github.com/nodeagent/nodeagent/pkg/ui"
)

// routes are the paths of the node's API and who answers them.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.HandleFunc("POST /stats/summary", s.summary)
	mux.HandleFunc("GET /metrics/cadvisor", s.cadvisor)
	mux.HandleFunc("GET /metrics/resource", s.resource)
	mux.HandleFunc("GET /healthz", s.health)
	if *s.options.Config.EnableDebuggingHandlers { // it shows logs
		mux.Handle("/ui", s.options.UI)
		mux.Handle(ui.Prefix, s.options.UI)
	}
	return mux
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	for _, c := range s.options.Health {
		if err := c.Check(); err != nil {
			http.Error(w, c.Name+": "+err.Error(), http.StatusInternalServerError)
			return
		}
	}
	_, _ = w.Write([]byte("ok"))
}

// reply writes v as JSON. The other end is gone if that fails; nobody is left
// to tell.
func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
