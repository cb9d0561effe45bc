package local

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/source"
)

// node has the pods it is given.
type node struct {
	pods    []pod.Pod
	view    pod.Node
	verdict pod.Verdict
}

func (n node) Pods() []pod.Pod             { return n.pods }
func (n node) Node() pod.Node              { return n.view }
func (n node) Verdict(*v1.Pod) pod.Verdict { return n.verdict }
func (n node) Looked() <-chan struct{} {
	looked := make(chan struct{})
	close(looked)
	return looked
}
func (n node) Problems() []source.Problem {
	return []source.Problem{{Origin: "/etc/pods/b.yaml", Field: "spec", Message: "is missing"}}
}

func twoContainers() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "u1"},
		Spec: v1.PodSpec{
			InitContainers: []v1.Container{{Name: "init", Image: "i"}},
			Containers:     []v1.Container{{Name: "a", Image: "x"}, {Name: "b", Image: "y"}},
		},
	}
}

// serve runs the service on a new root and gives a client of it.
func serve(t *testing.T, n node) (root string, c *Client) {
	t.Helper()
	root = t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, root, n, http.NotFoundHandler(), slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	c = NewClient(root)
	for deadline := time.Now().Add(5 * time.Second); ; {
		if _, err := c.Report(ctx); err == nil {
			return root, c
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestReport(t *testing.T) {
	p := pod.New(pod.Wanted{At: time.Now(), Spec: twoContainers(), Origin: "/etc/pods/a.yaml"}, pod.View{}, nil)
	root, c := serve(t, node{pods: []pod.Pod{p}, view: pod.Node{Name: "n1", Runtime: "down"}})
	got, err := c.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Pods) != 1 || got.Pods[0].Name != "web" || got.Pods[0].Status.Phase != v1.PodPending || got.Pods[0].Origin != "/etc/pods/a.yaml" {
		t.Errorf("pods: %+v", got.Pods)
	}
	if got.Node.Runtime != "down" || len(got.Problems) != 1 || got.Problems[0].Field != "spec" {
		t.Errorf("node %+v, problems %+v", got.Node, got.Problems)
	}
	for path, want := range map[string]os.FileMode{Socket(root): 0o600, filepath.Dir(Socket(root)): 0o700} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

func TestPlanForesees(t *testing.T) {
	_, c := serve(t, node{verdict: pod.Verdict{State: pod.Granted}})
	got, err := c.Plan(t.Context(), twoContainers())
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for _, s := range got.Steps {
		if kind, _, _ := strings.Cut(s, " ("); strings.HasPrefix(kind, "start") || kind == "sandbox" {
			steps = append(steps, kind)
		}
	}
	if want := []string{"sandbox", "start init", "start a", "start b"}; !slices.Equal(steps, want) {
		t.Errorf("steps %v, want %v; all: %v", steps, want, got.Steps)
	}
}

func TestPlanOfARefusedPod(t *testing.T) {
	_, c := serve(t, node{verdict: pod.Verdict{State: pod.Refused, Reason: "OutOfcpu", Message: "no cpu left"}})
	got, err := c.Plan(t.Context(), twoContainers())
	if err != nil {
		t.Fatal(err)
	}
	if got.Verdict != "OutOfcpu: no cpu left" {
		t.Errorf("verdict %q", got.Verdict)
	}
	if slices.ContainsFunc(got.Steps, func(s string) bool { return strings.HasPrefix(s, "sandbox") }) {
		t.Errorf("a refused pod would get a sandbox: %v", got.Steps)
	}
}

func TestNobodyListens(t *testing.T) {
	root := t.TempDir()
	_, err := NewClient(root).Report(t.Context())
	if err == nil || !strings.Contains(err.Error(), "is it running") {
		t.Errorf("got %v", err)
	}
}

func TestServeTakesOverADeadSocket(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Dir(Socket(root)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(Socket(root), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, root, node{}, http.NotFoundHandler(), slog.New(slog.DiscardHandler)) }()
	for deadline := time.Now().Add(5 * time.Second); ; {
		if _, err := NewClient(root).Report(ctx); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTimeline(t *testing.T) {
	p := pod.New(pod.Wanted{At: time.Now(), Spec: twoContainers()}, pod.View{}, nil)
	_, c := serve(t, node{pods: []pod.Pod{p}})
	for which, want := range map[string]int{"": 1, "default/web": 1, "u1": 1, "a&b": 0} {
		got, err := c.Timeline(t.Context(), which)
		if err != nil || len(got.Pods) != want {
			t.Errorf("%q: %+v, %v", which, got, err)
		}
	}
}
