package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/local"
	"github.com/nodeagent/nodeagent/pkg/ui"
)

// runUI shows the agent's page to a browser on this machine. The agent itself
// opens no port for it: this process does, on loopback, as long as it runs.
func runUI(ctx context.Context, args []string) error {
	q := newQuestion("ui")
	port := q.flags.Uint16("port", 0, "port on 127.0.0.1, 0 for any free one")
	if err := q.parse(args, 0, "[--port N]"); err != nil {
		return err
	}
	if _, err := local.NewClient(q.root).Report(ctx); err != nil {
		return err // who may not open the socket learns it here
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		return err
	}
	key := rand.Text()
	fmt.Printf("http://%s%s#key=%s\n", l.Addr(), ui.Prefix, key)
	fmt.Fprintln(os.Stderr, "Whoever has this link sees the pods and their logs. Ctrl-C closes it.")
	server := &http.Server{Handler: door(local.Socket(q.root), key), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// door lets through to the page at the agent's socket who has the key. The page
// keeps it for one tab and sends it along with each question; a cookie would
// also go to whatever other users of this machine serve on their ports of
// 127.0.0.1. The page's files are no secret: they have to be there first.
//
// A name that somebody had resolved to this machine is refused, so that no other
// site becomes the same origin.
func door(socket, key string) http.Handler {
	agent := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "agent"
			r.Out.Header.Del("Authorization")
		},
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}},
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "the agent does not answer", http.StatusBadGateway)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		file, below := strings.CutPrefix(r.URL.Path, ui.Prefix)
		switch {
		case !loopback(r.Host):
			http.Error(w, "ask for 127.0.0.1 or localhost", http.StatusMisdirectedRequest)
		case r.Method != http.MethodGet:
			http.Error(w, "there is nothing to change here", http.StatusMethodNotAllowed)
		case r.URL.Path == "/":
			http.Redirect(w, r, ui.Prefix, http.StatusFound)
		case !below:
			http.NotFound(w, r)
		case strings.Contains(file, "/") && subtle.ConstantTimeCompare([]byte(given), []byte(key)) != 1:
			http.Error(w, "open the link that nodeagent ui printed", http.StatusUnauthorized)
		default:
			agent.ServeHTTP(w, r)
		}
	})
}

// loopback says whether a request's Host is this machine by a name that nobody
// else can give out. The port may be that of a tunnel.
func loopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}
