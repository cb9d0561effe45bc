package server

import (
	"bufio"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// limits are how long and how much callers may take (behaviour row 1.20-20).
type limits struct {
	strangers   int           // connections of whom nobody knows who it is
	header      time.Duration // for the handshake, and for a request's header
	idle        time.Duration // between requests
	request     time.Duration // for a request and its answer
	stream      time.Duration // likewise where people follow something
	headerBytes int
	bodyBytes   int64 // no path takes a larger body
}

var defaultLimits = limits{
	strangers: 256, header: 10 * time.Second, idle: 90 * time.Second, request: time.Minute, stream: 4 * time.Hour,
	headerBytes: 1 << 20, bodyBytes: 64 << 10,
}

// streams are the first parts of the paths on which people may follow something
// for long, or wait for it: a large container's checkpoint takes minutes.
var streams = []string{"run", "exec", "attach", "portForward", "containerLogs", "logs", "debug", "checkpoint"}

// front is what every request meets first: its limits, a path that means one
// thing only, who asks and whether he may, and a line in the log. Without
// access anybody may.
func (s *Server) front(a *access, next http.Handler) http.Handler {
	if a != nil {
		next = s.options.Tracer.Handler(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.limit(w, r, a == nil)
		out := &answer{ResponseWriter: w, began: time.Now()}
		if s.log.Enabled(r.Context(), slog.LevelDebug) {
			asked := *r.URL // handlers cut it
			defer func() { out.log(s.log, r, asked.Path) }()
		}
		if to, plain := plainPath(r.URL); !plain {
			astray(out, r, to)
			return
		}
		if a != nil {
			if foreign(r) {
				refuse(out, r, http.StatusForbidden, "Another site's page has asked for this.")
				return
			}
			who, refused := a.judge(r)
			out.user, out.why = who, refused.why
			if refused.code != 0 {
				refuse(out, r, refused.code, refused.text)
				return
			}
			s.limit(w, r, true)
		}
		next.ServeHTTP(out, r)
	})
}

// limit bounds the time for a request, and its body. Who was not let in yet has as
// long as for a header: over HTTP/2 he may take no answer, and hold his requests.
func (s *Server) limit(w http.ResponseWriter, r *http.Request, letIn bool) {
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	long := s.sizes.request
	switch {
	case !letIn:
		long = s.sizes.header
	case slices.Contains(streams, first):
		long = s.sizes.stream
	}
	c, at := http.NewResponseController(w), time.Now().Add(long)
	_, _ = c.SetReadDeadline(at), c.SetWriteDeadline(at) // the server's own can do both
	if letIn && r.ContentLength != 0 {
		r.Body = http.MaxBytesReader(w, r.Body, s.sizes.bodyBytes)
	}
}

// plainPath says whether a path means one thing only, so that rights are judged
// by what is then routed; to is what it comes down to, "" for nothing.
func plainPath(u *url.URL) (to string, plain bool) {
	if !strings.HasPrefix(u.Path, "/") || strings.ContainsFunc(u.Path, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", false
	}
	if raw := strings.ToLower(u.RawPath); strings.Contains(raw, "%2f") || strings.Contains(raw, "%5c") {
		return "", false // a slash that is none
	}
	to = path.Clean(u.Path)
	if strings.HasSuffix(u.Path, "/") && to != "/" {
		to += "/"
	}
	return to, to == u.Path
}

// astray says where a path leads. That tells nobody anything: it is judged when
// it is asked for.
func astray(w http.ResponseWriter, r *http.Request, to string) {
	if to == "" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(w, r, http.StatusBadRequest, "The path has parts that don't belong into one.")
		return
	}
	u := url.URL{Path: to, RawQuery: r.URL.RawQuery}
	http.Redirect(w, r, u.String(), http.StatusMovedPermanently)
}

// foreign says that the page of another site had a browser ask for more than to
// look. A browser shows its user's certificate whoever has it ask, and /run takes
// a form. Such a page cannot add a token, nor what a proxy adds: through the
// apiserver people come from any page that it let in.
func foreign(r *http.Request) bool {
	looks := (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Header.Get("Upgrade") == ""
	if looks || r.Header.Get("Authorization") != "" || r.Header.Get("X-Forwarded-For") != "" {
		return false // nor can it read the answer
	}
	switch origin := r.Header.Get("Origin"); r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
		u, err := url.Parse(origin)
		return origin != "" && (err != nil || u.Host != r.Host)
	}
	return true
}

// refuse answers with exactly this text, and doesn't wait long for a body.
func refuse(w http.ResponseWriter, r *http.Request, code int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		h.Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second)) // the server's own can
	}
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text)) // nobody is left to tell
}

// answer notes what was answered.
type answer struct {
	http.ResponseWriter
	began time.Time
	user  string
	why   error // why the request was refused, where the answer doesn't say
	code  int
	bytes int64
}

func (a *answer) WriteHeader(code int) {
	if a.code == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		a.code = code
	}
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.code == 0 {
		a.code = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Flush sends what was written so far.
func (a *answer) Flush() { _ = http.NewResponseController(a.ResponseWriter).Flush() }

// Hijack takes the connection over; HTTP/2 has none to take.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil {
		a.code = http.StatusSwitchingProtocols
	}
	return c, rw, err
}

func (a *answer) log(log *slog.Logger, r *http.Request, path string) {
	code := a.code
	if code == 0 {
		code = http.StatusOK
	}
	attrs := []any{"user", a.user, "verb", r.Method, "path", path, "code", code, "took", time.Since(a.began), "bytes", a.bytes, "from", r.RemoteAddr}
	if a.why != nil {
		attrs = append(attrs, "error", a.why)
	}
	log.Debug("request", attrs...)
}
