package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// openTimeout is how long both sides may take until bytes go either way: the
	// runtime to answer, the client to begin.
	openTimeout = 30 * time.Second
	// lastWords is how long what a container printed at its end may take to reach
	// the client.
	lastWords = 10 * time.Second
	// lastBytes is the same of what came through a port of a pod that has ended.
	lastBytes = time.Second
)

// waits are how long upgraded connections may last: until bytes go either way,
// without any, and after the end of what they are about.
type waits struct{ open, idle, last time.Duration }

// idleTimeout is what streamingConnectionIdleTimeout means, of which 0 is no limit.
func idleTimeout(given time.Duration) time.Duration {
	if given <= 0 {
		return math.MaxInt64
	}
	return given
}

// session is one upgraded connection of a client and the runtime's behind it.
// They end together: with the client, with either's silence, with what the
// session is about, or with the agent. (With the runtime's connection too, after
// what it said last was passed on: that is for the handler between them.)
type session struct {
	ctx   context.Context
	end   context.CancelFunc
	waits waits
	moved atomic.Int64 // when a byte last went either way, in ns
	// ready is sent to by each side, when it is there.
	ready chan struct{}
	log   *slog.Logger
}

func newSession(ctx context.Context, w waits, log *slog.Logger) *session {
	s := &session{waits: w, ready: make(chan struct{}, 2), log: log}
	s.ctx, s.end = context.WithCancel(ctx)
	return s
}

// watch ends the session when it is time to; over is closed by the end of what
// it is about.
func (s *session) watch(over <-chan struct{}) {
	defer s.end()
	timer := time.NewTimer(s.waits.open)
	defer timer.Stop()
	for missing := 2; ; {
		select {
		case <-s.ctx.Done():
			return
		case <-s.ready:
			if missing--; missing == 0 && over != nil {
				timer.Reset(s.waits.idle)
			}
		case <-over:
			over = nil
			timer.Reset(s.waits.last)
		case now := <-timer.C:
			if left := s.waits.idle - now.Sub(time.Unix(0, s.moved.Load())); left > 0 && missing == 0 && over != nil {
				timer.Reset(left)
				continue
			}
			s.log.Debug("a stream is ended: it did not begin, was idle, or its container has ended", "over", over == nil, "missing", missing)
			return
		}
	}
}

// transport reaches the runtime's streaming server.
func (s *session) transport() *http.Transport {
	return &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(s.ctx, network, address)
			if err != nil {
				return nil, err
			}
			return s.keep(c, nil, false), nil
		},
	}
}

// hijacker is a ResponseWriter whose connection belongs to a session once it is
// taken over.
type hijacker struct {
	http.ResponseWriter
	session *session
}

// Hijack is http.Hijacker's.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take the connection over: %w", err)
	}
	// What the client has sent ahead is not to be lost.
	early, err := buffered.Reader.Peek(buffered.Reader.Buffered())
	if err != nil {
		return nil, nil, fmt.Errorf("take the connection over: %w", err)
	}
	kept := h.session.keep(c, early, true)
	h.session.ready <- struct{}{}
	return kept, bufio.NewReadWriter(bufio.NewReader(kept), bufio.NewWriter(kept)), nil
}

// tunnel is a ResponseWriter of the library's tunnel through a WebSocket. Its
// connection cannot be closed while somebody reads from it, so the end of the
// runtime's connection would wait for the client's: the session is ended first.
type tunnel struct {
	http.ResponseWriter
	session *session
}

// Hijack is http.Hijacker's.
func (t tunnel) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, buffered, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take the tunnel over: %w", err)
	}
	return tunnelConn{c, t.session}, buffered, nil
}

type tunnelConn struct {
	net.Conn
	session *session
}

// Close is net.Conn's.
func (t tunnelConn) Close() error {
	t.session.end()
	return t.Conn.Close()
}

// keep makes c a connection of the session.
func (s *session) keep(c net.Conn, early []byte, client bool) net.Conn {
	k := &kept{Conn: c, session: s, early: early, client: client}
	k.forget = context.AfterFunc(s.ctx, func() { c.Close() })
	return k
}

// kept is a connection of a session.
type kept struct {
	net.Conn
	session *session
	early   []byte // read before
	client  bool   // else the runtime's
	spoke   bool   // the runtime's has
	forget  func() bool
}

func (k *kept) Read(b []byte) (int, error) {
	if len(k.early) > 0 {
		n := copy(b, k.early)
		k.early = k.early[n:]
		return n, nil
	}
	n, err := k.Conn.Read(b)
	k.passed(n)
	if n > 0 && !k.client && !k.spoke {
		k.spoke = true
		k.session.ready <- struct{}{}
	}
	if err != nil && k.client {
		k.session.end()
	}
	return n, err
}

func (k *kept) Write(b []byte) (int, error) {
	n, err := k.Conn.Write(b)
	k.passed(n)
	if err != nil && k.client { // the runtime may have gone with its last words still on their way
		k.session.end()
	}
	return n, err
}

func (k *kept) passed(n int) {
	if n > 0 {
		k.session.moved.Store(time.Now().UnixNano())
	}
}

func (k *kept) Close() error {
	k.forget()
	return k.Conn.Close()
}
