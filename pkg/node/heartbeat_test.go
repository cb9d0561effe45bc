package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
)

// leases is an apiserver that keeps one lease and notes its renewals.
func leases(renewed chan<- time.Time) http.Handler {
	var mu sync.Mutex
	kept := &coordinationv1.Lease{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPut {
			next := &coordinationv1.Lease{}
			if err := json.NewDecoder(r.Body).Decode(next); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			kept = next
			select {
			case renewed <- time.Now():
			default:
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(kept) // to a client that may be gone
	})
}

// path is a way to a server that can swallow all that is sent. What was on it
// then never goes on, as when a firewall forgets its connections.
type path struct {
	net.Listener
	to     string
	frozen atomic.Bool
}

func (p *path) serve(t *testing.T) {
	var work sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	note := func(c net.Conn) { mu.Lock(); defer mu.Unlock(); open = append(open, c) }
	work.Go(func() {
		for {
			in, err := p.Accept()
			if err != nil {
				return
			}
			note(in)
			out, err := net.Dial("tcp", p.to)
			if err != nil {
				t.Error(err)
				return
			}
			note(out)
			var dead atomic.Bool
			work.Go(func() { p.copy(out, in, &dead) })
			work.Go(func() { p.copy(in, out, &dead) })
		}
	})
	t.Cleanup(func() {
		p.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		work.Wait()
	})
}

// copy passes on what comes in, until the connection met a frozen path.
func (p *path) copy(to io.Writer, from io.Reader, dead *atomic.Bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if p.frozen.Load() {
			dead.Store(true)
		}
		if n > 0 && !dead.Load() {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// A path that silently swallowed everything for a while is used again soon after
// it is back, although the connections that were on it stay dead.
func TestFrozenPath(t *testing.T) {
	renewed := make(chan time.Time, 1)
	server := httptest.NewUnstartedServer(leases(renewed))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	way := &path{Listener: listener, to: server.Listener.Addr().String()}
	way.serve(t)
	client, err := NewHeartbeat(&rest.Config{Host: "https://" + listener.Addr().String(), TLSClientConfig: rest.TLSClientConfig{Insecure: true},
		ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	r := NewReporter(ReporterOptions{Heartbeat: client, Settings: Settings{Name: "n1"}, Cadence: Cadence{Lease: 400 * time.Millisecond},
		Changed: func(*v1.Node) {}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	r.take(&v1.Node{})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.keepLease(ctx) }()
	<-renewed
	<-renewed
	way.frozen.Store(true)
	select {
	case <-renewed: // was under way
	case <-time.After(300 * time.Millisecond): // the next one hangs
	}
	way.frozen.Store(false)
	back := time.Now()
	for at := range renewed {
		if at.After(back) {
			if took := at.Sub(back); took > callTimeout+lastRetry {
				t.Errorf("renewed %v after the path was back", took)
			}
			break
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
