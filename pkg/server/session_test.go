package server

import (
	"log/slog"
	"net"
	"testing"
	"time"
)

// TestWhoEndsASession: the client does, and not a runtime that takes no more: what
// it said last, the exit code of a command, may still be on its way.
func TestWhoEndsASession(t *testing.T) {
	for _, client := range []bool{false, true} {
		s := newSession(t.Context(), waits{time.Minute, time.Minute, time.Minute}, slog.New(slog.DiscardHandler))
		near, far := net.Pipe()
		c := s.keep(near, nil, client)
		_ = far.Close()
		if _, err := c.Write([]byte("more")); err == nil {
			t.Error("a closed connection takes more")
		}
		if ended := s.ctx.Err() != nil; ended != client {
			t.Errorf("client %t: the session has ended: %t", client, ended)
		}
		s.end()
		_ = c.Close()
	}
}
