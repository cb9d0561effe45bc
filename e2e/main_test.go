package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/local"
)

// binary is the agent under test, built once with its fault points.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "nodeagent-e2e-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "nodeagent")
	build := exec.Command("go", "build", "-tags", "faults", "-o", binary, "../cmd/nodeagent")
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the agent:", err)
		os.Exit(1)
	}
	flag.Parse()
	// Tests of one bed mostly wait for grace periods and back-offs.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	code := 0
	err = lab.Run(func(tb lab.TB) error {
		suite = tb
		if code = m.Run(); code != 0 {
			return errors.New("tests failed")
		}
		return nil
	})
	os.RemoveAll(dir)
	if err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// bed is a lab with an agent, and what tests ask of both.
type bed struct {
	*lab.Lab
	*lab.Agent
	t *testing.T
}

// newBed makes a node with the runtime version; the agent isn't started.
func newBed(t *testing.T, version string) *bed {
	t.Helper()
	l := lab.New(t, lab.Options{Version: version})
	a, err := l.Agent(binary)
	if err != nil {
		t.Fatal(err)
	}
	return &bed{l, a, t}
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// share runs tests side by side on this bed, each with pods of its own names.
func (b *bed) share(tests map[string]func(*bed)) {
	for name, test := range tests {
		b.t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(&bed{b.Lab, b.Agent, t})
		})
	}
}

// start starts the agent and ends it, and all pods, with the test.
func (b *bed) start() {
	b.t.Helper()
	b.must(b.Agent.Start())
	b.eventually("the agent answers", 30*time.Second, func() error {
		_, err := b.report()
		return err
	})
}

// restart kills the agent and starts it again.
func (b *bed) restart() {
	b.t.Helper()
	b.must(b.Agent.Kill())
	b.start()
}

// apply puts a pod into the folder; the file is named for it.
func (b *bed) apply(name, manifest string) {
	b.t.Helper()
	b.must(b.WritePod(name+".yaml", []byte(manifest)))
}

func (b *bed) remove(name string) {
	b.t.Helper()
	b.must(b.RemovePod(name + ".yaml"))
}

// report is what the agent says of its pods.
func (b *bed) report() (local.Report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return local.NewClient(b.Root).Report(ctx)
}

// pod is what the agent says of the pod; nil when it knows none of that name.
func (b *bed) pod(name string) *local.Pod {
	r, err := b.report()
	if err != nil {
		return nil
	}
	return find(r, name)
}

func find(r local.Report, name string) *local.Pod {
	for _, p := range r.Pods {
		if p.Name == name || p.Name == name+"-lab" {
			return &p
		}
	}
	return nil
}

// eventually waits until check has nothing to say. The world outside the agent
// gives no events to wait for, so it looks every few milliseconds; less often
// when looking takes long, so as not to slow what it waits for.
func (b *bed) eventually(what string, within time.Duration, check func() error) {
	b.t.Helper()
	deadline := time.Now().Add(within)
	for {
		began := time.Now()
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		<-time.After(max(20*time.Millisecond, 10*time.Since(began)))
	}
}

// phase waits for the pod's phase.
func (b *bed) phase(name, want string) *local.Pod {
	b.t.Helper()
	var p *local.Pod
	b.eventually(name+" is "+want, 60*time.Second, func() error {
		if p = b.pod(name); p == nil {
			return fmt.Errorf("the agent does not know it")
		}
		if string(p.Status.Phase) != want {
			return fmt.Errorf("it is %s, waits for %v", p.Status.Phase, p.Waits)
		}
		return nil
	})
	return p
}

// ready waits until every container of the pod is ready.
func (b *bed) ready(name string) *local.Pod {
	b.t.Helper()
	var p *local.Pod
	b.eventually(name+" is ready", 60*time.Second, func() error {
		if p = b.pod(name); p == nil {
			return fmt.Errorf("the agent does not know it")
		}
		for _, c := range p.Status.Conditions {
			if c.Type == "Ready" && c.Status == "True" {
				return nil
			}
		}
		state, _ := json.Marshal(p.Status.ContainerStatuses)
		return fmt.Errorf("waits for %v; %s", p.Waits, state)
	})
	return p
}

// container is the status of one of the pod's containers, whatever its role.
func container(p *local.Pod, name string) v1.ContainerStatus {
	if p != nil {
		for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses) {
			if s.Name == name {
				return s
			}
		}
	}
	return v1.ContainerStatus{}
}

// await waits until the status of a container is as wanted.
func (b *bed) await(podName, name, what string, want func(v1.ContainerStatus) bool) (p *local.Pod, s v1.ContainerStatus) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("container %s of %s %s", name, podName, what), 60*time.Second, func() error {
		p = b.pod(podName)
		if s = container(p, name); !want(s) {
			text, _ := json.Marshal(s)
			return fmt.Errorf("it is %s", text)
		}
		return nil
	})
	return p, s
}

// running starts the pod and returns what the agent says of it, and the ID of
// its container main.
func (b *bed) running(name, manifest string) (*local.Pod, string) {
	b.t.Helper()
	b.apply(name, manifest)
	p := b.ready(name)
	b.t.Cleanup(func() { b.remove(name) })
	return p, b.instances(string(p.UID))["main"]
}

// told says whether people were told so of the pod.
func told(p *local.Pod, reason, text string) bool {
	return p != nil && slices.ContainsFunc(p.Notes, func(n local.Note) bool {
		return n.Reason == reason && strings.Contains(n.Message, text)
	})
}

// awaitTold waits until people are told so of the pod.
func (b *bed) awaitTold(name, reason, text string) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("%s is told %s: %s", name, reason, text), 30*time.Second, func() error {
		p := b.pod(name)
		if p == nil {
			return fmt.Errorf("the agent does not know it")
		}
		if !told(p, reason, text) {
			return fmt.Errorf("notes %+v", p.Notes)
		}
		return nil
	})
}

// inspect is what CRI says of one container, by its ID in a status.
func (b *bed) inspect(id string) *runtimeapi.ContainerStatus {
	b.t.Helper()
	_, bare, _ := strings.Cut(id, "://")
	if bare == "" {
		bare = id
	}
	r, err := b.CRI.Runtime.ContainerStatus(context.Background(), &runtimeapi.ContainerStatusRequest{ContainerId: bare})
	b.must(err)
	return r.Status
}

// lines is a file as lines; a file that isn't there has none.
func (b *bed) lines(path string) []string {
	b.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	return strings.Fields(string(data))
}

// gone waits until neither agent nor runtime, disk nor cgroups know the pod.
func (b *bed) gone(name, uid string) {
	b.t.Helper()
	b.eventually(name+" is gone", 60*time.Second, func() error {
		r, err := b.report()
		if err != nil {
			return err
		}
		if p := find(r, name); p != nil && (uid == "" || string(p.UID) == uid) {
			return fmt.Errorf("the agent knows it: %v %v", p.Waits, p.Doing)
		}
		if uid == "" {
			return nil
		}
		if s := b.sandboxes(uid); len(s) > 0 {
			return fmt.Errorf("%d sandboxes are left", len(s))
		}
		for _, pattern := range []string{
			filepath.Join(b.Root, "pods", uid), filepath.Join(b.Root, "nodeagent/pods", uid+".json"),
			filepath.Join(b.PodLogs, "*_"+uid), filepath.Join("/sys/fs/cgroup", "*", b.CgroupRoot, "kubepods/*/pod"+uid),
			filepath.Join("/sys/fs/cgroup", "*", b.CgroupRoot, "kubepods/pod"+uid),
		} {
			if left, _ := filepath.Glob(pattern); len(left) > 0 {
				return fmt.Errorf("left: %v", left)
			}
		}
		return nil
	})
}

func (b *bed) sandboxes(uid string) []*runtimeapi.PodSandbox {
	b.t.Helper()
	s, err := b.CRI.Sandboxes(context.Background(), uid)
	b.must(err)
	return s
}

func (b *bed) containers(uid string) []*runtimeapi.Container {
	b.t.Helper()
	c, err := b.CRI.Containers(context.Background(), uid)
	b.must(err)
	return c
}

// instances are the pod's container IDs, running ones only, by container name.
func (b *bed) instances(uid string) map[string]string {
	b.t.Helper()
	out := map[string]string{}
	for _, c := range b.containers(uid) {
		if c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			out[c.Metadata.Name] = c.Id
		}
	}
	return out
}

// exec runs a command in a container and returns what it printed.
func (b *bed) exec(container string, command ...string) string {
	b.t.Helper()
	r, err := b.CRI.Runtime.ExecSync(context.Background(), &runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: command, Timeout: 10})
	b.must(err)
	return strings.TrimSpace(string(r.Stdout))
}

// agentLog is all that the agent logged so far.
func (b *bed) agentLog() string {
	b.t.Helper()
	out, err := os.ReadFile(b.LogFile())
	b.must(err)
	return string(out)
}

// say runs a subcommand and returns what it prints.
func (b *bed) say(args ...string) string {
	b.t.Helper()
	out, err := b.Command(args...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("nodeagent %v: %v\n%s", args, err, out)
	}
	return string(bytes.TrimSpace(out))
}

// podOf is a manifest: a name, or a name and more of the metadata, and the spec
// in YAML, in which BUSYBOX is the image that every node has.
func podOf(meta, spec string) string {
	spec = strings.ReplaceAll(strings.Trim(spec, "\n"), "\n", "\n  ")
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  %s\n", meta, strings.ReplaceAll(spec, "BUSYBOX", lab.BusyboxImage))
}

// sleeper is a pod of one container that runs until it is told to end, which
// it does at once.
func sleeper(name string, more ...string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: main
    image: %s
    command: [sh, -c, "trap 'exit 0' TERM; echo up; sleep 100000 & wait"]
%s`, name, lab.BusyboxImage, strings.Join(more, "\n"))
}

// spec is a pod of one container that sleeps, with more fields of its spec.
func spec(name, more string) string {
	return podOf(name, more+`
terminationGracePeriodSeconds: 2
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]}`)
}

// waitsFor is for await: the container waits for that reason.
func waitsFor(reason string) func(v1.ContainerStatus) bool {
	return func(s v1.ContainerStatus) bool { return s.State.Waiting != nil && s.State.Waiting.Reason == reason }
}
