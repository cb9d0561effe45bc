package server

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync"
)

// strangers bounds how many connections are open of whom nobody knows who it is.
// Over the limit the oldest one goes of the address that has the most: who
// opens many and says nothing shuts out nobody but himself.
type strangers struct {
	net.Listener
	limit int

	mu   sync.Mutex
	open []*peer // oldest first
}

// peer is one who connected.
type peer struct {
	net.Conn
	host string
	of   *strangers
}

func (s *strangers) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	p := &peer{Conn: c, of: s}
	p.host, _, _ = net.SplitHostPort(c.RemoteAddr().String())
	if out := s.enter(p); out != nil {
		_ = out.Close() // who reads from it learns of it
	}
	return p, nil
}

// enter takes p in, and says who has to go for that.
func (s *strangers) enter(p *peer) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, p)
	if len(s.open) <= s.limit {
		return nil
	}
	count, most := map[string]int{}, 0
	for _, o := range s.open {
		count[o.host]++
		most = max(most, count[o.host])
	}
	i := slices.IndexFunc(s.open, func(o *peer) bool { return count[o.host] == most })
	out := s.open[i]
	s.open = slices.Delete(s.open, i, i+1)
	return out
}

// known says that p is no stranger, or gone.
func (s *strangers) known(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.open, p); i >= 0 {
		s.open = slices.Delete(s.open, i, i+1)
	}
}

func (p *peer) Close() error {
	p.of.known(p)
	return p.Conn.Close()
}

type peerKey struct{}

// withPeer is for http.Server.ConnContext.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if p, ok := c.(*peer); ok {
		return context.WithValue(ctx, peerKey{}, p)
	}
	return ctx
}

// nowKnown says that somebody named himself on the connection of a request.
func nowKnown(ctx context.Context) {
	if p, ok := ctx.Value(peerKey{}).(*peer); ok {
		p.of.known(p)
	}
}
