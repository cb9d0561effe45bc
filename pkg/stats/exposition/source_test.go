package exposition

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	info "github.com/google/cadvisor/info/v1"

	"github.com/nodeagent/nodeagent/pkg/stats"
)

type given struct {
	containers []stats.Container
	err        error
}

func (g given) Sample(_ context.Context, depth stats.Depth) ([]stats.Container, error) {
	if depth != stats.Full {
		return nil, errors.New("too little is asked for")
	}
	return g.containers, g.err
}

// TestScrape: a scrape tells of the machine, of the version, and of sandboxes
// with their image, for which the runtime is asked until it has told it once.
func TestScrape(t *testing.T) {
	asked := 0
	image := func(_ context.Context, id string) (string, error) {
		if asked++; asked == 1 {
			return "", errors.New("the runtime is away")
		}
		return "pause:" + id, nil
	}
	box := stats.Container{Kind: stats.KindSandbox, ID: "s1", Cgroup: "/p/s1", Pod: "p", Spec: &info.ContainerSpec{}, Stats: &info.ContainerStats{}}
	s := NewSource(given{containers: []stats.Container{box}}, image, slog.New(slog.DiscardHandler))
	for _, want := range []string{`image="",name="s1"`, `image="pause:s1",name="s1"`, `image="pause:s1",name="s1"`} {
		text := written(t, func(w io.Writer) error { return WriteCadvisor(w, s.Scrape(t.Context())) })
		if !strings.Contains(text, "container_memory_rss{container=\"\",id=\"/p/s1\","+want) {
			t.Errorf("want %s in:\n%s", want, text)
		}
		families := parse(t, text)
		if m := families["machine_cpu_cores"].GetMetric(); len(m) != 1 || m[0].GetGauge().GetValue() < 1 || m[0].TimestampMs != nil {
			t.Errorf("machine_cpu_cores: %v", m)
		}
		if m := families["cadvisor_version_info"].GetMetric(); len(m) != 1 {
			t.Errorf("cadvisor_version_info: %v", m)
		}
	}
	if asked != 2 {
		t.Errorf("the runtime was asked %d times, want 2", asked)
	}
}

// TestScrapeWithoutContainers: what could not be read is said, and the rest told.
func TestScrapeWithoutContainers(t *testing.T) {
	s := NewSource(given{err: errors.New("no cgroups")}, nil, slog.New(slog.DiscardHandler))
	families := parse(t, written(t, func(w io.Writer) error { return WriteCadvisor(w, s.Scrape(t.Context())) }))
	if got := families["container_scrape_error"].GetMetric()[0].GetGauge().GetValue(); got != 1 {
		t.Errorf("container_scrape_error is %v", got)
	}
	if got := families["machine_scrape_error"].GetMetric()[0].GetGauge().GetValue(); got != 0 {
		t.Errorf("machine_scrape_error is %v", got)
	}
}
