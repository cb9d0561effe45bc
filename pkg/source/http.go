package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	httpTimeout  = 10 * time.Second // of a request, its body included (behaviour row 1.1-3)
	maxRedirects = 5
)

// HTTPOptions says where pods are served and how to ask for them.
type HTTPOptions struct {
	URL      string
	Header   http.Header   // sent with every request
	Period   time.Duration // between two requests, 20 s when 0
	NodeName string
	// Joined says that an apiserver has the objects that pods refer to.
	Joined bool
	CA     *x509.CertPool // whom to trust; nil means the system's authorities
}

// httpSource is the source of pods behind a URL.
type httpSource struct {
	HTTPOptions
	origin string // the URL as it may be shown
	client *http.Client
	log    *slog.Logger

	contents
	// Of the newest body that could be had: its sum, what is wrong with it, and
	// what the server said of it, for conditional requests.
	text           [sha256.Size]byte
	flaws          []Problem
	etag, modified string
}

// NewHTTP gives the pods of a Pod, PodList or several documents behind a URL
// (behaviour row 1.1-3). An answer other than 200 or 304, an empty one, and one
// that redirects to another host take nothing away: to remove all pods, serve an
// empty PodList.
func NewHTTP(o HTTPOptions) Source {
	if o.Period <= 0 {
		o.Period = 20 * time.Second
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: httpTimeout}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: o.CA, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        1,
		IdleConnTimeout:     2 * o.Period,
		TLSHandshakeTimeout: httpTimeout,
	}
	origin := withoutPassword(o.URL)
	return &httpSource{HTTPOptions: o, origin: origin, log: slog.With("source", HTTPName, "url", origin),
		client: &http.Client{Transport: transport, Timeout: httpTimeout, CheckRedirect: sameHost}}
}

// withoutPassword keeps the password that a URL may hold out of logs, reports
// and records.
func withoutPassword(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw // refused with the configuration
	}
	if _, secret := u.User.Password(); !secret {
		return raw
	}
	return u.Redacted()
}

// sameHost lets a server move a manifest, but not hand the request, whose
// headers may hold a secret, to somebody else.
func sameHost(to *http.Request, via []*http.Request) error {
	first := via[0].URL
	if to.URL.Host != first.Host || to.URL.Scheme != first.Scheme {
		return fmt.Errorf("redirected to another host, %s://%s: give the URL that serves the manifest", to.URL.Scheme, to.URL.Host)
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("redirected more than %d times", maxRedirects)
	}
	return nil
}

func (u *httpSource) Name() string { return HTTPName }

// Run is documented at Source.
func (u *httpSource) Run(ctx context.Context, out chan<- Update) error {
	defer u.client.CloseIdleConnections()
	ask := time.NewTimer(0)
	defer ask.Stop()
	answers := make(chan answer, 1) // one request at a time
	asking := false
	var (
		pending Update
		send    chan<- Update // nil while nothing is pending
		first   = true
	)
	done := ctx.Done()
	for {
		select {
		case <-done:
			if !asking {
				return ctx.Err()
			}
			done = nil // the request ends with ctx; its goroutine is awaited
		case <-ask.C:
			asking = true
			go func(etag, modified string) { answers <- u.fetch(ctx, etag, modified) }(u.etag, u.modified)
		case a := <-answers:
			asking = false
			if ctx.Err() != nil {
				return ctx.Err()
			}
			ask.Reset(u.Period)
			before := u.contents
			u.take(a, time.Now())
			if !first && same(before, u.contents) {
				continue
			}
			first = false
			logChanges(u.log, before.problems, u.problems)
			pending, send = u.update(), out
		case send <- pending:
			send = nil
		}
	}
}

// answer is what came of one request.
type answer struct {
	body           []byte
	unchanged      bool // since the body that etag and modified were given for
	etag, modified string
	err            error
}

// fetch asks once.
func (u *httpSource) fetch(ctx context.Context, etag, modified string) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.URL, nil)
	if err != nil {
		return answer{err: fmt.Errorf("ask for manifest: %w", err)}
	}
	if u.Header != nil {
		req.Header = u.Header.Clone()
		req.Host = u.Header.Get("Host") // a header of this name is not sent otherwise
	}
	setHeader(req.Header, "If-None-Match", etag)
	setHeader(req.Header, "If-Modified-Since", modified)
	resp, err := u.client.Do(req)
	if err != nil {
		return answer{err: fmt.Errorf("ask for manifest: %w", steady(err))}
	}
	defer resp.Body.Close() // it was read as far as wanted
	switch {
	case resp.StatusCode == http.StatusNotModified && (etag != "" || modified != ""):
		return answer{unchanged: true}
	case resp.StatusCode != http.StatusOK:
		return answer{err: fmt.Errorf("ask for manifest: server answered %s", resp.Status)}
	}
	// The length counts after decompression: what arrives may be a bomb.
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	switch {
	case err != nil:
		return answer{err: fmt.Errorf("read manifest: %w", steady(err))}
	case len(body) > maxManifest:
		return answer{err: fmt.Errorf("answer has more than %d MiB", maxManifest>>20)}
	case isWebPage(resp.Header.Get("Content-Type"), body):
		return answer{err: errors.New("answer is a web page, not a manifest: check the URL, and whether it asks for a login")}
	}
	return answer{body: body, etag: resp.Header.Get("ETag"), modified: resp.Header.Get("Last-Modified")}
}

// take makes an answer what the URL gives.
func (u *httpSource) take(a answer, now time.Time) {
	if a.err != nil {
		u.contents = u.then(contents{problems: []Problem{{Origin: u.origin, Message: a.err.Error()}}}, now)
		return
	}
	if !a.unchanged {
		u.etag, u.modified = a.etag, a.modified
		if text := sha256.Sum256(a.body); text != u.text {
			here := place{source: HTTPName, origin: u.origin, node: u.NodeName, joined: u.Joined}
			u.text = text
			u.contents = u.then(here.decode(a.body), now)
			u.flaws = u.problems
			return
		}
	}
	// The pods of this body are still wanted: failures in between took none away.
	u.problems = u.flaws
}

// update is the full list of what is wanted now.
func (u *httpSource) update() Update {
	update := Update{Source: HTTPName, Pods: slices.Clone(u.pods), Objects: slices.Clone(u.objects), Problems: slices.Clone(u.problems)}
	if u.held() {
		update.Held = []string{u.origin}
	}
	return update
}

func setHeader(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

// steady gives an error the same words each time it happens, so that it is told
// once: without the URL, which the problem names, the place where a time-out
// struck, and the local port.
func steady(err error) error {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("no whole answer within %v", httpTimeout)
	}
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err
	}
	var network *net.OpError
	if errors.As(err, &network) && network.Source != nil {
		return fmt.Errorf("%s %s %v: %w", network.Op, network.Net, network.Addr, network.Err)
	}
	return err
}

func isWebPage(contentType string, body []byte) bool {
	return strings.HasPrefix(strings.ToLower(contentType), "text/html") || bytes.HasPrefix(bytes.TrimSpace(body), []byte("<"))
}
