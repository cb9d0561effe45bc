package server

import (
	"encoding/json"
	"net/http"

	"github.com/nodeagent/nodeagent/pkg/ui"
)

// routes are the paths of the node's API and who answers them. What fields of
// the configuration turn off answers 405 and says so (behaviour row 1.20-17).
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	s.addReadable(mux)
	mux.Handle("DELETE /metrics/slis", s.options.Metrics.Health.Handler()) // begins them anew
	k := s.options.Config
	if !*k.EnableDebuggingHandlers {
		addDisabled(mux)
		return mux
	}
	mux.HandleFunc("GET /runningpods/{$}", s.runningPods)
	mux.HandleFunc("GET /configz", s.configz)
	mux.HandleFunc("GET /debug/timeline", s.timeline)
	if s.options.Gate("ContainerCheckpoint") {
		mux.HandleFunc("POST /checkpoint/{namespace}/{pod}/{container}", s.checkpoint)
	}
	mux.Handle("/ui", s.options.UI)
	mux.Handle(ui.Prefix, s.options.UI)
	s.addStreams(mux)
	s.addProcess(mux)
	s.addLogs(mux)
	s.addZPages(mux)
	return mux
}

// readOnly are the paths of the port that asks nobody who he is (behaviour row
// 1.20-18).
func (s *Server) readOnly() http.Handler {
	mux := http.NewServeMux()
	s.addReadable(mux)
	addDisabled(mux)
	return mux
}

// addDisabled are the paths that say of themselves that they are turned off.
func addDisabled(mux *http.ServeMux) {
	for _, path := range []string{"/run/", "/exec/", "/attach/", "/portForward/", "/containerLogs/", "/runningpods/", "/debug/pprof/", "/debug/timeline", "/logs/", ui.Prefix} {
		mux.HandleFunc(path, disabled("Debug endpoints are disabled."))
	}
}

// addReadable are the paths of both ports: nothing in them can be changed, nor
// entered.
func (s *Server) addReadable(mux *http.ServeMux) {
	installHealth(mux, s.options.Health)
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.HandleFunc("POST /stats/summary", s.summary)
	s.addMetrics(mux)
}

func disabled(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, http.StatusMethodNotAllowed) }
}

// reply writes v as JSON. The other end is gone if that fails; nobody is left
// to tell.
func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
