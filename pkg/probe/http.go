package probe

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

const (
	// maxBody is how much of an answer's body is read (behaviour row 1.6-6).
	maxBody = 10 << 10
	// maxAnswer bounds an answer with its headers.
	maxAnswer = 256 << 10
	// maxRedirects is how often the same host may send us elsewhere (row 1.6-7).
	maxRedirects = 10
)

// newClient makes requests without proxy, kept connections, compression and
// verification (behaviour row 1.6-8).
func newClient() *http.Client {
	return &http.Client{Transport: &transport{net.Dialer{KeepAlive: -1}}, CheckRedirect: sameHost}
}

// sameHost follows no redirect to another host: the answer that says so is then
// the last.
func sameHost(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	return nil
}

// transport makes one HTTP/1.1 request on a connection of its own. It needs none
// of the goroutines and buffers with which http.Transport keeps connections, and
// lets no handshake outlive its request.
type transport struct{ dialer net.Dialer }

var (
	readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}
	writers = sync.Pool{New: func() any { return new(bytes.Buffer) }}
)

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	conn, err := t.dial(ctx, req.URL)
	if err != nil {
		return nil, err
	}
	a := &answer{conn: conn, stop: context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })}
	res, err := a.exchange(req)
	if err != nil {
		_ = a.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	a.ReadCloser = res.Body
	res.Body = a
	return res, nil
}

func (t *transport) dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	port, known := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if !known {
		return nil, fmt.Errorf("unsupported protocol scheme %q", u.Scheme) // of a redirect
	}
	conn, err := t.dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port)))
	if err != nil || u.Scheme != "https" {
		return conn, err
	}
	// Who is probed proves nothing to us.
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname()})
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		var record tls.RecordHeaderError
		if errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/" {
			err = http.ErrSchemeMismatch
		}
		return nil, err
	}
	return secure, nil
}

// answer is the body of a response; closing it closes the connection.
type answer struct {
	io.ReadCloser
	conn   net.Conn
	reader *bufio.Reader
	stop   func() bool
}

func (a *answer) exchange(req *http.Request) (*http.Response, error) {
	w := writers.Get().(*bytes.Buffer)
	defer writers.Put(w)
	w.Reset()
	once := *req
	once.Close = true
	if err := once.Write(w); err != nil {
		return nil, err
	}
	if _, err := a.conn.Write(w.Bytes()); err != nil {
		return nil, err
	}
	a.reader = readers.Get().(*bufio.Reader)
	a.reader.Reset(io.LimitReader(a.conn, maxAnswer))
	for range 5 { // informational answers come before the one that counts
		res, err := http.ReadResponse(a.reader, req)
		if err != nil || res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			return res, err
		}
	}
	return nil, errors.New("too many 1xx informational responses")
}

// Close implements io.Closer. What is left of the body is not read.
func (a *answer) Close() error {
	if a.conn == nil {
		return nil
	}
	a.stop()
	err := a.conn.Close()
	if a.reader != nil {
		a.reader.Reset(nil)
		readers.Put(a.reader)
	}
	a.conn, a.reader, a.ReadCloser = nil, nil, io.NopCloser(strings.NewReader(""))
	return err
}

// request is what an httpGet asks for (behaviour rows 1.6-8, 1.6-9). The agent
// names itself purpose/release, unless the pod's author has another name.
func request(get *v1.HTTPGetAction, c *v1.Container, host, agent string) (*http.Request, error) {
	at, err := address(get.Host, host, get.Port, c)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(get.Path)
	if err != nil {
		u = &url.URL{Path: get.Path}
	}
	u.Host, u.Scheme = at, "http"
	if strings.EqualFold(string(get.Scheme), "https") {
		u.Scheme = "https"
	}
	req, err := http.NewRequest(http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.Name, err)
	}
	for _, h := range get.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
	}
	if _, given := req.Header["User-Agent"]; !given {
		req.Header.Set("User-Agent", agent)
	}
	if accept, given := req.Header["Accept"]; !given {
		req.Header.Set("Accept", "*/*")
	} else if accept[0] == "" {
		req.Header.Del("Accept")
	}
	req.Host = req.Header.Get("Host")
	return req, nil
}

// askHTTP asks by httpGet.
func (h *Handlers) askHTTP(q pod.Probing) Ask {
	req, err := request(q.Probe.HTTPGet, q.Container, q.Host, "kube-probe/"+h.release)
	if err != nil {
		return never(err)
	}
	timeout := timeout(q.Probe)
	return func(ctx context.Context) (pod.Outcome, string) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		res, err := h.client.Do(req.WithContext(ctx))
		if err != nil {
			why := plainly(err)
			if ctx.Err() != nil {
				why += " (Client.Timeout exceeded while awaiting headers)"
			}
			return pod.Failed, why
		}
		defer res.Body.Close()
		return judge(res)
	}
}

// judge says what an answer means for its probe.
func judge(res *http.Response) (pod.Outcome, string) {
	redirect := res.StatusCode >= 300 && res.StatusCode < 400
	var body strings.Builder
	var sink io.Writer = io.Discard
	if redirect {
		sink = &body
	}
	if _, err := io.CopyN(sink, res.Body, maxBody); err != nil && !errors.Is(err, io.EOF) {
		return pod.Broken, plainly(err)
	}
	switch {
	case redirect:
		return pod.Warned, "Probe terminated redirects, Response body: " + strings.ToValidUTF8(body.String(), "")
	case res.StatusCode >= 200 && res.StatusCode < 300:
		return pod.Passed, ""
	}
	return pod.Failed, fmt.Sprintf("HTTP probe failed with statuscode: %d", res.StatusCode)
}

// plainly is the error without the port that our end happened to have, so that
// the same failure is told in the same words each time.
func plainly(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		op.Source = nil
	}
	return err.Error()
}
