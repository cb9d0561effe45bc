// Package logs reads what containers print, from the files that CRI runtimes
// write: /var/log/pods/<namespace>_<name>_<uid>/<container>/<n>.log, one line
// as "<time> stdout|stderr P|F <text>", and the files that rotation made of
// older parts (behaviour rows 1.11-4, 1.11-6).
//
// Each Read is on its own: it needs the same small memory for a log of any size
// and lines of any length, and is woken by the kernel when a log grows. All that
// follow share one of the kernel's watches.
package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Log is the log of one instance of a container.
type Log struct {
	// Path is where CRI's container status says it is.
	Path string
	// Ended is closed when the instance has ended. A Read that follows then
	// ends when everything was read. nil means that it has ended.
	Ended <-chan struct{}
}

// ErrOptions is wrapped by errors that say which option cannot be met.
var ErrOptions = errors.New("invalid log options")

const (
	// chunk is how much is read at once.
	chunk = 64 << 10
	// settle is how long a rotated file without news may still be written to,
	// when its closing was not seen: the runtime opens the next file before it
	// has let go of the last.
	settle = time.Second
	// recheck is how often a log is looked at when the kernel has no watch
	// left to give (fs.inotify.max_user_watches).
	recheck = time.Second
)

// Read writes the log to stdout and stderr, which may be the same, as the
// options say (v1.PodLogOptions; which container and whether its previous
// instance is for the caller to find). All parts count that rotation left,
// oldest first. A line that the runtime split is put together again; each piece
// counts as a line for tailLines, as it does for a kubelet.
//
// Nothing is written before the log is open; then, at once, an empty slice to
// stdout (or stderr, if that alone is asked for), for who waits for a sign.
//
// It returns nil when all was read, limitBytes is reached, or, following, the
// instance has ended; and the context's error when that ends. A writer that
// blocks holds up this Read only; who owns it has to unblock it.
func Read(ctx context.Context, l Log, o v1.PodLogOptions, stdout, stderr io.Writer) error {
	if err := Check(o); err != nil {
		return err
	}
	dir, err := openFolder(filepath.Dir(l.Path), filepath.Base(l.Path))
	if err != nil {
		return err
	}
	defer dir.close()
	r := &reader{dir: dir, follow: o.Follow, ended: l.Ended, out: newSink(o, stdout, stderr)}
	defer r.close()
	r.line.out = r.out
	if err := r.open(o.TailLines); err != nil {
		return err
	}
	if _, err := r.out.writer(r.out.stdout == nil).Write(nil); err != nil {
		return err
	}
	err = r.run(ctx)
	if r.line.bad > 0 {
		slog.WarnContext(ctx, "a log has lines that are not in CRI's form: they were left out", "log", l.Path, "lines", r.line.bad)
	}
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

// Check says what an apiserver would say of the options; it wraps ErrOptions.
func Check(o v1.PodLogOptions) error {
	bad := func(field, why string) error { return fmt.Errorf("%w: %s: %s", ErrOptions, field, why) }
	switch {
	case o.TailLines != nil && *o.TailLines < 0:
		return bad("tailLines", "must not be negative")
	case o.LimitBytes != nil && *o.LimitBytes < 1:
		return bad("limitBytes", "must be greater than 0")
	case o.SinceSeconds != nil && o.SinceTime != nil:
		return bad("sinceSeconds", "give either sinceSeconds or sinceTime")
	case o.SinceSeconds != nil && *o.SinceSeconds < 1:
		return bad("sinceSeconds", "must be greater than 0")
	case o.Stream == nil || *o.Stream == v1.LogStreamAll:
		return nil
	case *o.Stream != v1.LogStreamStdout && *o.Stream != v1.LogStreamStderr:
		return bad("stream", "must be All, Stdout or Stderr")
	case o.TailLines != nil:
		return bad("tailLines", "needs stream All")
	}
	return nil
}

// reader reads one log.
type reader struct {
	dir    *folder
	follow bool
	ended  <-chan struct{}
	// parts are open, oldest first. The first is being read.
	parts []*part
	line  parser
	out   *sink
	watch *watch
}

func (r *reader) close() {
	closeAll(r.parts)
	if r.watch != nil {
		r.watch.close()
	}
}

// open opens the parts and goes to where reading begins.
func (r *reader) open(tail *int64) (err error) {
	if r.follow {
		// Before anything is read, so that no news is missed.
		if r.watch, err = newWatch(r.dir.handle); err != nil {
			slog.Warn("a log is looked at each second, as the kernel gives no watch: raise fs.inotify.max_user_watches and max_user_instances", "error", err)
		}
	}
	if r.parts, err = r.dir.open(); err != nil {
		return err
	}
	if tail != nil {
		if r.parts, err = tailOf(r.parts, *tail); err != nil {
			return err
		}
	}
	if r.follow {
		closeAll(r.oneByOne())
	} else {
		r.parts[len(r.parts)-1].stopAtSize() // a busy writer must not keep us for ever
	}
	return r.watchFile()
}

// oneByOne leaves the parts behind the first for later, and returns them: each
// may have been rotated so lately that its writer has not let go of it yet.
func (r *reader) oneByOne() (later []*part) {
	later, r.parts = r.parts[1:], r.parts[:1]
	return later
}

// watchFile has the newest part watched.
func (r *reader) watchFile() error {
	if r.watch == nil {
		return nil
	}
	return r.watch.follow(r.parts[len(r.parts)-1].file)
}

// run reads to the end, which for one that follows is that of the instance.
func (r *reader) run(ctx context.Context) error {
	for {
		// What is true before reading is true of all that is read.
		over := isClosed(r.ended)
		behind := len(r.parts) > 1
		next, pause, err := r.next(over)
		if err != nil {
			return err
		}
		held, err := r.drain(ctx, over)
		if err := errors.Join(err, r.out.flush()); err != nil {
			closeAll(next)
			return err
		}
		switch {
		case held > 0:
			if err := r.wait(ctx, held); err != nil {
				return err
			}
		case behind: // look anew at what is the newest now
		case len(next) > 0:
			closeAll(r.parts)
			r.parts = next
			closeAll(r.oneByOne())
			r.line.reset()
			if err := r.watchFile(); err != nil {
				return err
			}
		case !r.follow || over:
			return nil
		default:
			if err := r.wait(ctx, pause); err != nil {
				return err
			}
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	if c == nil {
		return true
	}
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// next opens what came after the newest part, once nothing more is written to
// that. Otherwise it may say when to look again.
func (r *reader) next(over bool) (parts []*part, pause time.Duration, err error) {
	if !r.follow || len(r.parts) > 1 {
		return nil, 0, nil
	}
	last := r.parts[0]
	if !r.dir.replaced(last) {
		return nil, 0, nil
	}
	if !over && (r.watch == nil || !r.watch.closed()) {
		if left, err := last.unsettled(); left > 0 || err != nil {
			return nil, left, err
		}
	}
	parts, err = r.dir.openAfter(last)
	return parts, 0, err
}

// drain reads all parts to their ends; the last stays open. One that was rotated
// only now is held: the runtime may still have a line for it.
func (r *reader) drain(ctx context.Context, over bool) (held time.Duration, err error) {
	buf := make([]byte, chunk)
	for {
		p := r.parts[0]
		if r.follow && !over && len(r.parts) > 1 {
			if held, err = p.unsettled(); err != nil {
				return 0, err
			}
		}
		if err := r.drainPart(ctx, p, buf); err != nil {
			return 0, err
		}
		if held > 0 || len(r.parts) == 1 {
			return held, nil
		}
		r.line.reset()
		r.parts = r.parts[1:]
		p.file.Close() // it was only read
	}
}

func (r *reader) drainPart(ctx context.Context, p *part, buf []byte) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := p.Read(buf)
		if werr := r.line.feed(buf[:n]); werr != nil {
			return werr
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && p.compressed():
			slog.WarnContext(ctx, "a rotated log is damaged: the rest of it was left out", "log", p.name, "error", err)
			return nil
		case err != nil:
			return fmt.Errorf("read log %s: %w", p.name, err)
		}
	}
}

// wait returns when there may be news.
func (r *reader) wait(ctx context.Context, pause time.Duration) error {
	var news <-chan struct{}
	if r.watch != nil {
		news = r.watch.news
	} else if pause == 0 {
		pause = recheck
	}
	var timer <-chan time.Time
	if pause > 0 {
		t := time.NewTimer(pause)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ended:
	case <-news:
	case <-timer:
	}
	return nil
}
