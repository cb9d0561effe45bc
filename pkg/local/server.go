package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
	"github.com/nodeagent/nodeagent/pkg/timeline"
	"github.com/nodeagent/nodeagent/pkg/ui"
)

// Pods is who knows of the pods.
type Pods interface {
	Pods() []pod.Pod
	Node() pod.Node
	Problems() []source.Problem
	Verdict(*v1.Pod) pod.Verdict
	// Looked is closed when it is known what runs.
	Looked() <-chan struct{}
}

const maxBody = 10 << 20

// Serve answers on the socket of root until ctx ends, what is below ui.Prefix by
// page. The socket of a process that died is taken over: the caller holds the
// root's lock. Who calls before pods has Looked waits.
func Serve(ctx context.Context, root string, pods Pods, page http.Handler, log *slog.Logger) error {
	path := Socket(root)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("local socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("local socket: %w", err)
	}
	// The folder is 0700, so nobody gets in before the mode is set.
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("local socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("local socket: %w", err), l.Close())
	}
	server := &http.Server{Handler: handler(pods, page), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	select {
	case <-pods.Looked():
	case <-ctx.Done(): // the server is closed, and closes l
	}
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("local socket: %w", err)
	}
	return nil
}

func handler(pods Pods, page http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(ui.Prefix, page)
	mux.HandleFunc("GET /pods", func(w http.ResponseWriter, r *http.Request) {
		now, n := time.Now(), pods.Node()
		report := Report{Node: Node{Name: n.Name, Runtime: n.Runtime, Network: n.Network}, Problems: pods.Problems()}
		for _, p := range pods.Pods() {
			report.Pods = append(report.Pods, describe(p, n, now))
		}
		reply(w, report)
	})
	mux.HandleFunc("GET /debug/timeline", func(w http.ResponseWriter, r *http.Request) {
		reply(w, timeline.All(pods.Pods(), pods.Node(), time.Now(), r.URL.Query().Get("pod")))
	})
	mux.HandleFunc("POST /plan", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		var spec v1.Pod
		if err == nil {
			err = json.Unmarshal(body, &spec)
		}
		if err != nil {
			http.Error(w, fmt.Sprintf("decode the pod: %v", err), http.StatusBadRequest)
			return
		}
		reply(w, foresee(pods, &spec, time.Now()))
	})
	return mux
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// The other end is gone if this fails; nobody is left to tell.
	_ = json.NewEncoder(w).Encode(v)
}
