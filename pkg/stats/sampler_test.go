package stats

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	opencontainers "github.com/opencontainers/cgroups"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cgroups"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// node is a machine with real cgroups below a root of its own, and what it says
// runs in them.
type node struct {
	*cgroups.Tree
	facts cgroups.Facts

	mu   sync.Mutex
	pods []pod.Pod
}

var nodes atomic.Int64

func newNode(t testing.TB) *node {
	t.Helper()
	root := fmt.Sprintf("/nodeagent-stats-%d-%d", os.Getpid(), nodes.Add(1))
	tree, err := cgroups.New(cgroups.Options{Root: root, PerQoS: true})
	if err != nil {
		t.Fatal(err)
	}
	facts, err := cgroups.Check()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Tree: tree, facts: facts}
	t.Cleanup(func() {
		for _, controller := range append(facts.Controllers, "", "name=systemd") {
			if dir := facts.Dir(controller, root); dir != "" {
				if err := opencontainers.RemovePath(dir); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if err := tree.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) Pods() []pod.Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pods
}

// add a pod whose sandbox and containers have a cgroup, and a process each.
func (n *node) add(t testing.TB, name string, program ...string) pod.Pod {
	t.Helper()
	id := func(what string) string { return fmt.Sprintf("%064x", len(n.pods)*10+len(what)) }
	uid := types.UID(fmt.Sprintf("7d2b5b4e-0000-4000-8000-%012x", len(n.pods)+1))
	began := time.Now().Add(-time.Minute).Truncate(time.Second)
	p := pod.Pod{
		Spec: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: uid}, Spec: v1.PodSpec{
			Containers: []v1.Container{{Name: "main", Image: "busybox", Resources: v1.ResourceRequirements{
				Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("64Mi"), v1.ResourceCPU: resource.MustParse("1")},
			}}},
		}},
		View: pod.View{
			Sandboxes:  []pod.Sandbox{{ID: id("sandbox"), Ready: true, CreatedAt: began}},
			Containers: []pod.Container{{ID: id("main"), Name: "main", SandboxID: id("sandbox"), State: pod.Running, Image: "busybox", CreatedAt: began.Add(time.Second)}},
		},
	}
	if err := n.Create(t.Context(), p.Spec); err != nil {
		t.Fatal(err)
	}
	n.run(t, filepath.Join(n.Parent(p.Spec), id("sandbox")), "sleep", "1000")
	n.run(t, filepath.Join(n.Parent(p.Spec), id("main")), program...)
	n.mu.Lock()
	n.pods = append(n.pods, p)
	n.mu.Unlock()
	return p
}

// run a program in a cgroup of its own, if one is named.
func (n *node) run(t testing.TB, cgroup string, program ...string) {
	t.Helper()
	pid := 0
	if len(program) > 0 {
		cmd := exec.Command(program[0], program[1:]...)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = stdin.Close() }() // what waits for it begins inside
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		pid = cmd.Process.Pid
	}
	for _, controller := range append(n.facts.Controllers, "") {
		dir := n.facts.Dir(controller, cgroup)
		if dir == "" || controller == "" && n.facts.Version != "v2" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if controller == "cpuset" {
			continue // wants its CPUs first
		}
		if pid != 0 {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (n *node) sampler(t testing.TB) *Sampler {
	t.Helper()
	s, err := NewSampler(n, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sample(t testing.TB, s *Sampler, depth Depth) []Container {
	t.Helper()
	all, err := s.Sample(t.Context(), depth)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func find(t testing.TB, all []Container, kind Kind, pod string) Container {
	t.Helper()
	for _, c := range all {
		if c.Kind == kind && c.Pod == pod {
			return c
		}
	}
	t.Fatalf("no sample of kind %d of pod %q", kind, pod)
	return Container{}
}

// TestSampleIsWhatTheKernelSays: a container that works has the figures that
// its cgroup's files have.
func TestSampleIsWhatTheKernelSays(t *testing.T) {
	n := newNode(t)
	ready := filepath.Join(t.TempDir(), "ready")
	p := n.add(t, "busy", "sh", "-c", `read x; a=$(head -c 4000000 /dev/zero | tr '\0' x); : > "$0"; while :; do :; done`, ready)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the program in the cgroup doesn't get ready")
		}
	}
	s := n.sampler(t)
	before := n.cpu(t, p)
	main := find(t, sample(t, s, Usage), KindContainer, "busy")
	after := n.cpu(t, p)
	if got := main.Stats.Cpu.Usage.Total; got < before || got > after {
		t.Errorf("CPU time %d, want between %d and %d", got, before, after)
	}
	// The kernel adds up the kinds of memory now and then only.
	for deadline := time.Now().Add(30 * time.Second); main.Stats.Memory.RSS < 4e6 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		main = find(t, sample(t, s, Usage), KindContainer, "busy")
	}
	if main.Stats.Memory.RSS < 4e6 || main.Stats.Memory.WorkingSet == 0 || main.Stats.Memory.WorkingSet > main.Stats.Memory.Usage {
		t.Errorf("memory: %+v", main.Stats.Memory)
	}
	if got := main.Stats.Processes.ProcessCount; got != 1 {
		t.Errorf("%d processes, want 1", got)
	}
	if main.Name != "main" || main.Namespace != "default" || main.UID != p.Spec.UID || main.Image != "busybox" || main.NanoCores != nil {
		t.Errorf("labels: %+v", main)
	}
	owner := find(t, sample(t, s, Usage), KindPod, "busy")
	if got, want := owner.Spec.Memory.Limit, uint64(64<<20); got != want {
		t.Errorf("the pod's memory limit is %d, want %d", got, want)
	}
	if owner.Stats.Cpu.Usage.Total < before {
		t.Errorf("the pod has %d of CPU time, less than its container had before", owner.Stats.Cpu.Usage.Total)
	}
	if machine := sample(t, s, Usage)[0]; machine.Kind != KindMachine || machine.Stats.Cpu.Usage.Total < before || machine.Spec.Memory.Limit == 0 {
		t.Errorf("machine: %+v", machine)
	}
}

// cpu is the time in ns that the pod's container has had.
func (n *node) cpu(t *testing.T, p pod.Pod) uint64 {
	t.Helper()
	cgroup := filepath.Join(n.Parent(p.Spec), p.View.Containers[0].ID)
	if n.facts.Version == "v2" {
		text, err := os.ReadFile(filepath.Join(n.facts.Dir("", cgroup), "cpu.stat"))
		if err != nil {
			t.Fatal(err)
		}
		var us uint64
		if _, err := fmt.Sscanf(string(text), "usage_usec %d", &us); err != nil {
			t.Fatal(err)
		}
		return us * 1000
	}
	text, err := os.ReadFile(filepath.Join(n.facts.Dir("cpuacct", cgroup), "cpuacct.usage"))
	if err != nil {
		t.Fatal(err)
	}
	ns, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// BenchmarkSample reads 100 pods of one container: the cost of one scrape.
func BenchmarkSample(b *testing.B) {
	n := newNode(b)
	for i := range 100 {
		n.add(b, fmt.Sprint("p", i), "sleep", "1000")
	}
	s := n.sampler(b)
	for name, depth := range map[string]Depth{"usage": Usage, "full": Full} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				if got := s.round(depth); len(got) < 200 {
					b.Fatal(len(got), "samples")
				}
			}
		})
	}
}
