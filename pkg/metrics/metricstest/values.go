// Package metricstest reads in tests what handlers of metrics show.
package metricstest

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
)

// Of are the values that the handler shows now, by series with labels; what it
// doesn't show is 0.
func Of(h http.Handler) map[string]float64 {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return Parse(w.Body.String())
}

// Parse are the values in a text of Prometheus' format.
func Parse(text string) map[string]float64 {
	out := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			out[line[:at]] = v
		}
	}
	return out
}
