package record

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"golang.org/x/sys/unix"
)

type sample struct {
	Name  string            `json:"name"`
	Count int               `json:"count"`
	Extra map[string]string `json:"extra,omitempty"`
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "records"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWriteReadDelete(t *testing.T) {
	s := open(t)
	for i := range 3 {
		want := sample{Name: "web", Count: i, Extra: map[string]string{"k": "v"}}
		if err := s.Write("pod-1", want); err != nil {
			t.Fatal(err)
		}
		got, err := Read[sample](s, "pod-1")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	info, err := os.Stat(filepath.Join(s.dir, "pod-1.json"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode().Perm())
	}
	for range 2 {
		if err := s.Delete("pod-1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Read[sample](s, "pod-1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read after delete: %v, want not exist", err)
	}
}

func TestFolderIsPrivateAndCleared(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, tmpPrefix+"123")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, want 0700", info.Mode().Perm())
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half-written file is still there: %v", err)
	}
}

// TestFolderIsMadeAgain: a folder that somebody removed costs what was in it,
// not the writes to come; a root that is gone stays so.
func TestFolderIsMadeAgain(t *testing.T) {
	s := open(t)
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Write("pod-1", sample{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	if got, err := Read[sample](s, "pod-1"); err != nil || got.Name != "web" {
		t.Errorf("read %+v, %v", got, err)
	}
	if err := os.RemoveAll(filepath.Dir(s.dir)); err != nil {
		t.Fatal(err)
	}
	if err := s.Write("pod-1", sample{Name: "web"}); err == nil {
		t.Error("a record was written without the root")
	}
}

func TestNamesCannotLeaveTheFolder(t *testing.T) {
	s := open(t)
	for _, name := range []string{"", ".", "..", "../x", "a/b", "/etc/x", ".hidden", "a\x00b", "a b", strings.Repeat("a", maxName+1)} {
		if err := s.Write(name, 1); err == nil {
			t.Errorf("Write(%q) succeeded", name)
		}
		if err := s.Delete(name); err == nil {
			t.Errorf("Delete(%q) succeeded", name)
		}
		if _, err := Read[int](s, name); err == nil {
			t.Errorf("Read(%q) succeeded", name)
		}
	}
}

// TestDamageIsNeverAccepted flips each bit of each byte and cuts the file at
// each length: a record is read back whole or not at all.
func TestDamageIsNeverAccepted(t *testing.T) {
	whole, err := encode(sample{Name: "web", Count: 7, Extra: map[string]string{"a": "b", "Ü": "\n"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decode[sample](whole); err != nil {
		t.Fatalf("the whole record: %v", err)
	}
	for i := range whole {
		for bit := range 8 {
			bad := bytes.Clone(whole)
			bad[i] ^= 1 << bit
			if v, err := decode[sample](bad); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d, bit %d flipped: got %+v, %v", i, bit, v, err)
			}
		}
		if v, err := decode[sample](whole[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: got %+v, %v", i, v, err)
		}
		long := append(bytes.Clone(whole[:i]), append([]byte{'x'}, whole[i:]...)...)
		if v, err := decode[sample](long); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte inserted at %d: got %+v, %v", i, v, err)
		}
	}
}

// TestSetAside does the same through the folder, at each byte.
func TestSetAside(t *testing.T) {
	s := open(t)
	whole, err := encode(sample{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write("good", sample{Name: "good"}); err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bad := bytes.Clone(whole[:i])
		if i%2 == 0 {
			bad = bytes.Clone(whole)
			bad[i] ^= 0x20 // what letter case would hide
		}
		if err := os.WriteFile(filepath.Join(s.dir, "bad.json"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		records, aside := All[sample](s)
		if d := cmp.Diff(map[string]sample{"good": {Name: "good"}}, records); d != "" {
			t.Fatalf("byte %d: %s", i, d)
		}
		if len(aside) != 1 || aside[0].Name != "bad" || !errors.Is(aside[0].Err, ErrCorrupt) {
			t.Fatalf("byte %d: set aside %+v", i, aside)
		}
		kept, err := os.ReadFile(aside[0].Path)
		if err != nil || !bytes.Equal(kept, bad) {
			t.Fatalf("byte %d: %s holds %q, %v", i, aside[0].Path, kept, err)
		}
	}
	kept, err := s.asides()
	if err != nil {
		t.Fatal(err)
	}
	if len(kept) != maxAside || kept[0].n != len(whole)-maxAside+1 {
		t.Errorf("kept %d from number %d on, want the newest %d", len(kept), kept[0].n, maxAside)
	}
}

func TestReadSetsAside(t *testing.T) {
	s := open(t)
	if err := s.Write("a", "a string"); err != nil {
		t.Fatal(err)
	}
	if _, err := Read[int](s, "a"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a string read as a number: %v", err)
	}
	if _, err := Read[string](s, "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read again: %v, want not exist", err)
	}
}

func TestOddFilesAreSetAside(t *testing.T) {
	s := open(t)
	outside := filepath.Join(t.TempDir(), "outside")
	content, err := encode(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(outside, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(s.dir, "link.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "dir.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfifo", filepath.Join(s.dir, "fifo.json")).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v: %s", err, out)
	}
	records, aside := All[int](s)
	if len(records) != 0 || len(aside) != 3 {
		t.Errorf("got %v, set aside %+v", records, aside)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("the link's target: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	whole, err := encode(sample{Name: "web", Count: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"version":1,"checksum":"","data":{}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		v, err := decode[any](content)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error is not ErrCorrupt: %v", err)
			}
			return
		}
		if _, err := encode(v); err != nil {
			t.Fatalf("decoded a value that can't be encoded: %v", err)
		}
	})
}

func TestLock(t *testing.T) {
	root := t.TempDir()
	release, err := Lock(root)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Lock(root)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("second lock: %v, want ErrLocked with our pid", err)
	}
	release()
	release()
	again, err := Lock(root)
	if err != nil {
		t.Fatalf("lock after release: %v", err)
	}
	again()
}

// An agent that is killed while it starts a process leaves its lock to that for
// a moment: who comes next waits for it.
func TestLockOfADeadAgent(t *testing.T) {
	root := t.TempDir()
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "nodeagent", "lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	left, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(left, dead.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(left.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(letGo/10, func() { _ = left.Close() })
	release, err := Lock(root)
	if err != nil {
		t.Fatal(err)
	}
	release()
}
