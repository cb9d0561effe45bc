// Package criconform is what a real runtime must do for the agent, said once
// and run on each runtime that is supported.
package criconform

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Env is the bed that the suite runs in.
type Env struct {
	// Options reach the runtime, with folders of the test's own.
	Options cri.Options
	// Image has /bin/sh and is present; Remote is not, and can be pulled.
	Image, Remote string
	// Events says that the runtime has an event stream.
	Events bool
}

// Suite runs all of it. It leaves no pod behind.
func Suite(t *testing.T, env Env) {
	client, err := cri.Dial(env.Options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, test := range map[string]func(*bed){
		"Probe":      (*bed).probe,
		"Life":       (*bed).life,
		"Stop":       (*bed).stop,
		"NotCreated": (*bed).notCreated,
		"NotStarted": (*bed).notStarted,
		"Pull":       (*bed).pull,
		"Events":     (*bed).events,
		"Messages":   (*bed).messages,
		"LogMount":   (*bed).logMount,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			test(&bed{T: t, env: env, client: client, ctx: ctx})
		})
	}
}

type bed struct {
	*testing.T
	env    Env
	client *cri.Client
	ctx    context.Context
}

func (b *bed) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// pod has one container that runs script. It is taken down when the test ends.
func (b *bed) pod(name, script string) *v1.Pod {
	grace := int64(3)
	p := &v1.Pod{}
	p.Name, p.Namespace, p.UID = name, "conform", types.UID("conform-"+name)
	p.Annotations = map[string]string{"example.com/note": name}
	p.Spec.TerminationGracePeriodSeconds = &grace
	p.Spec.Containers = []v1.Container{{
		Name: "main", Image: b.env.Image, Command: []string{"/bin/sh", "-c", script},
		ImagePullPolicy:          v1.PullIfNotPresent,
		TerminationMessagePath:   "/dev/termination-log",
		TerminationMessagePolicy: v1.TerminationMessageReadFile,
	}}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		b.remove(ctx, p)
	})
	return p
}

func (b *bed) remove(ctx context.Context, p *v1.Pod) {
	b.Helper()
	view, err := b.client.View(ctx, p.UID)
	b.must(err)
	for _, k := range view.Containers {
		b.must(b.client.Stop(ctx, k.ID, 0))
		b.must(b.client.Remove(ctx, k.ID))
		b.must(b.client.Remove(ctx, k.ID))
	}
	for _, s := range view.Sandboxes {
		b.must(b.client.StopSandbox(ctx, s.ID))
		b.must(b.client.StopSandbox(ctx, s.ID))
		b.must(b.client.RemoveSandbox(ctx, s.ID))
		b.must(b.client.RemoveSandbox(ctx, s.ID))
	}
	if view, err = b.client.View(ctx, p.UID); err != nil || len(view.Containers)+len(view.Sandboxes) > 0 {
		b.Errorf("after its removal the runtime shows %+v, %v", view, err)
	}
	b.must(b.client.RemoveLogs(ctx, p.Namespace, p.Name, p.UID))
	left, err := filepath.Glob(filepath.Join(b.env.Options.Pods.LogsDir, "*_"+p.Name+"_*"))
	links, err2 := filepath.Glob(filepath.Join(b.env.Options.LinksDir, p.Name+"_*"))
	if err != nil || err2 != nil || len(left)+len(links) > 0 {
		b.Errorf("logs left: %v %v, %v %v", left, links, err, err2)
	}
}

func (b *bed) sandbox(p *v1.Pod) pod.Sandbox {
	b.Helper()
	s, err := b.client.RunSandbox(b.ctx, p, cri.SandboxRequest{})
	b.must(err)
	return s
}

func (b *bed) request(s pod.Sandbox, attempt uint32) cri.CreateRequest {
	return cri.CreateRequest{Container: "main", SandboxID: s.ID, Attempt: attempt, ImageRef: b.env.Image, PodIPs: s.IPs}
}

func (b *bed) start(p *v1.Pod, s pod.Sandbox, attempt uint32) pod.Container {
	b.Helper()
	k, err := b.client.Create(b.ctx, p, b.request(s, attempt))
	b.must(err)
	if k.State != pod.Created || k.ID == "" {
		b.Errorf("created container is %+v", k)
	}
	k, err = b.client.Start(b.ctx, p, k)
	b.must(err)
	if k.State == pod.Created || k.StartedAt.IsZero() || k.Hash != cri.Hash(&p.Spec.Containers[0]) {
		b.Errorf("started container is %+v", k)
	}
	return k
}

// ended waits until the container has exited and returns it.
func (b *bed) ended(p *v1.Pod, id string) pod.Container {
	b.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		view, err := b.client.View(b.ctx, p.UID)
		b.must(err)
		for _, k := range view.Containers {
			if k.ID == id && k.State == pod.Exited {
				return k
			}
		}
		select {
		case <-tick.C:
		case <-b.ctx.Done():
			b.Fatalf("container does not end: %+v", view)
		}
	}
}

func (b *bed) probe() {
	r, err := b.client.Probe(b.ctx)
	b.must(err)
	if r.Name != "containerd" || r.APIVersion != "v1" || r.Ready != "" || r.Network != "" {
		b.Errorf("runtime says %+v", r)
	}
	driver, ok, err := b.client.CgroupDriver(b.ctx)
	b.must(err)
	if ok != b.env.Events || ok && driver != "cgroupfs" && driver != "systemd" {
		b.Errorf("cgroup driver is %q, known %v", driver, ok)
	}
}

// life is a container's run, end and restart, and what is left of each.
func (b *bed) life() {
	p := b.pod("life", "echo out; echo bye > /dev/termination-log; exit 7")
	s := b.sandbox(p)
	if !s.Ready || len(s.IPs) == 0 || s.HostNetwork || s.Attempt != 0 {
		b.Errorf("sandbox is %+v", s)
	}
	first := b.start(p, s, 0)
	end := b.ended(p, first.ID)
	if end.ExitCode != 7 || end.Reason != "Error" || end.Message != "bye\n" || end.FinishedAt.IsZero() || end.SandboxID != s.ID {
		b.Errorf("ended container is %+v", end)
	}
	logs := filepath.Join(b.env.Options.Pods.LogsDir, "conform_life_conform-life", "main")
	if raw, err := os.ReadFile(filepath.Join(logs, "0.log")); err != nil || !strings.Contains(string(raw), "stdout F out") {
		b.Errorf("log is %q, %v", raw, err)
	}
	link := filepath.Join(b.env.Options.LinksDir, "life_conform_main-"+first.ID+".log")
	if target, err := os.Readlink(link); err != nil || target != filepath.Join(logs, "0.log") {
		b.Errorf("log link leads to %q, %v", target, err)
	}

	second := b.start(p, s, 1)
	b.ended(p, second.ID)
	view, err := b.client.View(b.ctx, p.UID)
	b.must(err)
	if len(view.Containers) != 2 || view.Containers[0].ID != second.ID || view.Containers[0].Attempt != 1 {
		b.Errorf("view is not the newest first: %+v", view.Containers)
	}
	all, err := b.client.List(b.ctx)
	b.must(err)
	f := all[p.UID]
	if f.Name != "life" || f.Namespace != "conform" || f.Annotations["example.com/note"] != "life" || f.Grace != 3*time.Second || len(f.View.Containers) != 2 {
		b.Errorf("list has %+v", f)
	}
	b.must(b.client.Remove(b.ctx, first.ID))
	if _, err := os.Stat(filepath.Join(logs, "0.log")); !os.IsNotExist(err) {
		b.Errorf("log of a removed container with a successor: %v", err)
	}
	b.must(b.client.Remove(b.ctx, second.ID))
	if n := b.client.LoggedRestarts("conform", "life", p.UID)["main"]; n != 1 {
		b.Errorf("logs tell of restart %d, want 1", n)
	}
	b.must(b.client.StopSandbox(b.ctx, s.ID))
	if view, err = b.client.View(b.ctx, p.UID); err != nil || len(view.Sandboxes) != 1 || view.Sandboxes[0].Ready {
		b.Errorf("a stopped sandbox shows as %+v, %v", view.Sandboxes, err)
	}
}

// speaks waits until a main container has printed something.
func (b *bed) speaks(p *v1.Pod, attempt uint32) {
	path, err := b.client.LogFile(p, "main", attempt)
	b.must(err)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if raw, err := os.ReadFile(path); err == nil && len(raw) > 0 {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("nothing is in %s", path)
		}
	}
}

// stop ends by the signal what heeds it, by force what does not.
func (b *bed) stop() {
	p := b.pod("stop", `trap "exit 3" TERM; echo ready; while :; do sleep 0.05; done`)
	s := b.sandbox(p)
	k := b.start(p, s, 0)
	b.speaks(p, 0)
	b.must(b.client.Stop(b.ctx, k.ID, 20*time.Second))
	if end := b.ended(p, k.ID); end.ExitCode != 3 {
		b.Errorf("a container that heeds TERM ends with %d, want 3", end.ExitCode)
	}
	b.must(b.client.Stop(b.ctx, k.ID, 0))
	b.must(b.client.Stop(b.ctx, "no-such-container", 0))
	b.must(b.client.Remove(b.ctx, "no-such-container"))
	b.must(b.client.StopSandbox(b.ctx, "no-such-sandbox"))
	b.must(b.client.RemoveSandbox(b.ctx, "no-such-sandbox"))

	p.Spec.Containers[0].Command[2] = `trap "" TERM; echo ready; while :; do sleep 0.05; done`
	k = b.start(p, s, 1)
	b.speaks(p, 1)
	began := time.Now()
	b.must(b.client.Stop(b.ctx, k.ID, time.Second))
	if end := b.ended(p, k.ID); end.ExitCode != 137 || time.Since(began) < time.Second {
		b.Errorf("a container deaf to TERM ends with %d after %v", end.ExitCode, time.Since(began))
	}
}

func (b *bed) notCreated() {
	p := b.pod("notcreated", "true")
	s := b.sandbox(p)
	req := b.request(s, 0)
	_, err := b.client.Create(b.ctx, p, req)
	b.must(err)
	_, err = b.client.Create(b.ctx, p, req)
	if f := cri.Failure(err); f == nil || f.Reason != cri.ReasonCreate || !f.Uncertain {
		b.Errorf("a second create of one name fails with %+v", f)
	}
	_, err = b.client.RunSandbox(b.ctx, p, cri.SandboxRequest{})
	if f := cri.Failure(err); f == nil || !f.Uncertain {
		b.Errorf("a second sandbox of one name fails with %+v", f)
	}
	req.Attempt, req.SandboxID = 1, "no-such-sandbox"
	_, err = b.client.Create(b.ctx, p, req)
	if f := cri.Failure(err); f == nil || f.Reason != cri.ReasonCreate || f.Uncertain {
		b.Errorf("a create without a sandbox fails with %+v", f)
	}
	nonRoot, root := true, int64(0)
	p.Spec.Containers[0].SecurityContext = &v1.SecurityContext{RunAsNonRoot: &nonRoot, RunAsUser: &root}
	_, err = b.client.Create(b.ctx, p, b.request(s, 2))
	if f := cri.Failure(err); f == nil || f.Reason != cri.ReasonConfig || f.Uncertain {
		b.Errorf("a create as root of a container that must not be fails with %+v", f)
	}
}

func (b *bed) notStarted() {
	p := b.pod("notstarted", "true")
	p.Spec.Containers[0].Command = []string{"/no/such/program"}
	s := b.sandbox(p)
	k, err := b.client.Create(b.ctx, p, b.request(s, 0))
	b.must(err)
	_, err = b.client.Start(b.ctx, p, k)
	if f := cri.Failure(err); f == nil || f.Reason != cri.ReasonRun || f.Uncertain {
		b.Errorf("the start of a missing program fails with %+v", f)
	}
	if end := b.ended(p, k.ID); end.ExitCode == 0 {
		b.Errorf("a container that did not start is %+v", end)
	}
}

func (b *bed) pull() {
	p := b.pod("pull", "true")
	k := &p.Spec.Containers[0]
	for _, want := range []string{"Successfully pulled", "already present"} {
		k.Image = b.env.Remote
		ref, message, err := b.client.Pull(b.ctx, p, cri.PullRequest{Container: "main", Begun: func(string) {}})
		if err != nil || ref == "" || !strings.Contains(message, want) {
			b.Errorf("pull: %q, %q, %v; want one that says %q", ref, message, err, want)
		}
	}
	for _, c := range []struct {
		image  string
		policy v1.PullPolicy
		reason string
	}{
		{"no spaces in names", v1.PullAlways, cri.ReasonInvalidImage},
		{b.env.Remote + "-missing", v1.PullNever, cri.ReasonNeverPull},
		{b.env.Remote + "-missing", v1.PullIfNotPresent, cri.ReasonPull},
	} {
		k.Image, k.ImagePullPolicy = c.image, c.policy
		_, _, err := b.client.Pull(b.ctx, p, cri.PullRequest{Container: "main", Begun: func(string) {}})
		if f := cri.Failure(err); f == nil || f.Reason != c.reason || f.Message == "" {
			b.Errorf("pull %s of %q fails with %+v, want %s", c.policy, c.image, f, c.reason)
		}
	}
}

func (b *bed) events() {
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	changed := make(chan types.UID, 1000)
	ended := make(chan error, 1)
	go func() { ended <- b.client.Events(ctx, func(uid types.UID) { changed <- uid }) }()
	if !b.env.Events {
		if err := <-ended; !errors.Is(err, cri.ErrNoEvents) {
			b.Errorf("events end with %v, want ErrNoEvents", err)
		}
		return
	}
	if uid := <-changed; uid != "" {
		b.Errorf("the stream begins with %q, want no pod in particular", uid)
	}
	p := b.pod("events", "true")
	k := b.start(p, b.sandbox(p), 0)
	b.ended(p, k.ID)
	for uid := types.UID(""); uid != p.UID; {
		select {
		case uid = <-changed:
		case err := <-ended:
			b.Fatalf("events end with %v", err)
		case <-b.ctx.Done():
			b.Fatal("no event of the container's end")
		}
	}
	cancel()
	if err := <-ended; err == nil {
		b.Error("a cancelled stream ends without an error")
	}
}

// messages are a container's last words from its log, and the host's network
// is seen for what it is.
func (b *bed) messages() {
	p := b.pod("messages", "echo one; echo two >&2; exit 1")
	p.Spec.HostNetwork = true
	p.Spec.Containers[0].TerminationMessagePolicy = v1.TerminationMessageFallbackToLogsOnError
	s := b.sandbox(p)
	if !s.HostNetwork {
		b.Errorf("sandbox on the host's network is %+v", s)
	}
	end := b.ended(p, b.start(p, s, 0).ID)
	if end.Message != "one\ntwo\n" && end.Message != "two\none\n" {
		b.Errorf("last words are %q", end.Message)
	}
}

// logMount: nothing is removed below a mount point. It needs root.
func (b *bed) logMount() {
	logs := b.env.Options.Pods.LogsDir
	precious := b.TempDir()
	file := filepath.Join(precious, "file")
	b.must(os.WriteFile(file, nil, 0o600))
	at := filepath.Join(logs, "conform_mounted_u", "main")
	b.must(os.MkdirAll(at, 0o755))
	b.must(unix.Mount(precious, at, "", unix.MS_BIND, ""))
	err := b.client.RemoveLogs(b.ctx, "conform", "mounted", "u")
	b.must(unix.Unmount(at, unix.MNT_DETACH))
	if err == nil {
		b.Error("a mount point among the logs is no error")
	}
	if _, err := os.Stat(file); err != nil {
		b.Errorf("a file below a mount point: %v", err)
	}
	b.must(b.client.RemoveLogs(b.ctx, "conform", "mounted", "u"))
}
