package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// agentAt is an agent's socket that says what it was asked.
func agentAt(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "asked "+r.URL.Path+" "+r.Header.Get("Authorization"))
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return socket
}

// Only who has the key, and asks this machine by its own name, sees anything of
// the pods; the agent's other questions can't be asked at all.
func TestDoor(t *testing.T) {
	h := door(agentAt(t), "the-key")
	for name, c := range map[string]struct {
		method, target, host, key string
		code                      int
		says                      string
	}{
		"page":                  {target: "/ui/", code: 200, says: "asked /ui/ "},
		"file":                  {target: "/ui/main.js", code: 200, says: "asked /ui/main.js "},
		"key":                   {target: "/ui/api/pods", key: "Bearer the-key", code: 200, says: "asked /ui/api/pods "},
		"log":                   {target: "/ui/api/pods/u/log?container=c", key: "Bearer the-key", code: 200},
		"tunnel":                {target: "/ui/api/pods", host: "localhost:9999", key: "Bearer the-key", code: 200},
		"version 6":             {target: "/ui/api/pods", host: "[::1]:9999", key: "Bearer the-key", code: 200},
		"no key":                {target: "/ui/api/pods", code: 401},
		"wrong key":             {target: "/ui/api/pods", key: "Bearer other", code: 401},
		"part of the key":       {target: "/ui/api/pods", key: "Bearer the-ke", code: 401},
		"empty key":             {target: "/ui/api/pods", key: "Bearer ", code: 401},
		"encoded":               {target: "/ui/%61pi/pods", code: 401},
		"encoded slash":         {target: "/ui/api%2fpods", code: 401},
		"two slashes":           {target: "/ui//api/pods", code: 401},
		"dots":                  {target: "/ui/./api/pods", code: 401},
		"up":                    {target: "/ui/../pods", code: 401},
		"name of another":       {target: "/ui/api/pods", host: "evil.example", key: "Bearer the-key", code: 421},
		"page, by another name": {target: "/ui/", host: "evil.example:80", code: 421},
		"name like ours":        {target: "/ui/", host: "localhost.evil.example", code: 421},
		"address of another":    {target: "/ui/", host: "10.0.0.1:80", code: 421},
		"no host":               {target: "/ui/", host: "-", code: 421},
		"other question":        {target: "/pods", key: "Bearer the-key", code: 404},
		"change":                {method: "POST", target: "/plan", key: "Bearer the-key", code: 405},
		"preflight":             {method: "OPTIONS", target: "/ui/api/pods", code: 405},
		"root":                  {target: "/", code: 302},
	} {
		if c.method == "" {
			c.method = http.MethodGet
		}
		if c.host == "" {
			c.host = "127.0.0.1:1234"
		}
		r := httptest.NewRequestWithContext(t.Context(), c.method, c.target, nil)
		r.Host = strings.Trim(c.host, "-")
		if c.key != "" {
			r.Header.Set("Authorization", c.key)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.code || !strings.HasPrefix(w.Body.String(), c.says) || strings.Contains(w.Body.String(), "the-key") {
			t.Errorf("%s: %d %q, want %d %q", name, w.Code, w.Body, c.code, c.says)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" || w.Header().Get("Set-Cookie") != "" {
			t.Errorf("%s: headers %v", name, w.Header())
		}
	}
}

func TestDoorWithoutAnAgent(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/ui/", nil)
	w := httptest.NewRecorder()
	door(filepath.Join(t.TempDir(), "none"), "k").ServeHTTP(w, r)
	if w.Code != http.StatusBadGateway || !strings.Contains(w.Body.String(), "does not answer") {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}
