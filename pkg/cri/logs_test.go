package cri

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func touch(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tree is every file, link and folder below dir.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		out = append(out, strings.TrimPrefix(path, dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out[1:]
}

func TestLogNames(t *testing.T) {
	c := dialed(t, t.TempDir(), "/none")
	logs := filepath.Join(c.opts.Pods.LogsDir, "default_web_u1")
	for _, name := range []string{"main/0.log", "main/2.log.20260102-150405.gz", "main/1.log", "main/x9.log", "side/10.log", "side/99999999999.log", "none/other", "stray"} {
		touch(t, filepath.Join(logs, name), "")
	}
	got := c.LoggedRestarts("default", "web", "u1")
	if len(got) != 2 || got["main"] != 2 || got["side"] != 10 {
		t.Errorf("logged restarts %v", got)
	}
	if got = c.LoggedRestarts("default", "other", "u1"); len(got) != 0 {
		t.Errorf("logged restarts of a pod without logs %v", got)
	}
	link := filepath.Base(c.logLink("default", "web", "main", strings.Repeat("a", 300)))
	if len(link) != 255 || !strings.HasPrefix(link, "web_default_main-a") || !strings.HasSuffix(link, "a.log") {
		t.Errorf("long link is %q of %d", link, len(link))
	}
}

// Only the newest instance's logs outlive their container.
func TestDropLog(t *testing.T) {
	c := dialed(t, t.TempDir(), "/none")
	logs := filepath.Join(c.opts.Pods.LogsDir, "default_web_u1")
	for _, name := range []string{"0.log", "1.log", "1.log.20260102-150405", "1.log.20260102-150406.gz", "11.log"} {
		touch(t, filepath.Join(logs, "main", name), "")
	}
	for _, attempt := range []uint32{1, 11, 5} {
		if err := c.dropLog("default", "web", "u1", "main", attempt, false); err != nil {
			t.Error(err)
		}
	}
	if got := tree(t, logs); !slices.Equal(got, []string{"/main", "/main/0.log", "/main/11.log"}) {
		t.Errorf("left are %v", got)
	}
	if err := c.dropLog("default", "web", "u1", "main", 11, true); err != nil {
		t.Error(err)
	}
	if got := tree(t, logs); !slices.Equal(got, []string{"/main", "/main/0.log"}) {
		t.Errorf("after the removal of one that never ran: %v", got)
	}
	if err := c.dropLog("default", "web", "none", "main", 0, false); err != nil {
		t.Errorf("without a folder: %v", err)
	}
}

func TestRemoveLogs(t *testing.T) {
	dir := t.TempDir()
	c := dialed(t, dir, "/none")
	logs, links := c.opts.Pods.LogsDir, c.opts.LinksDir
	touch(t, filepath.Join(dir, "victim", "file"), "precious")
	touch(t, filepath.Join(logs, "default_web_u1/main/0.log"), "")
	touch(t, filepath.Join(logs, "default_web_u1/main/1.log"), "")
	touch(t, filepath.Join(logs, "default_web_u1/stray"), "")
	touch(t, filepath.Join(logs, "default_web_u2/main/0.log"), "")
	if err := os.MkdirAll(links, 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		filepath.Join(logs, "default_web_u1/evil"):      filepath.Join(dir, "victim"),
		filepath.Join(logs, "default_web_u1/main/evil"): filepath.Join(dir, "victim"),
		filepath.Join(links, "web_default_main-a.log"):  filepath.Join(logs, "default_web_u1/main/0.log"),
		filepath.Join(links, "web_default_main-b.log"):  filepath.Join(logs, "default_web_u2/main/0.log"),
	} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	// A link in the folder's place is removed, not followed.
	if err := os.Symlink(filepath.Join(dir, "victim"), filepath.Join(logs, "default_web_u3")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what is gone is removed
		for _, uid := range []types.UID{"u1", "u3"} {
			if err := c.RemoveLogs(t.Context(), "default", "web", uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := []string{"/links", "/links/web_default_main-b.log", "/logs", "/logs/default_web_u2", "/logs/default_web_u2/main", "/logs/default_web_u2/main/0.log", "/victim", "/victim/file"}
	if got := tree(t, dir); !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
	touch(t, filepath.Join(logs, "default_web_u1/main/deep/file"), "")
	if err := c.RemoveLogs(t.Context(), "default", "web", "u1"); err == nil {
		t.Error("a deeper tree than logs have is removed")
	}
	if err := c.RemoveLogs(t.Context(), "default", "web", "../../victim"); err == nil {
		t.Error("a UID leads out of the folder of logs")
	}
	if err := c.RemoveLogs(t.Context(), "default", strings.Repeat("w", 253), "u4"); err != nil {
		t.Errorf("a folder that cannot be: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.RemoveLogs(ctx, "default", "web", "u2"); err == nil {
		t.Error("it goes on when given up")
	}
}

func TestTerminationMessage(t *testing.T) {
	c := dialed(t, t.TempDir(), "/none")
	folder := c.containerFolder("u1", "main")
	file, log := filepath.Join(folder, "0a1b2c3d"), filepath.Join(c.opts.Pods.LogsDir, "x.log")
	foreign := filepath.Join(t.TempDir(), "foreign")
	touch(t, foreign, "secret")
	var lines strings.Builder
	for i := range 200 {
		fmt.Fprintf(&lines, "2026-01-02T03:04:05.000000000Z stdout F line %d\n", i)
	}
	touch(t, log, lines.String())
	const toLogs = string(v1.TerminationMessageFallbackToLogsOnError)
	for _, test := range []struct {
		name, content, policy, mounted, reason string
		exit                                   int32
		want                                   func(string) bool
	}{
		{name: "file", content: "bye", mounted: file, want: func(s string) bool { return s == "bye" }},
		{name: "long file", content: strings.Repeat("a", 5000) + "z", mounted: file, want: func(s string) bool { return len(s) == 4096 && strings.HasSuffix(s, "z") }},
		{name: "file before logs", content: "bye", policy: toLogs, exit: 1, mounted: file, want: func(s string) bool { return s == "bye" }},
		{name: "logs", policy: toLogs, exit: 1, mounted: file, want: func(s string) bool {
			return strings.HasPrefix(s, "line 120\n") && strings.HasSuffix(s, "line 199\n")
		}},
		{name: "logs, exit 0", policy: toLogs, mounted: file, want: func(s string) bool { return s == "" }},
		{name: "never ran", policy: toLogs, exit: 1, reason: "ContainerCannotRun", mounted: file, want: func(s string) bool { return s == "" }},
		{name: "a volume over it", mounted: foreign, want: func(s string) bool { return s == "" }},
	} {
		touch(t, file, test.content)
		got := c.terminationMessage(&runtimeapi.ContainerStatus{
			ExitCode: test.exit, Reason: test.reason, LogPath: log,
			Labels:      map[string]string{LabelPodUID: "u1", LabelContainerName: "main"},
			Annotations: map[string]string{annotationMessagePath: "/m", annotationMessagePolicy: test.policy},
			Mounts:      []*runtimeapi.Mount{{ContainerPath: "/m", HostPath: test.mounted}},
		})
		if !test.want(got) {
			t.Errorf("%s: message %.100q of %d bytes", test.name, got, len(got))
		}
	}
	if got := joinMessages("runtime", "own"); got != "runtime: own" {
		t.Errorf("both messages are %q", got)
	}
}

// A container that is gone from the runtime takes its files along.
func TestRemoveDropsFiles(t *testing.T) {
	f := &fake{fail: map[string]error{"RemoveContainer": status.Error(codes.Unknown, "not now")}}
	c := serve(t, f)
	file := filepath.Join(c.containerFolder("u1", "main"), "0a1b2c3d")
	touch(t, file, "")
	touch(t, filepath.Join(c.opts.Pods.LogsDir, "default_web_u1/main/0.log"), "")
	touch(t, filepath.Join(c.opts.Pods.LogsDir, "default_web_u1/main/1.log"), "")
	if err := os.MkdirAll(c.opts.LinksDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.linkLog("default", "web", "main", "id", filepath.Join(c.opts.Pods.LogsDir, "default_web_u1/main/0.log")); err != nil {
		t.Fatal(err)
	}
	f.containers = []*runtimeapi.ContainerStatus{{
		Id: "id", Metadata: &runtimeapi.ContainerMetadata{Name: "main"},
		Labels:      map[string]string{LabelPodUID: "u1", LabelPodName: "web", LabelPodNamespace: "default", LabelContainerName: "main"},
		Annotations: map[string]string{annotationMessagePath: "/m"},
		Mounts:      []*runtimeapi.Mount{{ContainerPath: "/m", HostPath: file}},
	}}
	if err := c.Remove(t.Context(), "id"); err == nil {
		t.Error("the runtime removed nothing, yet there is no error")
	}
	for _, dir := range []string{c.opts.LinksDir, filepath.Dir(file)} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
	if got := tree(t, filepath.Join(c.opts.Pods.LogsDir, "default_web_u1/main")); !slices.Equal(got, []string{"/1.log"}) {
		t.Errorf("logs left: %v", got)
	}
}

func FuzzLastOutput(f *testing.F) {
	f.Add([]byte("2026-01-02T03:04:05Z stdout P part\n2026-01-02T03:04:05Z stderr F rest\n"))
	f.Add([]byte("cut in the middle\n\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		got := lastOutput(log)
		if len(got) > maxMessageLog || len(got) > len(log) {
			t.Errorf("%d bytes from %d", len(got), len(log))
		}
	})
}
