package server

import (
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// journal stands for journalctl: it knows the unit web, and says what it was
// asked.
const journal = `#!/bin/sh
if [ "$1" = --field=_SYSTEMD_UNIT ]; then echo web.service; exit; fi
for a in "$@"; do echo "[$a]"; done
`

func logsOf(t *testing.T) func(query string) (int, string) {
	t.Helper()
	bin, dir := t.TempDir(), t.TempDir()
	for name, content := range map[string]string{
		filepath.Join(bin, "journalctl"): journal, filepath.Join(dir, "old.log"): "of old", filepath.Join(dir, "file"): "content",
	} {
		if err := os.WriteFile(name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	h := queryLogs(logFiles(dir), fileLogs(dir))
	return func(target string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
		return w.Code, w.Body.String()
	}
}

// TestLogQuery: services are looked for in the journal, by what is asked, and
// then among the files.
func TestLogQuery(t *testing.T) {
	ask := logsOf(t)
	for target, want := range map[string]string{
		"/logs/file":                         "content",
		"/logs/?query=web":                   "[--utc]\n[--no-pager]\n[--output=short-precise]\n[--unit=web]\n",
		"/logs/?query=web&query=web.service": "[--utc]\n[--no-pager]\n[--output=short-precise]\n[--unit=web]\n[--unit=web.service]\n",
		"/logs/?query=web&sinceTime=2026-01-02T03:04:05%2B01:00&untilTime=2026-01-03T00:00:00Z&tailLines=7&boot=-1&pattern=" + url.QueryEscape("a b|$(reboot)"): "[--utc]\n[--no-pager]\n[--output=short-precise]\n" +
			"[--since=2026-01-02 02:04:05 UTC]\n[--until=2026-01-03 00:00:00 UTC]\n[--lines=7]\n[--boot=-1]\n[--grep=a b|$(reboot)]\n[--unit=web]\n",
		"/logs/?query=old":             "of old",
		"/logs/?query=/file":           "content",
		"/logs/?query=nothing":         "\nlog not found for nothing\n",
		"/logs/?query=old&tailLines=1": "\noptions are for services in the journal, which has nothing of old\n",
	} {
		if code, text := ask(target); code != 200 || text != want {
			t.Errorf("%s: %d %q, want %q", target, code, text, want)
		}
	}
}

// TestLogQueryRefused: what is no service, time or number reaches no program.
func TestLogQueryRefused(t *testing.T) {
	ask := logsOf(t)
	for _, query := range []string{
		"query=", "query=%20", "tailLines=1", "query=--file", "query=-u", "query=web%20--root", "query=web%0a--root", "query=$(id)", "query=web%00",
		"query=web&sinceTime=yesterday", "query=web&sinceTime=2026-01-02T00:00:00Z&untilTime=2026-01-01T00:00:00Z", "query=web&tailLines=-1", "query=web&tailLines=all",
		"query=web&tailLines=100001", "query=web&boot=1", "query=web&boot=0;id", "query=web&pattern=(", "query=web&pattern=%00", "query=/a&query=/b", "query=/file&query=web",
		"query=/file&tailLines=1", "query=a&query=b&query=c&query=d&query=e", "query=" + strings.Repeat("a", 300),
	} {
		if code, text := ask("/logs/?" + query); code != 400 || strings.Contains(text, "[") {
			t.Errorf("%s: %d %q", query, code, text)
		}
	}
	if code, text := ask("/logs/file?query=web"); code != 406 || text != "path not allowed in query mode\n" {
		t.Errorf("%d %q", code, text)
	}
	for _, file := range []string{"--file=/etc/passwd", "web --root=/", "web\n--root=/", "/../../etc/passwd", "/etc/../../etc/passwd", `\..\etc`, "//etc/passwd"} {
		if code, text := ask("/logs/?query=" + url.QueryEscape(file)); code < 300 || strings.Contains(text, "root:") {
			t.Errorf("%s: %d %q", file, code, text)
		}
	}
}

// FuzzLogQuery: whatever is asked, each argument is one of those that it is for.
func FuzzLogQuery(f *testing.F) {
	for _, seed := range []string{"query=web&tailLines=3", "query=/x", "query=%2d-a&boot=-1", "sinceTime=2026-01-02T00:00:00Z&query=a&pattern=b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		values, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		q, err := parseLogQuery(values)
		if err != nil || q == nil {
			return
		}
		for _, name := range q.services {
			if strings.HasPrefix(name, "-") || strings.ContainsAny(name, " \n\x00/") {
				t.Errorf("service %q", name)
			}
		}
		for _, o := range q.options {
			if name, _, ok := strings.Cut(o, "="); !ok || !strings.Contains(" --since --until --lines --boot --grep ", " "+name+" ") || strings.ContainsRune(o, 0) {
				t.Errorf("option %q", o)
			}
		}
	})
}
