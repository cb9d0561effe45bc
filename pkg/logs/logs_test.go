package logs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// box is a container's log folder.
type box struct {
	t    *testing.T
	path string
}

func newBox(t *testing.T) *box {
	dir := filepath.Join(t.TempDir(), "ns_pod_uid", "main")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return &box{t, filepath.Join(dir, "0.log")}
}

func (b *box) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// add appends to the part of this suffix, "" being the newest.
func (b *box) add(suffix string, lines ...string) {
	b.t.Helper()
	f, err := os.OpenFile(b.path+suffix, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	b.must(err)
	_, err = f.WriteString(strings.Join(lines, ""))
	b.must(err)
	b.must(f.Close())
}

func (b *box) gzip(suffix string) {
	b.t.Helper()
	data, err := os.ReadFile(b.path + suffix)
	b.must(err)
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err = z.Write(data)
	b.must(err)
	b.must(z.Close())
	b.must(os.WriteFile(b.path+suffix+".gz", out.Bytes(), 0o644))
	b.must(os.Remove(b.path + suffix))
}

func (b *box) read(o v1.PodLogOptions) string {
	b.t.Helper()
	var out bytes.Buffer
	b.must(Read(context.Background(), Log{Path: b.path}, o, &out, &out))
	return out.String()
}

// at is a line of second n.
func at(n int, text string) string {
	return fmt.Sprintf("2026-01-02T15:04:%02d.000000001Z stdout F %s\n", n, text)
}

const (
	first  = ".20260102-150405"
	second = ".20260102-150406"
)

// rotatedBox has lines 0 to 5 in three parts.
func rotatedBox(t *testing.T) *box {
	b := newBox(t)
	b.add(first, at(0, "0"), at(1, "1"))
	b.gzip(first)
	b.add(second, at(2, "2"), at(3, "3"))
	b.add("", at(4, "4"), at(5, "5"))
	return b
}

func TestReadOptions(t *testing.T) {
	b := rotatedBox(t)
	b.add(first+".tmp", "half")
	b.add(".bak", at(9, "no part"))
	n := func(i int64) *int64 { return &i }
	stamp := metav1.NewTime(time.Date(2026, 1, 2, 15, 4, 3, 1, time.UTC))
	for name, c := range map[string]struct {
		o    v1.PodLogOptions
		want string
	}{
		"All":          {v1.PodLogOptions{}, "0\n1\n2\n3\n4\n5\n"},
		"Tail0":        {v1.PodLogOptions{TailLines: n(0)}, ""},
		"Tail1":        {v1.PodLogOptions{TailLines: n(1)}, "5\n"},
		"TailAll":      {v1.PodLogOptions{TailLines: n(2)}, "4\n5\n"},
		"TailOver":     {v1.PodLogOptions{TailLines: n(3)}, "3\n4\n5\n"},
		"TailIntoGzip": {v1.PodLogOptions{TailLines: n(5)}, "1\n2\n3\n4\n5\n"},
		"TailTooMany":  {v1.PodLogOptions{TailLines: n(50)}, "0\n1\n2\n3\n4\n5\n"},
		"Limit":        {v1.PodLogOptions{LimitBytes: n(5)}, "0\n1\n2"},
		"SinceTime":    {v1.PodLogOptions{SinceTime: &stamp}, "3\n4\n5\n"},
		"SinceSeconds": {v1.PodLogOptions{SinceSeconds: n(60)}, ""},
		"SinceEver":    {v1.PodLogOptions{SinceSeconds: n(math.MaxInt64)}, "0\n1\n2\n3\n4\n5\n"},
		"Timestamps":   {v1.PodLogOptions{TailLines: n(1), Timestamps: true}, "2026-01-02T15:04:05.000000001Z 5\n"},
		"TailAndLimit": {v1.PodLogOptions{TailLines: n(2), LimitBytes: n(1)}, "4"},
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			if got := b.read(c.o); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestBadOptions(t *testing.T) {
	n := func(i int64) *int64 { return &i }
	now, stdout, other := metav1.Now(), v1.LogStreamStdout, "Both"
	for field, o := range map[string]v1.PodLogOptions{
		"tailLines": {TailLines: n(-1)}, "limitBytes": {LimitBytes: n(0)}, "sinceSeconds": {SinceSeconds: n(0)},
		"either": {SinceSeconds: n(1), SinceTime: &now}, "stream": {Stream: &other}, "needs stream All": {Stream: &stdout, TailLines: n(1)},
	} {
		err := Read(context.Background(), Log{Path: newBox(t).path}, o, io.Discard, io.Discard)
		if !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// Pieces of a line are put together, and have one timestamp.
func TestSplitLines(t *testing.T) {
	b := newBox(t)
	b.add("", "2026-01-02T15:04:05Z stdout P one \n", "2026-01-02T15:04:06Z stdout P:x two \n", "2026-01-02T15:04:07Z stdout F three\n", "2026-01-02T15:04:08Z stdout F \n")
	if got := b.read(v1.PodLogOptions{}); got != "one two three\n\n" {
		t.Errorf("%q", got)
	}
	if got := b.read(v1.PodLogOptions{Timestamps: true}); got != "2026-01-02T15:04:05.000000000Z one two three\n2026-01-02T15:04:08.000000000Z \n" {
		t.Errorf("%q", got)
	}
}

func TestStreams(t *testing.T) {
	b := newBox(t)
	b.add("", at(0, "out"), "2026-01-02T15:04:05Z stderr F err\n", at(1, "out"))
	var out, errs bytes.Buffer
	b.must(Read(context.Background(), Log{Path: b.path}, v1.PodLogOptions{}, &out, &errs))
	if out.String() != "out\nout\n" || errs.String() != "err\n" {
		t.Errorf("%q, %q", &out, &errs)
	}
	stderr := v1.LogStreamStderr
	if got := b.read(v1.PodLogOptions{Stream: &stderr}); got != "err\n" {
		t.Errorf("stderr alone: %q", got)
	}
}

// Lines that are none of CRI's are left out, and those behind them shown.
func TestDamagedLines(t *testing.T) {
	b := newBox(t)
	b.add(first+".gz", "no gzip")
	b.add("", "\x00\x00\x00\n", "\n", at(0, "good"), "2026-01-02T15:04:05Z stdin F x\n", strings.Repeat("x", 1<<20)+"\n", "yesterday stdout F x\n", at(1, "too"), "2026-01-02T15:04:05Z stdout F unfinished")
	if got := b.read(v1.PodLogOptions{}); got != "good\ntoo\nunfinished" {
		t.Errorf("%q", got)
	}
}

// TestPieces: heads are read wherever the pieces of a log begin; the longest is the
// last that counts.
func TestPieces(t *testing.T) {
	longest := "2026-01-02T15:04:05Z stdout F:"
	longest += strings.Repeat("x", maxHead-len(longest))
	log := []byte(at(0, "a") + longest + " b\n" + longest + "x c\n" + "\n" + longest + "\n" + "no line\n" + "2026-01-02T15:04:05Z stdout P d\n" + at(1, "e"))
	want := "a\nb\nde\n"
	for size := range len(log) {
		var out bytes.Buffer
		p := parser{out: newSink(v1.PodLogOptions{}, &out, &out)}
		for piece := range slices.Chunk(log, size+1) {
			if err := p.feed(piece); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.out.flush(); err != nil || out.String() != want || p.bad != 4 {
			t.Errorf("in pieces of %d: %q, %d bad, %v; want %q, 4 bad", size+1, &out, p.bad, err, want)
		}
	}
}

// What is no regular file of the log's own folder is not read.
func TestForeignFiles(t *testing.T) {
	for name, make := range map[string]func(b *box) error{
		"LinkOut":   func(b *box) error { return os.Symlink("/etc/passwd", b.path) },
		"Directory": func(b *box) error { return os.Mkdir(b.path, 0o755) },
		"Missing":   func(*box) error { return nil },
		"LinkedFolder": func(b *box) error {
			dir := filepath.Dir(b.path)
			if err := os.Remove(dir); err != nil {
				return err
			}
			other := b.t.TempDir()
			if err := os.WriteFile(filepath.Join(other, "0.log"), []byte(at(0, "x")), 0o644); err != nil {
				return err
			}
			return os.Symlink(other, dir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.must(make(b))
			var out bytes.Buffer
			err := Read(context.Background(), Log{Path: b.path}, v1.PodLogOptions{}, &out, &out)
			if err == nil || out.Len() > 0 || !strings.Contains(err.Error(), "open log") {
				t.Errorf("%v, %q", err, &out)
			}
		})
	}
}

// follower collects what a Read that follows has written.
type follower struct {
	mu   sync.Mutex
	text []byte
	more chan struct{}
	end  chan struct{}
	done chan error
}

func (f *follower) Write(data []byte) (int, error) {
	f.mu.Lock()
	f.text = append(f.text, data...)
	f.mu.Unlock()
	select {
	case f.more <- struct{}{}:
	default:
	}
	return len(data), nil
}

func (f *follower) got() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(f.text)
}

func (b *box) follow(ctx context.Context, o v1.PodLogOptions) *follower {
	f := &follower{more: make(chan struct{}, 1), end: make(chan struct{}), done: make(chan error, 1)}
	o.Follow = true
	go func() { f.done <- Read(ctx, Log{Path: b.path, Ended: f.end}, o, f, f) }()
	return f
}

func (f *follower) await(t *testing.T, want string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for f.got() != want {
		select {
		case <-f.more:
		case <-late:
			t.Fatalf("%q, want %q", f.got(), want)
		}
	}
}

func (f *follower) finish(t *testing.T, want string) {
	t.Helper()
	close(f.end)
	if err := <-f.done; err != nil {
		t.Error(err)
	}
	if got := f.got(); got != want {
		i := 0
		for i < len(got) && i < len(want) && got[i] == want[i] {
			i++
		}
		t.Errorf("from byte %d on: %.80q, want %.80q", i, got[i:], want[i:])
	}
}

func TestFollow(t *testing.T) {
	b := rotatedBox(t)
	tail := int64(1)
	f := b.follow(t.Context(), v1.PodLogOptions{TailLines: &tail})
	f.await(t, "5\n")
	b.add("", at(6, "6"))
	f.await(t, "5\n6\n")
	b.add("", "2026-01-02T15:04:07Z stdout F ha") // of a line that is being written
	b.add("", "lf\n")
	f.await(t, "5\n6\nhalf\n")
	f.finish(t, "5\n6\nhalf\n")
}

// The runtime may write to a rotated file until it closes it, after the next
// one is there.
func TestFollowOverRotation(t *testing.T) {
	b := newBox(t)
	old, err := os.OpenFile(b.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	b.must(err)
	say := func(f *os.File, n int) {
		_, err := f.WriteString(at(n, fmt.Sprint(n)))
		b.must(err)
	}
	say(old, 0)
	f := b.follow(t.Context(), v1.PodLogOptions{})
	f.await(t, "0\n")
	b.must(os.Rename(b.path, b.path+first))
	say(old, 1)
	f.await(t, "0\n1\n")
	b.add("", at(3, "3"))
	say(old, 2)
	f.await(t, "0\n1\n2\n")
	b.must(old.Close())
	f.await(t, "0\n1\n2\n3\n")
	b.gzip(first)
	f.finish(t, "0\n1\n2\n3\n")
}

// A reader that is held up goes on with the parts that came meanwhile, though
// its own was compressed or removed.
func TestFollowFallsBehind(t *testing.T) {
	for name, change := range map[string]func(b *box){
		"Compressed": func(b *box) { b.gzip(first) },
		"Removed":    func(b *box) { b.must(os.Remove(b.path + first)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.add("", at(0, "0"))
			r, w := io.Pipe()
			end := make(chan struct{})
			done := make(chan error, 1)
			go func() {
				err := Read(t.Context(), Log{Path: b.path, Ended: end}, v1.PodLogOptions{Follow: true}, w, w)
				w.Close()
				done <- err
			}()
			buf := make([]byte, 1)
			_, err := io.ReadFull(r, buf) // it hangs in its first write
			b.must(err)
			b.must(os.Rename(b.path, b.path+first))
			b.add(second, at(1, "1"))
			b.add("", at(2, "2"))
			change(b)
			close(end)
			rest, err := io.ReadAll(r)
			b.must(err)
			b.must(<-done)
			if got := string(buf) + string(rest); got != "0\n1\n2\n" {
				t.Errorf("%q", got)
			}
		})
	}
}

// A reader that begins just after a rotation, or fell behind by one, waits for
// the last line of the rotated file.
func TestFollowWaitsForTheRotatedFile(t *testing.T) {
	b := newBox(t)
	old, err := os.OpenFile(b.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	b.must(err)
	_, err = old.WriteString(at(0, "0"))
	b.must(err)
	b.must(os.Rename(b.path, b.path+first))
	b.add("", at(2, "2"))
	f := b.follow(t.Context(), v1.PodLogOptions{})
	f.await(t, "0\n")
	_, err = old.WriteString(at(1, "1"))
	b.must(err)
	b.must(old.Close())
	f.await(t, "0\n1\n2\n")
	f.finish(t, "0\n1\n2\n")
}

// A writer under rotation, as containerd's and ours: every line arrives once.
func TestFollowBusyWriter(t *testing.T) {
	b := newBox(t)
	cur, err := os.OpenFile(b.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	b.must(err)
	f := b.follow(t.Context(), v1.PodLogOptions{})
	var want strings.Builder
	for i := range 40 {
		for j := range 200 {
			text := fmt.Sprintf("%d/%d", i, j)
			fmt.Fprintln(&want, text)
			_, err := cur.WriteString(at(0, text))
			b.must(err)
		}
		part := fmt.Sprintf(".20260102-1504%02d", i)
		b.must(os.Rename(b.path, b.path+part))
		next, err := os.OpenFile(b.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		b.must(err)
		fmt.Fprintln(&want, "late", i)
		_, err = cur.WriteString(at(0, fmt.Sprint("late ", i)))
		b.must(err)
		b.must(cur.Close())
		cur = next
		if i > 2 && i%3 == 0 {
			b.gzip(fmt.Sprintf(".20260102-1504%02d", i-1))
		}
	}
	b.must(cur.Close())
	f.finish(t, want.String())
}

func TestFollowEndsWithContext(t *testing.T) {
	b := newBox(t)
	b.add("", at(0, "0"))
	ctx, cancel := context.WithCancel(t.Context())
	f := b.follow(ctx, v1.PodLogOptions{})
	f.await(t, "0\n")
	cancel()
	if err := <-f.done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A line of any length needs the same memory.
func TestLongLine(t *testing.T) {
	b := newBox(t)
	b.add("", "2026-01-02T15:04:05Z stdout F ")
	b.must(os.Truncate(b.path, 1<<30)) // of zeroes
	var n counter
	allocated := testing.Benchmark(func(tb *testing.B) {
		for tb.Loop() {
			n = 0
			b.must(Read(context.Background(), Log{Path: b.path}, v1.PodLogOptions{}, &n, &n))
		}
	}).AllocedBytesPerOp()
	if want := 1<<30 - len("2026-01-02T15:04:05Z stdout F "); int(n) != want {
		t.Errorf("%d bytes, want %d", n, want)
	}
	if allocated > 1<<20 {
		t.Errorf("%d bytes were allocated", allocated)
	}
}

type counter int

func (c *counter) Write(data []byte) (int, error) {
	*c += counter(len(data))
	return len(data), nil
}

// Cut anywhere, a log reads the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte(at(0, "x")+"2026-01-02T15:04:05Z stderr P a\n2026-01-02T15:04:05Z stderr F b\n\x00\nx y z\n"), 7, true)
	f.Add([]byte("2026-01-02T15:04:05Z stdout  \n  \n"), 1, false)
	f.Fuzz(func(t *testing.T, log []byte, cut int, timestamps bool) {
		read := func(size int) (string, int) {
			var out bytes.Buffer
			p := parser{out: newSink(v1.PodLogOptions{Timestamps: timestamps}, &out, &out)}
			for rest := log; len(rest) > 0; {
				n := min(max(size, 1), len(rest))
				if err := errors.Join(p.feed(rest[:n]), p.out.flush()); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			return out.String(), p.bad
		}
		whole, bad := read(len(log))
		if cutUp, bad2 := read(cut); cutUp != whole || bad != bad2 {
			t.Errorf("cut: %q, %d bad, whole: %q, %d bad", cutUp, bad2, whole, bad)
		}
		if !timestamps && len(whole) > len(log) {
			t.Errorf("%d bytes of %d", len(whole), len(log))
		}
	})
}

// Reading costs little more than the disk does.
func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "0.log")
	if err := os.WriteFile(path, bytes.Repeat([]byte(at(0, strings.Repeat("x", 100))), 100_000), 0o644); err != nil {
		b.Fatal(err)
	}
	info, _ := os.Stat(path)
	b.SetBytes(info.Size())
	for b.Loop() {
		if err := Read(context.Background(), Log{Path: path}, v1.PodLogOptions{}, io.Discard, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

// All who follow share one of the kernel's instances, of which there are few,
// and it is given back.
func TestManyFollow(t *testing.T) {
	b := newBox(t)
	b.add("", at(0, "0"))
	const count = 300 // fs.inotify.max_user_instances is mostly 128
	var all []*follower
	for range count {
		all = append(all, b.follow(t.Context(), v1.PodLogOptions{}))
	}
	for _, f := range all {
		f.await(t, "0\n")
	}
	if n := instances(t); n != 1 {
		t.Errorf("%d instances of inotify for %d followers", n, count)
	}
	for _, f := range all[1:] {
		f.finish(t, "0\n")
	}
	b.add("", at(1, "1"))
	all[0].await(t, "0\n1\n")
	b.must(os.Rename(b.path, b.path+first))
	b.add("", at(2, "2"))
	all[0].await(t, "0\n1\n2\n")
	all[0].finish(t, "0\n1\n2\n")
	if n := instances(t); n != 0 {
		t.Errorf("%d instances of inotify are left", n)
	}
}

// instances are the instances of inotify that this process has.
func instances(t *testing.T) (n int) {
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == "anon_inode:inotify" {
			n++
		}
	}
	return n
}
