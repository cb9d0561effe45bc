package server

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/logs"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// TestLogs: every option, and every reason why there is no log, in the kubelet's
// words.
func TestLogs(t *testing.T) {
	n := newNode(t, nil)
	n.log("web", "one", "two", "three")
	n.set("waits", func(p *pod.Pod) { p.Containers = nil })
	for name, reason := range map[string]string{"pulls": "ErrImagePull", "cannot": "ErrImageNeverPull"} {
		n.set(name, func(p *pod.Pod) {
			p.Containers = map[string]pod.Memory{"main": {Failure: &pod.Failure{Reason: reason, Tries: 3}}}
		})
	}
	n.set("refused", func(p *pod.Pod) { p.Verdict.State = pod.Refused })
	const path = "GET /containerLogs/default/web/main"
	for request, want := range map[string]string{
		path:                                     "200 one\ntwo\nthree\n",
		path + "?tailLines=1":                    "200 three\n",
		path + "?tail=2":                         "200 two\nthree\n",
		path + "?tail=all&tailLines=1":           "200 one\ntwo\nthree\n",
		path + "?limitBytes=5":                   "200 one\nt",
		path + "?timestamps=true&tailLines=1":    "200 2026-01-02T15:04:05.000000001Z three\n",
		path + "?timestamps=0&tailLines=1":       "200 three\n",
		path + "?sinceSeconds=1":                 "200 ",
		path + "?sinceTime=2026-01-02T15:04:05Z": "200 one\ntwo\nthree\n",
		path + "?sinceTime=2026-01-02T15:04:06Z": "200 ",
		path + "?stream=All":                     "200 one\ntwo\nthree\n",
		path + "?stream=Stdout": `400 unable to return the given log stream: "Stdout". ` +
			"Please enable PodLogsQuerySplitStreams feature gate in kubelet",
		path + "?tailLines=x":                     `400 {"message": "Unable to decode query."}`,
		path + "?tail=x":                          `400 {"message": "Unable to decode query."}`,
		path + "?sinceTime=noon":                  `400 {"message": "Unable to decode query."}`,
		path + "?tailLines=-1":                    `422 {"message": "Invalid request."}`,
		path + "?limitBytes=0":                    `422 {"message": "Invalid request."}`,
		path + "?sinceSeconds=0":                  `422 {"message": "Invalid request."}`,
		path + "?stream=Both":                     `422 {"message": "Invalid request."}`,
		path + "?stream=Stdout&tail=1":            `422 {"message": "Invalid request."}`,
		path + "?previous=true":                   `400 previous terminated container "main" in pod "web" not found`,
		"GET /containerLogs/default/x/main":       `404 pod "x" does not exist`,
		"GET /containerLogs/x/web/main":           `404 pod "web" does not exist`,
		"GET /containerLogs/default/web/x":        `404 container "x" not found in pod "web"`,
		"GET /containerLogs/default/waits/main":   `400 container "main" in pod "waits" is waiting to start: ContainerCreating`,
		"GET /containerLogs/default/pulls/main":   `400 container "main" in pod "pulls" is waiting to start: image can't be pulled`,
		"GET /containerLogs/default/cannot/main":  `400 container "main" in pod "cannot" is waiting to start: ErrImageNeverPull`,
		"GET /containerLogs/default/refused/main": `400 container "main" in pod "refused" is not available`,
		"POST /containerLogs/default/web/main":    "405 Method Not Allowed\n",
	} {
		if got := n.ask(request); got != want {
			t.Errorf("%s: %q, want %q", request, got, want)
		}
	}
	n.set("silent", func(*pod.Pod) {})
	if got := n.ask("GET /containerLogs/default/silent/main"); !strings.HasPrefix(got, "404 open log ") {
		t.Errorf("a log that is not there: %q", got)
	}
}

// TestLogsBegin: who follows a container that prints nothing has his answer at
// once.
func TestLogsBegin(t *testing.T) {
	n := newNode(t, nil)
	n.log("web")
	answer := n.begin("GET /containerLogs/default/web/main?follow=true")
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%s, %v", answer.Status, answer.Header)
	}
	n.log("web", "hello")
	text := make([]byte, len("hello\n"))
	if _, err := io.ReadFull(answer.Body, text); err != nil || string(text) != "hello\n" {
		t.Errorf("%v, %q", err, text)
	}
}

// TestCutShort: a log of which not all could be read does not look complete.
func TestCutShort(t *testing.T) {
	n := newNode(t, nil)
	n.log("web", "one")
	answer := n.begin("GET /containerLogs/default/web/main?follow=true")
	defer answer.Body.Close()
	n.stop()
	if text, err := io.ReadAll(answer.Body); err == nil {
		t.Errorf("%q, and no error", text)
	}
}

func FuzzLogOptions(f *testing.F) {
	f.Add("follow=true&previous&timestamps=0&tailLines=10&limitBytes=1&sinceSeconds=5")
	f.Add("sinceTime=2026-01-02T15:04:05.123Z&stream=Stderr&tail=all")
	f.Add("tail=7&tailLines=x&container=%00")
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		o, err := logOptions(q)
		if err != nil || logs.Check(o) != nil {
			return
		}
		if o.TailLines != nil && *o.TailLines < 0 || o.LimitBytes != nil && *o.LimitBytes < 1 || o.SinceSeconds != nil && o.SinceTime != nil {
			t.Errorf("%q gives %+v", query, o)
		}
	})
}

// What a client gets of a log in the page cache, by the second.
func BenchmarkLogs(b *testing.B) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		b.Run(protocol, func(b *testing.B) {
			n := newNode(b, nil)
			path := filepath.Join(n.logs, "web", "main", "0.log")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				b.Fatal(err)
			}
			line := "2026-01-02T15:04:05.000000001Z stdout F " + strings.Repeat("x", 100) + "\n"
			if err := os.WriteFile(path, []byte(strings.Repeat(line, 500_000)), 0o644); err != nil {
				b.Fatal(err)
			}
			client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: protocol == "h2",
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}}}
			b.SetBytes(int64(500_000 * len(line)))
			for b.Loop() {
				answer, err := client.Get(n.url + "/containerLogs/default/web/main")
				if err != nil {
					b.Fatal(err)
				}
				if got, err := io.Copy(io.Discard, answer.Body); err != nil || got != 500_000*101 {
					b.Fatal(got, err)
				}
				answer.Body.Close()
			}
		})
	}
}
