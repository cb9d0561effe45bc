package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watchFiles runs a source on a path. It stops with the test.
func watchFiles(t testing.TB, path string, reread time.Duration) <-chan Update {
	out := make(chan Update)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = NewFile(FileOptions{Path: path, NodeName: "node1", Reread: reread}).Run(ctx, out) // ends with ctx
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return out
}

func next(t testing.TB, out <-chan Update) Update {
	t.Helper()
	select {
	case u := <-out:
		return u
	case <-time.After(time.Minute):
		t.Fatal("no update")
		return Update{}
	}
}

// nothing checks that no update comes for so long.
func nothing(t testing.TB, out <-chan Update, d time.Duration) {
	t.Helper()
	select {
	case u := <-out:
		t.Fatalf("update with %q, held %v, problems %v", imagesOf(u), u.Held, u.Problems)
	case <-time.After(d):
	}
}

func TestFilePathAppears(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	out := watchFiles(t, dir, time.Hour)
	if u := next(t, out); len(u.Pods)+len(u.Problems)+len(u.Held) > 0 {
		t.Errorf("an absent path gives %+v", u)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "a.yaml"), podYAML("one", "a:1"))
	if u := next(t, out); imagesOf(u) != "a:1" {
		t.Errorf("got %q", imagesOf(u))
	}
	// The folder is replaced by another one.
	other := filepath.Join(filepath.Dir(dir), "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(other, "b.yaml"), podYAML("two", "a:2"))
	if err := unix.Renameat2(unix.AT_FDCWD, other, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	for imagesOf(next(t, out)) != "a:2" {
	}
	write(t, filepath.Join(dir, "c.yaml"), podYAML("three", "a:3"))
	if u := next(t, out); imagesOf(u) != "a:2 a:3" {
		t.Errorf("got %q", imagesOf(u))
	}
}

func TestFileIgnores(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".hidden.yaml", "a.yaml~", "a.yaml.bak", ".a.yaml.swp", "a.swp", "a.tmp", "#a.yaml#", "4913"} {
		write(t, filepath.Join(dir, name), podYAML("one", "bad:1"))
	}
	write(t, filepath.Join(dir, "a.yaml"), podYAML("one", "a:1"))
	if u := next(t, watchFiles(t, dir, time.Hour)); imagesOf(u) != "a:1" || len(u.Problems) > 0 {
		t.Errorf("got %q, problems %v", imagesOf(u), u.Problems)
	}
}

func TestFileProblems(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Symlink(in("loop2.yaml"), in("loop1.yaml")))
	check(os.Symlink(in("loop1.yaml"), in("loop2.yaml")))
	check(os.Symlink(in("absent"), in("dangling.yaml")))
	check(os.Mkdir(in("sub"), 0o700))
	check(unix.Mkfifo(in("pipe.yaml"), 0o600))
	check(os.Symlink("/proc/kmsg", in("kernel.yaml"))) // a regular file that waits for more
	write(t, in("large.yaml"), "")
	check(os.Truncate(in("large.yaml"), maxManifest+1))
	check(os.Symlink(in("target"), in("link.yaml")))
	write(t, in("target"), podYAML("one", "a:1"))
	write(t, in("target2.yaml"), podYAML("two", "a:2"))
	out := watchFiles(t, dir, time.Hour)
	want := map[string]string{"loop1.yaml": "lead to each other", "loop2.yaml": "lead to each other", "dangling.yaml": "doesn't exist",
		"sub": "but a folder", "pipe.yaml": "no regular file", "kernel.yaml": "no regular file", "large.yaml": "more than 10 MiB"}
	var u Update
	for len(u.Problems) < len(want) {
		u = next(t, out)
		if imagesOf(u) != "a:1 a:1 a:2" {
			t.Errorf("got %q", imagesOf(u))
		}
	}
	for _, p := range u.Problems {
		if says := want[filepath.Base(p.Origin)]; says == "" || !strings.Contains(p.Message, says) {
			t.Errorf("unexpected problem: %v", p)
		}
	}
	if len(u.Held) != len(want)-3 { // nothing was ever in a folder, a pipe or the kernel's log
		t.Errorf("held %v", u.Held)
	}
}

// TestFileHalfWritten writes a manifest in two parts, the first of which is a
// whole pod, without closing it in between.
func TestFileHalfWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	write(t, path, podYAML("one", "a:1"))
	out := watchFiles(t, dir, time.Hour)
	if u := next(t, out); imagesOf(u) != "a:1" {
		t.Fatalf("got %q", imagesOf(u))
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	nothing(t, out, settle/4)
	fmt.Fprint(f, podYAML("one", "a:"))
	nothing(t, out, settle/4)
	fmt.Fprint(f, "")
	if _, err := f.WriteAt([]byte(podYAML("one", "a:2")), 0); err != nil {
		t.Fatal(err)
	}
	nothing(t, out, settle/4)
	closed := time.Now()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if u := next(t, out); imagesOf(u) != "a:2" {
		t.Errorf("got %q", imagesOf(u))
	}
	t.Logf("seen %v after it was closed", time.Since(closed))
	// Broken and mended within the time that is given: no error is told.
	write(t, path, "a: [\n")
	nothing(t, out, settle/4)
	write(t, path, podYAML("one", "a:3"))
	if u := next(t, out); imagesOf(u) != "a:3" || len(u.Held) > 0 {
		t.Errorf("got %q, held %v", imagesOf(u), u.Held)
	}
	// As some editors save: renamed away, then written anew.
	if err := os.Rename(path, path+"~"); err != nil {
		t.Fatal(err)
	}
	nothing(t, out, settle/4)
	write(t, path, podYAML("one", "a:4"))
	if u := next(t, out); imagesOf(u) != "a:4" {
		t.Errorf("got %q", imagesOf(u))
	}
	// Renamed away for good.
	if err := os.Rename(path, path+"~"); err != nil {
		t.Fatal(err)
	}
	if u := next(t, out); imagesOf(u) != "" || len(u.Held) > 0 {
		t.Errorf("got %q, held %v", imagesOf(u), u.Held)
	}
}

// TestFileBrokenAtStart: what a broken file gave to an earlier run isn't known,
// so the first update must hold it.
func TestFileBrokenAtStart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	write(t, path, "a: [\n")
	if u := next(t, watchFiles(t, dir, time.Hour)); len(u.Held) != 1 || u.Held[0] != path {
		t.Errorf("the first update holds %v", u.Held)
	}
}

func TestFileSwappedVolume(t *testing.T) {
	dir := t.TempDir()
	in := func(name ...string) string { return filepath.Join(append([]string{dir}, name...)...) }
	for version, image := range map[string]string{"..1": "a:1", "..2": "a:2"} {
		if err := os.Mkdir(in(version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, in(version, "a.yaml"), podYAML("one", image))
	}
	for from, to := range map[string]string{"..data": "..1", "a.yaml": "..data/a.yaml", "..next": "..2"} {
		if err := os.Symlink(to, in(from)); err != nil {
			t.Fatal(err)
		}
	}
	folder, single := watchFiles(t, dir, time.Hour), watchFiles(t, in("a.yaml"), time.Hour)
	for _, out := range []<-chan Update{folder, single} {
		if u := next(t, out); imagesOf(u) != "a:1" {
			t.Errorf("got %q", imagesOf(u))
		}
	}
	if err := os.Rename(in("..next"), in("..data")); err != nil {
		t.Fatal(err)
	}
	for _, out := range []<-chan Update{folder, single} {
		if u := next(t, out); imagesOf(u) != "a:2" || len(u.Pods) != 1 {
			t.Errorf("got %q", imagesOf(u))
		}
	}
}

// TestFileReread has no event to go by: the file is linked from elsewhere.
func TestFileReread(t *testing.T) {
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "a.yaml")
	write(t, elsewhere, podYAML("one", "a:1"))
	if err := os.Symlink(elsewhere, filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	out := watchFiles(t, dir, 50*time.Millisecond)
	next(t, out)
	nothing(t, out, 150*time.Millisecond)
	write(t, elsewhere, podYAML("one", "a:2"))
	if u := next(t, out); imagesOf(u) != "a:2" {
		t.Errorf("got %q", imagesOf(u))
	}
}

func TestFileThousandAtOnce(t *testing.T) {
	dir := t.TempDir()
	out := watchFiles(t, dir, time.Hour)
	next(t, out)
	go func() {
		for i := range 1000 {
			write(t, filepath.Join(dir, fmt.Sprintf("%04d.yaml", i)), podYAML(fmt.Sprintf("p%d", i), "a:1"))
		}
	}()
	start, updates := time.Now(), 0
	for u := (Update{}); len(u.Pods) < 1000; updates++ {
		u = next(t, out)
	}
	if updates > 100 {
		t.Errorf("%d updates", updates)
	}
	t.Logf("%d updates in %v", updates, time.Since(start))
}

// BenchmarkFileSeen is from the closing of one new file to its update, among a
// hundred others.
func BenchmarkFileSeen(b *testing.B) {
	dir := b.TempDir()
	for i := range 100 {
		write(b, filepath.Join(dir, fmt.Sprintf("%04d.yaml", i)), podYAML(fmt.Sprintf("p%d", i), "a:1"))
	}
	out := watchFiles(b, dir, time.Hour)
	next(b, out)
	path := filepath.Join(dir, "new.yaml")
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		nothing(b, out, 2*spread)
		b.StartTimer()
		write(b, path, podYAML("new", fmt.Sprintf("a:%d", i)))
		next(b, out)
	}
}
