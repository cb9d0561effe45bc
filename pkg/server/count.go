package server

import (
	"net/http"
	"slices"
	"strings"
)

// roots are the first parts of the node API's paths, by which requests are
// counted; of metrics the second too.
var roots = []string{"attach", "checkpoint", "configz", "containerLogs", "debug", "exec", "flagz", "healthz", "logs", "metrics",
	"metrics/cadvisor", "metrics/probes", "metrics/resource", "metrics/slis", "pods", "portForward", "run", "runningpods", "stats", "statusz", "ui"}

// rootOf is what a path is counted as: never something that a caller made up.
func rootOf(path string) string {
	parts := strings.SplitN(strings.TrimPrefix(path, "/"), "/", 3)
	root := parts[0]
	if root == "metrics" && len(parts) > 1 {
		root += "/" + parts[1]
	}
	if slices.Contains(roots, root) {
		return root
	}
	return "other"
}

// count counts and times every request, those that are refused too. readOnly is
// of the port that asks nobody who they are.
func (s *Server) count(readOnly bool, h http.Handler) http.Handler {
	to := s.options.Metrics.Requests
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		root := rootOf(r.URL.Path)
		defer to.Begin(r.Method, root, readOnly)()
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && slices.Contains([]string{"exec", "attach", "portForward"}, root) {
			to.Stream(strings.ToLower(root))
		}
		h.ServeHTTP(w, r)
	})
}
