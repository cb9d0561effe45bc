package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestHTTPBadAnswers: each takes nothing away, and is one problem.
func TestHTTPBadAnswers(t *testing.T) {
	html := response(http.StatusOK, "")
	html.Header.Set("Content-Type", "text/html; charset=utf-8")
	for name, c := range map[string]struct {
		answer func(*http.Request) *http.Response
		says   string
	}{
		"500":        {func(*http.Request) *http.Response { return response(500, "") }, "server answered Internal Server Error"},
		"404":        {func(*http.Request) *http.Response { return response(404, podYAML("one", "a:1")) }, "server answered Not Found"},
		"304":        {func(*http.Request) *http.Response { return response(304, "") }, "server answered Not Modified"},
		"hang":       {func(*http.Request) *http.Response { return nil }, "no whole answer within 10s"},
		"web page":   {func(*http.Request) *http.Response { return response(200, "\n<!DOCTYPE html>") }, "web page"},
		"HTML type":  {func(*http.Request) *http.Response { return html }, "web page"},
		"empty":      {func(*http.Request) *http.Response { return response(200, "") }, "is empty"},
		"endless":    {endless, "more than 10 MiB"},
		"other host": {redirect("http://other.example.com/pods"), "redirected to another host"},
		"downgrade":  {redirect("ftp://example.com/pods"), "redirected to another host"},
		"round":      {redirect("/pods"), "redirected more than"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var server fakeServer
				server.put(podYAML("one", "a:1"))
				out := runHTTP(t, server.source())
				if u := next(t, out); imagesOf(u) != "a:1" {
					t.Fatalf("got %q, problems %v", imagesOf(u), u.Problems)
				}
				server.answers(c.answer)
				u := next(t, out)
				if imagesOf(u) != "a:1" || len(u.Held) != 1 || len(u.Problems) != 1 || !strings.Contains(u.Problems[0].Message, c.says) {
					t.Errorf("got %q, held %v, problems %v", imagesOf(u), u.Held, u.Problems)
				}
				select { // the same again is no news
				case u := <-out:
					t.Errorf("told again: %v", u.Problems)
				case <-time.After(5 * time.Minute):
				}
				server.put(podYAML("one", "a:1"))
				if u := next(t, out); imagesOf(u) != "a:1" || len(u.Held)+len(u.Problems) > 0 {
					t.Errorf("recovered with %q, held %v, problems %v", imagesOf(u), u.Held, u.Problems)
				}
			})
		})
	}
}

func endless(*http.Request) *http.Response {
	r := response(http.StatusOK, "")
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader(podYAML("one", "a:1")), zeros{}))
	return r
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func redirect(to string) func(*http.Request) *http.Response {
	return func(r *http.Request) *http.Response {
		resp := response(http.StatusFound, "")
		resp.Header.Set("Location", to)
		resp.Request = r
		return resp
	}
}

func TestHTTPConditional(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var server fakeServer
		version, full := "1", 0
		server.answers(func(r *http.Request) *http.Response {
			if r.Header.Get("Authorization") != "secret" {
				return response(http.StatusUnauthorized, "")
			}
			if r.Header.Get("If-None-Match") == version && r.Header.Get("If-Modified-Since") != "" {
				return response(http.StatusNotModified, "")
			}
			full++
			resp := response(http.StatusOK, podYAML("one", "a:"+version))
			resp.Header.Set("ETag", version)
			resp.Header.Set("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
			return resp
		})
		out := runHTTP(t, server.source())
		next(t, out)
		time.Sleep(time.Minute + time.Second)
		server.mu.Lock()
		if server.requests != 4 || full != 1 {
			t.Errorf("after a minute: %d requests, %d full answers", server.requests, full)
		}
		version = "2"
		server.mu.Unlock()
		if u := next(t, out); imagesOf(u) != "a:2" {
			t.Errorf("got %q", imagesOf(u))
		}
	})
}

// TestHTTPUnreachableAtStart: the first update comes all the same, and holds.
func TestHTTPUnreachableAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var server fakeServer
		server.answers(func(*http.Request) *http.Response { return nil })
		if u := next(t, runHTTP(t, server.source())); len(u.Held) != 1 || len(u.Problems) != 1 {
			t.Errorf("held %v, problems %v", u.Held, u.Problems)
		}
	})
}

// TestHTTPPassword: the password of a URL is sent, and told to nobody else.
func TestHTTPPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var server fakeServer
		server.answers(func(r *http.Request) *http.Response {
			if _, password, _ := r.BasicAuth(); password != "secret" {
				return response(http.StatusUnauthorized, "")
			}
			return response(http.StatusOK, podYAML("one", "a:1")+"\n---\nnonsense\n")
		})
		s := NewHTTP(HTTPOptions{URL: "http://user:secret@server.test/pods", NodeName: "n"}).(*httpSource)
		s.client.Transport = &server
		u := next(t, runHTTP(t, s))
		if len(u.Pods) != 1 || len(u.Problems) != 1 {
			t.Fatalf("pods %v, problems %v", u.Pods, u.Problems)
		}
		for _, told := range []string{u.Pods[0].Origin, u.Problems[0].Error(), u.Held[0]} {
			if strings.Contains(told, "secret") || !strings.Contains(told, "server.test/pods") {
				t.Errorf("it is told as %s", told)
			}
		}
	})
}

// TestHTTPServer asks a real server over TLS, which sends a gzip bomb.
func TestHTTPServer(t *testing.T) {
	bomb := gzipped(t, make([]byte, 32<<20))
	body := gzipped(t, []byte(podYAML("one", "a:1")))
	answers := make(chan []byte, 2)
	answers <- body
	answers <- bomb
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		if _, err := w.Write(<-answers); err != nil {
			return // the client has seen enough
		}
	}))
	defer server.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	out := runHTTP(t, NewHTTP(HTTPOptions{URL: server.URL, Period: time.Millisecond, NodeName: "node1", CA: trusted}))
	if u := next(t, out); imagesOf(u) != "a:1" {
		t.Fatalf("got %q, problems %v", imagesOf(u), u.Problems)
	}
	if u := next(t, out); len(u.Problems) != 1 || !strings.Contains(u.Problems[0].Message, "10 MiB") {
		t.Errorf("problems %v", u.Problems)
	}
	close(answers)

	out = runHTTP(t, NewHTTP(HTTPOptions{URL: server.URL, NodeName: "node1"}))
	if u := next(t, out); len(u.Problems) != 1 || !strings.Contains(u.Problems[0].Message, "certificate") {
		t.Errorf("an authority that isn't trusted: %v", u.Problems)
	}
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func runHTTP(t *testing.T, s Source) <-chan Update {
	out := make(chan Update)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(ctx, out) // ends with ctx
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return out
}
