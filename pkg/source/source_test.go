package source

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bed is a source with what it reads from.
type bed struct {
	Source
	put    func(text string) // what the one origin gives from now on
	remove func()            // everything it gives
}

// conformance is what every Source must do.
func conformance(t *testing.T, b bed) {
	out := make(chan Update)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, out) }()
	// until receives updates until one is as wanted: pods by image, and held.
	until := func(what, images string, held bool) Update {
		t.Helper()
		var last Update
		for deadline := time.After(time.Minute); ; {
			select {
			case last = <-out:
				if last.Source != b.Name() {
					t.Fatalf("update of %q from %q", last.Source, b.Name())
				}
				if imagesOf(last) == images && (len(last.Held) > 0) == held && (len(last.Problems) > 0) == held {
					return last
				}
			case <-deadline:
				t.Fatalf("%s: no such update, the last one has %q, held %v, problems %v", what, imagesOf(last), last.Held, last.Problems)
			}
		}
	}
	first := until("first update", "a:1", false)
	if seen := first.Pods[0].Pod.Annotations[annotationSeen]; seen == "" {
		t.Error("a pod isn't marked with the time it was seen")
	}
	b.put(podYAML("one", "a:2"))
	until("change", "a:2", false)
	b.put(podYAML("one", "a:2") + "---\n" + podYAML("two", "a:3"))
	kept := until("second pod", "a:2 a:3", false)
	b.put("a: [\n")
	broken := until("bad input holds", "a:2 a:3", true)
	if broken.Pods[0].Pod != kept.Pods[0].Pod {
		t.Error("bad input changed a pod")
	}
	b.put("a: [\n---\n" + podYAML("one", "a:9"))
	until("half bad input", "a:9 a:3", true)
	b.put("")
	until("empty input holds", "a:9 a:3", true)
	b.put(podYAML("one", "a:4"))
	until("recovery", "a:4", false)
	b.remove()
	until("removal", "", false)
	b.put(podYAML("one", "a:5"))
	until("return", "a:5", false)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
}

func imagesOf(u Update) string {
	var images []string
	for _, d := range u.Pods {
		images = append(images, d.Pod.Spec.Containers[0].Image)
	}
	return strings.Join(images, " ")
}

func TestFileConforms(t *testing.T) {
	for name, single := range map[string]bool{"folder": false, "single file": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a.yaml")
			put := func(text string) { write(t, path, text) }
			remove := func() {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			put(podYAML("one", "a:1"))
			read := dir
			if single {
				read = path
			}
			conformance(t, bed{NewFile(FileOptions{Path: read, NodeName: "node1", Reread: time.Hour}), put, remove})
		})
	}
}

func TestHTTPConforms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var server fakeServer
		server.put(podYAML("one", "a:1"))
		remove := func() { server.put("kind: PodList\napiVersion: v1\nitems: []\n") }
		conformance(t, bed{server.source(), server.put, remove})
	})
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fakeServer answers requests without a network, so that time can be virtual.
type fakeServer struct {
	mu       sync.Mutex
	answer   func(*http.Request) *http.Response
	requests int
}

func (s *fakeServer) put(text string) {
	s.answers(func(*http.Request) *http.Response { return response(http.StatusOK, text) })
}

func (s *fakeServer) answers(f func(*http.Request) *http.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// RoundTrip makes it a transport. An answer of nil hangs.
func (s *fakeServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.requests++
	answer := s.answer(r)
	s.mu.Unlock()
	if answer == nil {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return answer, nil
}

func (s *fakeServer) source() *httpSource {
	src := NewHTTP(HTTPOptions{URL: "http://example.com/pods", NodeName: "node1", Header: http.Header{"Authorization": {"secret"}}}).(*httpSource)
	src.client.Transport = s
	return src
}

func response(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(body))}
}
