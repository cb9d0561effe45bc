package e2e

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// web serves manifests inside the lab's network; what it answers can be changed.
type web struct {
	url    string
	mu     sync.Mutex
	answer http.HandlerFunc
}

// serveWeb starts a server that the test's end ends.
func serveWeb(b *bed) *web {
	b.t.Helper()
	l, err := b.Network.Listen("tcp", "127.0.0.1:0")
	b.must(err)
	w := &web{url: "http://" + l.Addr().String() + "/pods"}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		answer := w.answer
		w.mu.Unlock()
		answer(rw, r)
	})}
	go server.Serve(l)
	b.t.Cleanup(func() { server.Close() })
	return w
}

func (w *web) serve(answer http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = answer
}

func text(s string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, s) }
}

// newWebBed is a bed whose agent asks a server each 300 ms.
func newWebBed(t *testing.T) (*bed, *web) {
	b := newBed(t, lab.Containerd2)
	w := serveWeb(b)
	b.Config = map[string]any{"staticPodURL": w.url, "httpCheckFrequency": "300ms", "staticPodURLHeader": map[string][]string{"X-Token": {"lab"}}}
	return b, w
}

// TestURL: pods behind a URL appear, change and go.
func TestURL(t *testing.T) {
	b, w := newWebBed(t)
	token := make(chan string, 1)
	w.serve(func(rw http.ResponseWriter, r *http.Request) {
		select {
		case token <- r.Header.Get("X-Token"):
		default:
		}
		io.WriteString(rw, sleeper("one")+"---\n"+sleeper("two"))
	})
	b.start()
	one, two := b.ready("one"), b.ready("two")
	was := b.instances(string(two.UID))["main"]
	if got := <-token; got != "lab" {
		t.Errorf("the header X-Token is %q", got)
	}
	if one.Origin != w.url || one.Annotations["kubernetes.io/config.source"] != "http" {
		t.Errorf("origin %s, annotations %v", one.Origin, one.Annotations)
	}
	w.serve(text(strings.ReplaceAll(sleeper("one"), "100000", "100001") + "---\n" + sleeper("two")))
	b.gone("one", string(one.UID))
	if p := b.ready("one"); p.UID == one.UID {
		t.Error("the changed pod has the UID of the old one")
	}
	b.restart()
	b.ready("two")
	if now := b.instances(string(two.UID))["main"]; now != was {
		t.Errorf("instance %s of a pod that didn't change became %s", was, now)
	}
	w.serve(text("apiVersion: v1\nkind: PodList\nitems: []\n"))
	b.gone("one", "")
	b.gone("two", string(two.UID))
}

// TestBadURL: whatever the server does wrong is one clear problem, told once;
// the pods that it gave go on, also over a restart of the agent.
func TestBadURL(t *testing.T) {
	b, w := newWebBed(t)
	w.serve(text(sleeper("kept")))
	b.start()
	p := b.ready("kept")
	was := b.instances(string(p.UID))["main"]
	hang := make(chan struct{})
	defer close(hang)
	for _, bad := range []struct {
		name, want string
		answer     http.HandlerFunc
	}{
		{"Error500", "server answered 500", func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "no", http.StatusInternalServerError) }},
		{"NotFound", "server answered 404", http.NotFound},
		{"HTML", "is a web page", text("<!DOCTYPE html><html><body>Log in</body></html>")},
		{"Empty", "is empty", text("")},
		{"Nonsense", "not valid YAML", text("a: [")},
		{"Redirect", "redirected to another host", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "http://192.0.2.7/pods", http.StatusFound)
		}},
		{"Gigabyte", "more than 10 MiB", func(rw http.ResponseWriter, r *http.Request) { io.CopyN(rw, zeros{}, 1<<30) }},
		{"GzipBomb", "more than 10 MiB", func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(rw)
			io.CopyN(z, zeros{}, 1<<30)
			z.Close()
		}},
		{"Hang", "ask for manifest", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			b := &bed{b.Lab, b.Agent, t}
			w.serve(text(sleeper("kept")))
			b.eventually("all is well", 30*time.Second, func() error {
				if strings.Contains(b.say("pods"), "Not taken") {
					return fmt.Errorf("not yet")
				}
				return nil
			})
			told := strings.Count(b.agentLog(), "manifest can't be used")
			w.serve(bad.answer)
			b.eventually("the problem shows", 30*time.Second, func() error {
				_, problems, _ := strings.Cut(b.say("pods"), "Not taken:")
				if strings.Count(problems, w.url+": ") != 1 || !strings.Contains(problems, bad.want) {
					return fmt.Errorf("it shows %q", problems)
				}
				return nil
			})
			asked := make(chan struct{}, 2) // once more, and it was taken in
			w.serve(func(rw http.ResponseWriter, r *http.Request) {
				select {
				case asked <- struct{}{}:
				default:
				}
				bad.answer(rw, r)
			})
			if bad.name != "Hang" { // asked again only after 10 s
				<-asked
				<-asked
			}
			if n := strings.Count(b.agentLog(), "manifest can't be used") - told; n != 1 {
				t.Errorf("the log tells it %d times, want once", n)
			}
			if now := b.instances(string(p.UID))["main"]; now != was {
				t.Fatalf("instance %s became %q", was, now)
			}
		})
	}
	w.serve(http.NotFound)
	b.restart()
	b.apply("mark", sleeper("mark")) // from the folder, which works
	b.ready("mark")
	b.ready("kept")
	if now := b.instances(string(p.UID))["main"]; now != was {
		t.Errorf("after a restart of the agent: instance %s became %q", was, now)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
