package server

import (
	"context"
	"io"
	"net/http"

	"github.com/nodeagent/nodeagent/pkg/stats/exposition"
)

// Cadvisor is who samples all cgroups in full.
type Cadvisor interface {
	Scrape(context.Context) *exposition.Cadvisor
}

// addMetrics adds the paths of all series (behaviour row 1.20-7).
func (s *Server) addMetrics(mux *http.ServeMux) {
	mux.HandleFunc("GET /metrics/cadvisor", s.cadvisor)
	mux.HandleFunc("GET /metrics/resource", s.resource)
	m := s.options.Metrics
	mux.Handle("GET /metrics", m.Handler())
	mux.Handle("GET /metrics/probes", m.Probes.Handler())
	mux.Handle("GET /metrics/slis", m.Health.Handler())
}

// cadvisor is what all cgroups use, for Prometheus (behaviour row 1.21-6).
func (s *Server) cadvisor(w http.ResponseWriter, r *http.Request) {
	scrape := s.options.Cadvisor.Scrape(r.Context())
	s.expose(w, r, func(w io.Writer) error { return exposition.WriteCadvisor(w, scrape) })
}

// resource is what metrics-server asks for: CPU, memory and swap of the node and
// its pods as /stats/summary tells them (behaviour row 1.21-5).
func (s *Server) resource(w http.ResponseWriter, r *http.Request) {
	summary, err := s.options.Stats.Summary(r.Context(), true)
	if err != nil && r.Context().Err() == nil { // else nobody is left to tell
		s.log.Error("/metrics/resource has no figures", "error", err)
	}
	s.expose(w, r, func(w io.Writer) error { return exposition.WriteResource(w, summary) })
}

func (s *Server) expose(w http.ResponseWriter, r *http.Request, write func(io.Writer) error) {
	if err := exposition.Serve(w, r, write); err != nil {
		s.log.Debug("a scraper went away", "path", r.URL.Path, "error", err)
	}
}
