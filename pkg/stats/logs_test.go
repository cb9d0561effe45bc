package stats

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Logs of containers count with what they take on disk, rotated ones too; without
// a log there is no figure.
func TestLogsOfContainers(t *testing.T) {
	n := newNode(t)
	p, quiet := n.add(t, "web", "sleep", "1000"), n.add(t, "quiet", "sleep", "1000")
	root := t.TempDir()
	s := newStats(t, n, &world{}, root)
	dir := filepath.Join(root, "logs", "default_web_"+string(p.Spec.UID), "main")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"0.log", "0.log.20260101-000000"} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte("x"), 64<<10), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := s.Logs()
	if len(got) != 1 || got[0].Pod != "web" || got[0].Container != "main" || got[0].UID != string(p.Spec.UID) || got[0].Bytes < 128<<10 || got[0].Bytes > 160<<10 {
		t.Errorf("%+v", got)
	}
	n.mu.Lock()
	n.pods = []pod.Pod{quiet}
	n.mu.Unlock()
	if got := s.Logs(); len(got) > 0 {
		t.Errorf("the pod is gone: %+v", got)
	}
}
