package images

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// program writes a plugin that tells each of its runs and what it was asked,
// and then does what the script says.
func program(t *testing.T, dir, name, script string) {
	t.Helper()
	text := "#!/bin/sh\nexec 3>>" + filepath.Join(dir, "runs") + "\necho \"$0 $* $MODE $(cat)\" >&3\n" + script
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func runs(t *testing.T, dir string) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "runs"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(raw)), "\n")
}

func reply(kind, duration string) string {
	return fmt.Sprintf(`echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":%q,%s
"auth":{"example.com":{"username":"u","password":"p"}}}'`, kind, duration)
}

const onePlugin = `apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: plugin
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["*.example.com", "example.com:5000/app"]
  defaultCacheDuration: 1h
  args: [get, credentials]
  env: [{name: MODE, value: "test"}]
`

// one is a single plugin with that script, and what it logs.
func one(t *testing.T, script string) (*Plugin, string, *strings.Builder) {
	t.Helper()
	dir := t.TempDir()
	program(t, dir, "plugin", script)
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(onePlugin), 0o600); err != nil {
		t.Fatal(err)
	}
	logged := &strings.Builder{}
	plugins, err := Read(file, dir, slog.New(slog.NewTextHandler(logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return plugins[0], dir, logged
}

// TestAsk: the plugin gets its arguments, its environment and the image, and its
// answer is what it said.
func TestAsk(t *testing.T) {
	p, dir, _ := one(t, reply("Image", ""))
	got := p.Credentials(t.Context(), "example.com/app")
	if diff := cmp.Diff(Auth{"example.com": {Username: "u", Password: "p"}}, got); diff != "" {
		t.Error(diff)
	}
	want := filepath.Join(dir, "plugin") + ` get credentials test {"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"example.com/app"}`
	if diff := cmp.Diff([]string{want}, runs(t, dir)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"*.example.com", "example.com:5000/app"}, p.Images()); diff != "" {
		t.Error(diff)
	}
}

// TestCache: what an answer is kept for, and for how long.
func TestCache(t *testing.T) {
	asked := []string{"a.example.com/one", "a.example.com/one", "a.example.com/two", "b.example.com/one"}
	for name, c := range map[string]struct {
		kind, duration string
		runs           int
	}{
		"by image":          {"Image", "", 3},
		"by registry":       {"Registry", "", 2},
		"for all":           {"Global", "", 1},
		"not at all":        {"Global", `"cacheDuration":"0s",`, 4},
		"for its own while": {"Global", `"cacheDuration":"1m",`, 1},
		"ends":              {"Global", `"cacheDuration":"1ns",`, 4},
	} {
		t.Run(name, func(t *testing.T) {
			p, dir, _ := one(t, reply(c.kind, c.duration))
			for _, image := range asked {
				if len(p.Credentials(t.Context(), image)) != 1 {
					t.Errorf("nothing for %s", image)
				}
			}
			if got := runs(t, dir); len(got) != c.runs {
				t.Errorf("ran %d times: %q", len(got), got)
			}
		})
	}
}

// TestAtOnce: those who ask for the same at once share a run, and one of them
// that goes away ends nothing.
func TestAtOnce(t *testing.T) {
	p, dir, _ := one(t, "sleep 0.3\n"+reply("Image", `"cacheDuration":"0s",`))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			if i == 0 {
				p.Credentials(ctx, "example.com/app")
			} else if len(p.Credentials(t.Context(), "example.com/app")) != 1 {
				t.Error("no answer")
			}
		})
	}
	cancel()
	wg.Wait()
	if got := runs(t, dir); len(got) > 2 { // the one that went away may have come first and alone
		t.Errorf("ran %d times", len(got))
	}
}

// TestFailures: a plugin that fails gives nothing, is told once, and never with
// what it answered.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"exit code":       {"echo no token >&2; exit 3", "exit status 3: no token"},
		"not JSON":        {"echo hunter2", "no CredentialProviderResponse"},
		"another kind":    {`echo '{"kind":"Pod","apiVersion":"v1","auth":{"hunter2":{}}}'`, "Pod"},
		"another version": {`echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v2"}'`, "v2"},
		"cache key":       {reply("Host", ""), "cacheKeyType"},
	} {
		t.Run(name, func(t *testing.T) {
			p, _, logged := one(t, c.script)
			for range 3 {
				if got := p.Credentials(t.Context(), "example.com/app"); len(got) > 0 {
					t.Errorf("credentials %v", got)
				}
			}
			if text := logged.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, c.want) || strings.Contains(text, "hunter2") {
				t.Errorf("logged:\n%s", text)
			}
		})
	}
}

// TestReadErrors: a mistake is named with its file and field.
func TestReadErrors(t *testing.T) {
	for name, c := range map[string]struct{ from, to, want string }{
		"kind":         {"kind: CredentialProviderConfig", "kind: Config", `kind "Config"`},
		"unknown":      {"args:", "arg:", "arg"},
		"name":         {"name: plugin", "name: ../plugin", "providers[0].name"},
		"program":      {"name: plugin", "name: other", "providers[0].name"},
		"version":      {"credentialprovider.kubelet.k8s.io/v1", "credentialprovider.kubelet.k8s.io/v2", "providers[0].apiVersion"},
		"images":       {`["*.example.com", "example.com:5000/app"]`, "[]", "providers[0].matchImages"},
		"pattern":      {`"*.example.com"`, `"https://example.com"`, "providers[0].matchImages[0]"},
		"duration":     {"  defaultCacheDuration: 1h\n", "", "providers[0].defaultCacheDuration"},
		"less":         {"1h", "-1h", "providers[0].defaultCacheDuration"},
		"token":        {"  args:", "  tokenAttributes: {serviceAccountTokenAudience: a, cacheType: Token, requireServiceAccount: true}\n  args:", "providers[0].tokenAttributes"},
		"no providers": {onePlugin[strings.Index(onePlugin, "providers:"):], "providers: []\n", "providers"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			program(t, dir, "plugin", "")
			file := filepath.Join(dir, "config.yaml")
			text := strings.Replace(onePlugin, c.from, c.to, 1)
			if text == onePlugin {
				t.Fatal("the mistake is not in the file")
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(file, dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestReadFolder: the files of a folder count together, in the order of their
// names, each plugin once.
func TestReadFolder(t *testing.T) {
	dir, folder := t.TempDir(), t.TempDir()
	for _, name := range []string{"first", "second", "third"} {
		program(t, dir, name, "")
	}
	write := func(file, plugin string) {
		if err := os.WriteFile(filepath.Join(folder, file), []byte(strings.Replace(onePlugin, "name: plugin", "name: "+plugin, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("b.yaml", "second")
	write("a.yml", "first")
	write("c.json.off", "third")
	plugins, err := Read(folder, dir, slog.New(slog.DiscardHandler))
	if err != nil || len(plugins) != 2 || plugins[0].config.Name != "first" || plugins[1].config.Name != "second" {
		t.Errorf("%v, %v", plugins, err)
	}
	write("c.yaml", "first")
	if _, err := Read(folder, dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "c.yaml") || !strings.Contains(err.Error(), "two plugins") {
		t.Errorf("%v", err)
	}
}
