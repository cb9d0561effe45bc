package credentials

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/transport"
	"k8s.io/client-go/util/connrotation"
)

// pace is how soon a dead path is noticed.
type pace struct {
	dial  time.Duration // until a connection attempt is given up
	quiet time.Duration // without a word from the server, until it is pinged
	pong  time.Duration // until a ping without answer ends the connection
}

var (
	normalPace    = pace{dial: 15 * time.Second, quiet: 10 * time.Second, pong: 5 * time.Second}
	heartbeatPace = pace{dial: 3 * time.Second, quiet: 3 * time.Second, pong: 3 * time.Second}
)

// door is the transport of one set of clients: it leads to the apiserver with
// the newest credentials.
type door struct {
	cluster *Cluster
	pace    pace
	way     atomic.Pointer[way] // nil while there are no credentials
}

// use makes new requests go by other credentials, and ends what went by the old.
func (d *door) use(a *access) {
	w, err := newWay(a, d.pace)
	if err != nil {
		w = &way{err: err} // it was tried when the files were read
	}
	if old := d.way.Swap(w); old != nil {
		old.close()
	}
}

// RoundTrip is http.RoundTripper.
func (d *door) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := d.cluster.wait(r.Context()); err != nil {
		if r.Body != nil {
			err = errors.Join(err, r.Body.Close())
		}
		return nil, err
	}
	w := d.way.Load()
	return w.RoundTrip(redirect(r, d.cluster.server, w.server))
}

// CloseIdleConnections is for http.Client.
func (d *door) CloseIdleConnections() {
	if w := d.way.Load(); w != nil && w.base != nil {
		w.base.CloseIdleConnections()
	}
}

// redirect sends the request to where the server is now.
func redirect(r *http.Request, known, now *url.URL) *http.Request {
	if now == nil || *known == *now {
		return r
	}
	u := *r.URL
	u.Scheme, u.Host = now.Scheme, now.Host
	u.Path = strings.TrimSuffix(now.Path, "/") + "/" + strings.TrimPrefix(strings.TrimPrefix(u.Path, known.Path), "/")
	r = r.WithContext(r.Context())
	r.URL, r.Host = &u, ""
	return r
}

// way are the connections that were made with the same credentials.
type way struct {
	server *url.URL
	base   *http.Transport
	rt     http.RoundTripper // base with what goes into each request's header
	conns  *connrotation.Dialer
	closed atomic.Bool
	err    error // why there can be none
}

var errChanged = errors.New("the credentials for the apiserver have changed meanwhile")

// newWay makes connections possible, and none. It goes around client-go's cache
// of transports, which would share them and keep them for ever.
func newWay(a *access, p pace) (*way, error) {
	w := &way{server: a.server}
	w.conns = connrotation.NewDialer((&net.Dialer{Timeout: p.dial, KeepAlive: p.quiet}).DialContext)
	config := *a.config
	config.Dial = w.dial
	settings, err := config.TransportConfig()
	if err != nil {
		return nil, err
	}
	tls, err := transport.TLSConfigFor(settings)
	if err != nil {
		return nil, err
	}
	proxy := settings.Proxy
	if proxy == nil {
		proxy = utilnet.NewProxierWithNoProxyCIDR(http.ProxyFromEnvironment)
	}
	w.base = &http.Transport{
		Proxy: proxy, DialContext: settings.DialHolder.Dial, TLSClientConfig: tls, TLSHandshakeTimeout: p.dial,
		MaxIdleConnsPerHost: 25, IdleConnTimeout: 90 * time.Second, DisableCompression: config.DisableCompression,
		ForceAttemptHTTP2: os.Getenv("DISABLE_HTTP2") == "", // the way out that the kubelet has too
		HTTP2:             &http.HTTP2Config{SendPingTimeout: p.quiet, PingTimeout: p.pong},
	}
	w.rt, err = transport.HTTPWrappersForConfig(settings, w.base)
	return w, err
}

// dial is for a connection with these credentials, which are the old ones when
// it ends after close.
func (w *way) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := w.conns.DialContext(ctx, network, address)
	if err == nil && w.closed.Load() {
		return nil, errors.Join(errChanged, conn.Close())
	}
	return conn, err
}

func (w *way) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.err != nil {
		return nil, w.err
	}
	return w.rt.RoundTrip(r)
}

// close ends the connections, and the requests on them.
func (w *way) close() {
	if w.base == nil {
		return
	}
	w.closed.Store(true)
	w.conns.CloseAll()
	w.base.CloseIdleConnections()
}
