package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// onFileSystems runs the test on a disk and on a tmpfs.
func onFileSystems(t *testing.T, test func(t *testing.T, dir string)) {
	t.Run("disk", func(t *testing.T) { test(t, t.TempDir()) })
	t.Run("tmpfs", func(t *testing.T) {
		dir := t.TempDir()
		t.Cleanup(func() { unmountAll(t, dir) })
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		test(t, dir)
	})
}

func writeTo(t *testing.T, dir string, files payload) error {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	return (&writer{root: root}).write(t.Context(), files)
}

func mustWrite(t *testing.T, dir string, files payload) {
	t.Helper()
	if err := writeTo(t, dir, files); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(texts(files), read(t, dir)); d != "" {
		t.Errorf("what is shown: %s", d)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	hidden := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			hidden++
		}
	}
	if hidden != 2 {
		t.Errorf("%d names of the writer's own, want ..data and its folder: %v", hidden, entries)
	}
}

func plain(text string) file { return file{data: []byte(text), mode: 0o644} }

func TestAtomicWriter(t *testing.T) {
	onFileSystems(t, func(t *testing.T, dir string) {
		steps := []payload{
			{},
			{"a": plain("1"), "b": plain("")},
			{"a": plain("1"), "b": plain("x")},
			{"a": {data: []byte("1"), mode: 0o400}},
			{"a/b/c": plain("deep"), "a/d": plain("")},
			{"a/b": plain("now a file")},
			{"a": plain("now a file"), strings.Repeat("n", 255): plain("")},
			{},
		}
		shown := "none"
		for i, files := range steps {
			mustWrite(t, dir, files)
			now, err := os.Readlink(filepath.Join(dir, dataLink))
			if err != nil || now == shown {
				t.Errorf("step %d shows %s, %v", i, now, err)
			}
			mustWrite(t, dir, files)
			if shown, err = os.Readlink(filepath.Join(dir, dataLink)); err != nil || now != shown {
				t.Errorf("step %d was written twice: %s, %s, %v", i, now, shown, err)
			}
		}
	})
}

// What others left or put into the folder is neither followed nor in the way.
func TestAtomicWriterStaysInside(t *testing.T) {
	onFileSystems(t, func(t *testing.T, dir string) {
		outside, precious := precious(t)
		for name, put := range map[string]func() error{
			"data is a link out":      func() error { return os.Symlink(outside, filepath.Join(dir, dataLink)) },
			"data is a link up":       func() error { return os.Symlink("..", filepath.Join(dir, dataLink)) },
			"data leads to nothing":   func() error { return os.Symlink("..gone", filepath.Join(dir, dataLink)) },
			"new data is a link out":  func() error { return os.Symlink(outside, filepath.Join(dir, newLink)) },
			"new data is a folder":    func() error { return os.MkdirAll(filepath.Join(dir, newLink, "x"), 0o755) },
			"a name is a link out":    func() error { return os.Symlink(outside, filepath.Join(dir, "a")) },
			"a name is a file":        func() error { return os.WriteFile(filepath.Join(dir, "a"), nil, 0o600) },
			"a folder of a cut write": func() error { return os.MkdirAll(filepath.Join(dir, "..2001", "x"), 0o700) },
			"a link of ours out":      func() error { return os.Symlink(outside, filepath.Join(dir, "..2002")) },
			"the data's files changed": func() error {
				if err := writeTo(t, dir, payload{"a": plain("1")}); err != nil {
					return err
				}
				name := filepath.Join(dir, dataLink, "a")
				return errors.Join(os.Remove(name), os.Symlink(precious, name))
			},
		} {
			if err := errors.Join(os.RemoveAll(filepath.Join(dir, dataLink)), os.RemoveAll(filepath.Join(dir, "a")), put()); err != nil {
				t.Fatal(name, err)
			}
			t.Run(name, func(t *testing.T) {
				mustWrite(t, dir, payload{"a": plain("1"), "b/c": plain("2")})
				wantContent(t, precious, "precious")
			})
		}
		// What is not the writer's stays.
		link := filepath.Join(dir, "mine")
		if err := errors.Join(os.Symlink("elsewhere", link), os.Mkdir(filepath.Join(dir, "mount"), 0o755)); err != nil {
			t.Fatal(err)
		}
		if err := writeTo(t, dir, payload{}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"mine", "mount"} {
			if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
	})
}

// A write for which there is no room shows what was there, and leaves nothing.
func TestAtomicWriterWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	t.Cleanup(func() { unmountAll(t, dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	small := payload{"a": plain("old"), "gone": plain("")}
	mustWrite(t, dir, small)
	for range 5 {
		if err := writeTo(t, dir, payload{"a": plain("new"), "b": plain(strings.Repeat("x", 100<<10))}); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("got %v, want no space", err)
		}
	}
	if d := cmp.Diff(texts(small), read(t, dir)); d != "" {
		t.Error(d)
	}
	mustWrite(t, dir, payload{"a": plain(strings.Repeat("y", 40<<10))})
}

// generation is a payload whose files all say which one it is; even ones have
// a file that odd ones don't have.
func generation(n int) payload {
	out := payload{"n": plain(strconv.Itoa(n)), "deep/er/n": plain(strconv.Itoa(n)), fmt.Sprintf("only/%d", n%2): plain(strconv.Itoa(n))}
	for i := range 5 {
		out[fmt.Sprintf("file%d", i)] = plain(strings.Repeat(strconv.Itoa(n)+"\n", 200))
	}
	return out
}

// writeGenerations is the process that TestAtomicWriterKilledAnywhere kills.
func writeGenerations(dir, from string) {
	n, err := strconv.Atoi(from)
	for ; err == nil; n++ {
		var root *os.Root
		if root, err = os.OpenRoot(dir); err == nil {
			err = (&writer{root: root}).write(context.Background(), generation(n))
			_ = root.Close()
		}
		if err == nil {
			fmt.Println(n)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// shownNow reads all files through one opening of the data and says which
// generation they are of.
func shownNow(t *testing.T, dir string) int {
	t.Helper()
	root, err := os.OpenRoot(filepath.Join(dir, dataLink))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	text, err := root.ReadFile("n")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range generation(n) {
		if got, err := root.ReadFile(name); err != nil || string(got) != string(want.data) {
			t.Errorf("%s of generation %d: %.20q, %v", name, n, got, err)
		}
	}
	return n
}

// TestAtomicWriterKilledAnywhere kills a writer at random moments: what is shown
// is whole, and the newest or the one before; the next write clears away the rest.
func TestAtomicWriterKilledAnywhere(t *testing.T) {
	onFileSystems(t, func(t *testing.T, dir string) {
		mustWrite(t, dir, generation(0))
		n, cut := 0, 0
		for range 40 {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "NODEAGENT_TEST_WRITE="+dir, "NODEAGENT_TEST_FROM="+strconv.Itoa(n+1))
			var said strings.Builder
			cmd.Stdout = &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-time.After(15*time.Millisecond + time.Duration(rand.IntN(20000))*time.Microsecond)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed
			last := n
			if lines := strings.Fields(said.String()); len(lines) > 0 {
				var err error
				if last, err = strconv.Atoi(lines[len(lines)-1]); err != nil {
					t.Fatal(err)
				}
			}
			if n = shownNow(t, dir); n != last && n != last+1 {
				t.Fatalf("generation %d is shown after %d", n, last)
			}
			for name := range generation(n) {
				if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
					t.Errorf("generation %d: %v", n, err)
				}
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(entries) != 9 {
				cut++
			}
		}
		if cut == 0 {
			t.Error("no kill came while something was written")
		}
		t.Logf("%d generations, %d kills left something", n, cut)
		mustWrite(t, dir, generation(n+1))
		mustWrite(t, dir, payload{})
	})
}

// TestReadersSeeNoHalf reads while generations change.
func TestReadersSeeNoHalf(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, dir, generation(0))
	stop := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			// A file that every generation has is always there, and whole.
			data, err := os.ReadFile(filepath.Join(dir, "file3"))
			lines := strings.Split(strings.TrimSpace(string(data)), "\n")
			if err == nil && (len(lines) != 200 || lines[0] != lines[199]) {
				err = fmt.Errorf("%d lines, from %s to %s", len(lines), lines[0], lines[len(lines)-1])
			}
			// Between finding the folder and the file in it the folder may go.
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed <- err
				return
			}
		}
	}()
	for n := 1; n < 300; n++ {
		if err := writeTo(t, dir, generation(n)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Error(err)
	}
}
