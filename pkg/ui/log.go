package ui

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/logs"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// The bounds of what is shown of logs: how many are read at once, how many last
// lines and how many bytes of each, and how long a browser may take to accept
// some more.
const (
	logStreams = 32
	logTail    = int64(500)
	logBytes   = int64(8 << 20)
	logStall   = 30 * time.Second
)

// log streams the last lines of a container's newest instance, or with previous
// that before it; with follow it goes on until the instance has ended. Each line
// is o for stdout or e for stderr, the time, a space and the text; one with !
// says why there are no more.
func (s *site) log(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		http.Error(w, fmt.Sprintf("%d logs are being read already: close a page", logStreams), http.StatusTooManyRequests)
		return
	}
	q := r.URL.Query()
	uid, name := r.PathValue("uid"), q.Get("container")
	i, err := s.instance(uid, name, q.Has("previous"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	path, err := s.Logs.LogPath(r.Context(), i.ID)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	l := logs.Log{Path: path}
	if q.Has("follow") {
		l.Ended = s.ended(ctx, uid, name, i.ID)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	s.copyLog(ctx, w, l)
}

// copyLog writes the log until it ends, the reader goes, or it was enough.
func (s *site) copyLog(ctx context.Context, w http.ResponseWriter, l logs.Log) {
	tail, limit := logTail, logBytes
	options := v1.PodLogOptions{Follow: l.Ended != nil, Timestamps: true, TailLines: &tail, LimitBytes: &limit}
	out := newPatient(w, s.stall)
	if err := out.flush(); err != nil { // the headers, though nothing was printed yet
		return
	}
	stdout, stderr := stream{lines: linesTo(out, 'o'), out: out}, stream{lines: linesTo(out, 'e'), out: out}
	err := logs.Read(ctx, l, options, &stdout, &stderr)
	err = errors.Join(err, stdout.rest(), stderr.rest())
	why := "end"
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		why = clean([]byte(err.Error()))
	case stdout.count+stderr.count >= limit:
		why = "limit"
	}
	fmt.Fprintf(out, "!%s\n", why)
	_ = out.flush() // nobody is left to tell
}

// instance is the one whose log is shown: the one that `kubectl logs` would read.
func (s *site) instance(uid, container string, previous bool) (*pod.Container, error) {
	p, ok := s.find(uid)
	if !ok {
		return nil, errors.New("the pod is gone")
	}
	return pod.LogOf(p, s.Pods.Node(), time.Now(), container, previous)
}

func (s *site) find(uid string) (pod.Pod, bool) {
	for _, p := range s.Pods.Pods() {
		if string(p.UID()) == uid {
			return p, true
		}
	}
	return pod.Pod{}, false
}

// ended is closed when the instance has ended, or the context has.
func (s *site) ended(ctx context.Context, uid, container, id string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Pods.Await(ctx, types.UID(uid), pod.Over(container, id))
	}()
	return done
}

// linesTo writes lines, cleaned, as those of that kind.
func linesTo(out *patient, kind byte) lines {
	return lines{to: func(line []byte, more int) error {
		text := clean(line)
		if more > 0 {
			text += fmt.Sprintf("… and %d bytes more", more)
		}
		_, err := fmt.Fprintf(out, "%c%s\n", kind, text)
		return err
	}}
}

// stream sends at once what it is given at once.
type stream struct {
	lines
	out   *patient
	count int64
}

func (s *stream) Write(data []byte) (int, error) {
	s.count += int64(len(data))
	n, err := s.lines.Write(data)
	return n, errors.Join(err, s.out.flush())
}

// patient writes to a browser that has stall to accept it.
type patient struct {
	*bufio.Writer
	control *http.ResponseController
	stall   time.Duration
}

// newPatient takes off the bounds that whoever serves has for other questions:
// who follows a log may have nothing to send or to be sent for hours.
func newPatient(w http.ResponseWriter, stall time.Duration) *patient {
	p := &patient{control: http.NewResponseController(w), stall: stall}
	_ = p.control.SetReadDeadline(time.Time{}) // what has no deadlines has none to take off
	p.Writer = bufio.NewWriterSize(inTime{w, p}, 32<<10)
	return p
}

// flush leaves no deadline behind: HTTP/2 would end a stream on which nothing is
// to be written when it passes.
func (p *patient) flush() error {
	err := p.Flush()
	_ = p.control.SetWriteDeadline(time.Now().Add(p.stall))
	err = errors.Join(err, p.control.Flush())
	_ = p.control.SetWriteDeadline(time.Time{})
	return err
}

// inTime gives each write its time anew. A connection that has no deadlines has
// none to extend.
type inTime struct {
	to io.Writer
	*patient
}

func (t inTime) Write(data []byte) (int, error) {
	_ = t.control.SetWriteDeadline(time.Now().Add(t.stall))
	return t.to.Write(data)
}
