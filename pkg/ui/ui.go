// Package ui is the page that shows the node's pods to people in a browser:
// their states, what each start was made of, figures, events and logs.
//
// It is plain files, embedded in the program, and a few questions they ask
// (JSON below api/). It only reads, shows nothing that `kubectl get pod` would
// not, and does not decide who may look: whoever mounts the handler does.
package ui

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
	"github.com/nodeagent/nodeagent/pkg/stats"
)

// Prefix is where the page is mounted. All its own addresses are relative, so
// that it works behind the apiserver's proxy too.
const Prefix = "/ui/"

//go:embed page
var page embed.FS

// policy lets the page load its own files and nothing else, and turns off the
// ways by which text could become markup or script.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Options are what the page shows.
type Options struct {
	// Version of the agent, as people know it.
	Version string
	Pods    Pods
	Logs    Logs
	// Stats are the figures; nil for none.
	Stats Stats
}

// Pods is who knows of the pods.
type Pods interface {
	Pods() []pod.Pod
	Node() pod.Node
	Problems() []source.Problem
	// Await returns when it is true of the pod's newest value, when nothing is
	// left of the pod, or when ctx ends.
	Await(ctx context.Context, uid types.UID, is func(pod.Pod) bool)
}

// Logs finds the log of a container by its ID in the runtime.
type Logs interface {
	LogPath(ctx context.Context, id string) (string, error)
}

// Stats measures the node and its pods.
type Stats interface {
	Sample(context.Context, stats.Depth) ([]stats.Container, error)
}

// site answers what the page asks.
type site struct {
	Options
	streams chan struct{} // a place for each log that may be read at once
	stall   time.Duration // that a browser may take to accept some more of a log
}

// Handler serves the page below Prefix.
func Handler(o Options) http.Handler {
	s := &site{Options: o, streams: make(chan struct{}, logStreams), stall: logStall}
	mux := http.NewServeMux()
	// By hand: a redirect relative to where the browser is, whoever is between.
	mux.HandleFunc("GET /ui", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "ui/")
		w.WriteHeader(http.StatusFound)
	})
	mux.HandleFunc("GET /ui/api/pods", s.list)
	mux.HandleFunc("GET /ui/api/pods/{uid}", s.detail)
	mux.HandleFunc("GET /ui/api/pods/{uid}/log", s.log)
	mux.HandleFunc("GET /ui/api/events", s.events)
	mux.HandleFunc("GET /ui/api/stats", s.figures)
	addFiles(mux)
	return guard(mux)
}

// guard sets the headers that every answer has.
func guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Content-Security-Policy":      policy,
			"X-Content-Type-Options":       "nosniff",
			"X-Frame-Options":              "DENY",
			"Referrer-Policy":              "no-referrer",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Cache-Control":                "no-store",
		} {
			w.Header().Set(name, value)
		}
		h.ServeHTTP(w, r)
	})
}

// addFiles serves the embedded files. Their types don't depend on what this
// machine says of file names.
func addFiles(mux *http.ServeMux) {
	types := map[string]string{".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
	entries, err := fs.ReadDir(page, "page")
	if err != nil {
		panic(err) // they are part of the program
	}
	for _, e := range entries {
		body, err := fs.ReadFile(page, "page/"+e.Name())
		if err != nil {
			panic(err)
		}
		kind, tag := types[path.Ext(e.Name())]+"; charset=utf-8", etag(body)
		serve := func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("ETag", tag)
			w.Header().Set("Cache-Control", "no-cache")
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
		}
		if e.Name() == "index.html" {
			mux.HandleFunc("GET /ui/{$}", serve)
			continue
		}
		mux.HandleFunc("GET /ui/"+e.Name(), serve)
	}
}

func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// reply writes v as JSON, or nothing if that is what the browser has already.
// The node's time goes along, for ages by its clock and not the browser's.
func reply(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, fmt.Sprintf("encode the answer: %v", err), http.StatusInternalServerError)
		return
	}
	tag := etag(body)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", tag)
	w.Header().Set("Node-Time", strconv.FormatInt(time.Now().UnixMilli(), 10))
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(body) // the other end is gone if this fails; nobody is left to tell
}
