package logs

import (
	"errors"
	"io"
	"math"
	"time"

	v1 "k8s.io/api/core/v1"
)

// errLimit says that limitBytes are written.
var errLimit = errors.New("limit reached")

// stampForm is that of timestamps in front of lines: all of one width.
const stampForm = "2006-01-02T15:04:05.000000000Z07:00"

// sink writes the lines that are asked for.
type sink struct {
	stdout, stderr io.Writer // nil for one that isn't asked for
	since          time.Time
	timestamps     bool
	left           int64 // bytes until the limit
	// middle says that the line last written goes on.
	middle bool
	// buf waits for the next flush, all of it for to.
	buf []byte
	to  io.Writer
}

func newSink(o v1.PodLogOptions, stdout, stderr io.Writer) *sink {
	s := &sink{stdout: stdout, stderr: stderr, timestamps: o.Timestamps, left: math.MaxInt64}
	if o.LimitBytes != nil {
		s.left = *o.LimitBytes
	}
	if o.SinceTime != nil {
		s.since = o.SinceTime.Time
	}
	if o.SinceSeconds != nil {
		const most = math.MaxInt64 / int64(time.Second) // centuries; more would turn into the future
		s.since = time.Now().Add(-time.Duration(min(*o.SinceSeconds, most)) * time.Second)
	}
	if o.Stream != nil && *o.Stream == v1.LogStreamStdout {
		s.stderr = nil
	}
	if o.Stream != nil && *o.Stream == v1.LogStreamStderr {
		s.stdout = nil
	}
	return s
}

func (s *sink) writer(stderr bool) io.Writer {
	if stderr {
		return s.stderr
	}
	return s.stdout
}

// begin says whether the text of a line is wanted, and writes its timestamp.
func (s *sink) begin(h head) (wanted bool, err error) {
	to := s.writer(h.stderr)
	if h.time.Before(s.since) || to == nil {
		return false, nil
	}
	if s.timestamps && !s.middle {
		err = s.put(append(h.time.AppendFormat(nil, stampForm), ' '), to)
	}
	s.middle = h.partial
	return true, err
}

// text writes a piece of a line that begin wanted.
func (s *sink) text(data []byte, stderr bool) error { return s.put(data, s.writer(stderr)) }

func (s *sink) put(data []byte, to io.Writer) error {
	if to != s.to {
		if err := s.flush(); err != nil {
			return err
		}
		s.to = to
	}
	data = data[:min(int64(len(data)), s.left)]
	s.left -= int64(len(data))
	s.buf = append(s.buf, data...)
	if s.left == 0 {
		return errors.Join(s.flush(), errLimit)
	}
	if len(s.buf) >= chunk {
		return s.flush()
	}
	return nil
}

// flush writes what waits.
func (s *sink) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	_, err := s.to.Write(s.buf)
	s.buf = s.buf[:0]
	return err
}
