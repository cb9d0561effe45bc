package e2e

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/chromedp/chromedp"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
	"github.com/nodeagent/nodeagent/pkg/ui"
)

// evil is a name that no apiserver lets through: the page does not count on that.
const evil = `"]*{}</td><img src=//192.0.2.1/x onerror=alert(1)><script>alert(2)</script>` + "\u202e\u2066\x1b[31m\x00\x07\n\r"

// evilNode has one pod, everything of which means no good.
type evilNode struct {
	pod pod.Pod
	log string
}

func (n *evilNode) Pods() []pod.Pod                                              { return []pod.Pod{n.pod} }
func (n *evilNode) Node() pod.Node                                               { return pod.Node{Name: evil, Network: evil, Runtime: evil} }
func (n *evilNode) Await(ctx context.Context, _ types.UID, _ func(pod.Pod) bool) { <-ctx.Done() }
func (n *evilNode) Problems() []source.Problem {
	return []source.Problem{{Origin: "javascript:alert(3)", Field: evil, Message: evil}}
}
func (n *evilNode) LogPath(context.Context, string) (string, error) { return n.log, nil }

func newEvilNode(t *testing.T) *evilNode {
	t.Helper()
	long := evil + strings.Repeat("z", 5000)
	spec := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: long, Namespace: evil, UID: types.UID("u/../<b>"), Labels: map[string]string{evil: evil}},
		Spec:       v1.PodSpec{RestartPolicy: v1.RestartPolicy(evil), Containers: []v1.Container{{Name: evil, Image: evil}, {Name: long, Image: "javascript:alert(4)"}}},
	}
	at := time.Now().Add(-time.Minute)
	view := pod.View{Sandboxes: []pod.Sandbox{{ID: "s", Ready: true, IPs: []string{evil}}}, Containers: []pod.Container{
		{ID: "c", Name: evil, SandboxID: "s", State: pod.Exited, ExitCode: 1, CreatedAt: at, StartedAt: at, FinishedAt: at.Add(time.Second), Reason: evil, Message: long}}}
	p := pod.New(pod.Wanted{At: at, Spec: spec, Origin: evil}, view, nil)
	p = pod.Apply(p, pod.Judged{At: at, Verdict: pod.Verdict{State: pod.Granted}})
	p.Notes = []pod.Note{{At: at, Reason: evil, Message: long, Container: evil, Warning: true, Count: 2}}
	p.Launches = []pod.Launch{{Began: at, Why: evil, Steps: []pod.Step{{Key: "pull/" + evil, Kind: pod.Kind(evil), Container: evil, Began: at, Ended: at.Add(time.Second), Error: long}}}}
	n := &evilNode{pod: p, log: filepath.Join(t.TempDir(), "0.log")}
	lines := fmt.Sprintf("2026-01-02T15:04:05.5Z stdout F %s\n2026-01-02T15:04:05.5Z stderr F %s\n",
		strings.NewReplacer("\n", "", "\r", "").Replace(evil), strings.Repeat("z", 2<<20))
	if err := os.WriteFile(n.log, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestUINames: whatever pods, containers, images, origins, events, steps and logs
// are called and say is text on the page, and nobody else is asked for anything.
func TestUINames(t *testing.T) {
	n := newEvilNode(t)
	server := httptest.NewServer(ui.Handler(ui.Options{Version: evil, Pods: n, Logs: n}))
	t.Cleanup(server.Close)
	b := newBrowser(t, nil)
	b.look(1280, 1600, "light")
	b.do(chromedp.Navigate(server.URL + ui.Prefix))
	b.until(`document.querySelectorAll("#rows tr").length === 1 && document.querySelector(".events tbody tr")`)
	b.harmless(t)
	b.picture("names")
	eval[any](b, `document.querySelector("#rows a").click()`)
	b.until(`document.querySelector(".waterfall tbody tr") && document.querySelectorAll(".lines .line").length === 2`)
	b.harmless(t)
	b.picture("names-pod")
	if over := eval[int](b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
		t.Errorf("the names make the page %d wider than the window", over)
	}
	requests, wrong := b.asked()
	for _, w := range wrong {
		t.Errorf("the browser complains: %s", w)
	}
	for _, r := range requests {
		if !strings.HasPrefix(r, server.URL+ui.Prefix) {
			t.Errorf("somebody else was asked: %s", r)
		}
	}
}
