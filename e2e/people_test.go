package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/local"
)

// TestPeople is what people get from the subcommands.
func TestPeople(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("shown", sleeper("shown"))
	b.ready("shown")
	b.share(map[string]func(*bed){
		"PodsInJSONAndYAML":   podsInJSONAndYAML,
		"Explain":             explainSteps,
		"PlanDoesNothing":     planDoesNothing,
		"PlanOfBadManifest":   planOfBadManifest,
		"Check":               checkIsOK,
		"Version":             versionForms,
		"SocketIsForRootOnly": socketIsForRootOnly,
		"SecondAgentIsBarred": secondAgentIsBarred,
		"ControlCharacters":   controlCharacters,
		"UnknownFlag":         func(b *bed) { b.fails("unknown flag", "--no-such-flag") },
		"UnknownPod":          func(b *bed) { b.fails(`no pod "nobody"`, "explain", "nobody") },
		"UnknownOutput":       func(b *bed) { b.fails("want json or yaml", "pods", "-o", "xml") },
	})
}

// fails runs a subcommand that must fail and say why.
func (b *bed) fails(want string, args ...string) {
	b.t.Helper()
	out, err := b.Command(args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), want) {
		b.t.Errorf("nodeagent %v: %v, %q; want %q", args, err, out, want)
	}
}

func podsInJSONAndYAML(b *bed) {
	if out := b.say("pods"); !strings.Contains(out, "shown-lab") || !strings.Contains(out, "Running") {
		b.t.Errorf("text: %s", out)
	}
	var fromJSON, fromYAML local.Report
	b.must(json.Unmarshal([]byte(b.say("pods", "-o", "json")), &fromJSON))
	b.must(yaml.Unmarshal([]byte(b.say("pods", "-o", "yaml")), &fromYAML))
	for _, r := range []local.Report{fromJSON, fromYAML} {
		if p := find(r, "shown"); p == nil || p.Status.Phase != "Running" {
			b.t.Errorf("report %+v", r)
		}
	}
}

func explainSteps(b *bed) {
	out := b.say("explain", "default/shown-lab")
	for _, want := range []string{"shown.yaml", "to run, restart policy Always", "main: running since", "waits for nothing", "sandbox", "create/main", "Started main"} {
		if !strings.Contains(out, want) {
			b.t.Errorf("no %q in\n%s", want, out)
		}
	}
	var pods []local.Pod
	b.must(json.Unmarshal([]byte(b.say("explain", "shown-lab", "-o", "json")), &pods))
	if len(pods) != 1 || len(pods[0].Steps) == 0 {
		b.t.Errorf("json: %+v", pods)
	}
}

func planDoesNothing(b *bed) {
	file := b.Path("planned.yaml")
	b.must(os.WriteFile(file, []byte(sleeper("planned")), 0o644))
	out := b.say("plan", "-f", file)
	for _, want := range []string{"default/planned-lab: granted", "sandbox", "create main from", "start main"} {
		if !strings.Contains(out, want) {
			b.t.Errorf("no %q in\n%s", want, out)
		}
	}
	plans := map[string]local.Plan{}
	b.must(yaml.Unmarshal([]byte(b.say("plan", "-f", file, "-o", "yaml")), &plans))
	if len(plans["default/planned-lab"].Steps) == 0 {
		b.t.Errorf("yaml: %+v", plans)
	}
	if p := b.pod("planned"); p != nil {
		b.t.Errorf("the pod was taken: %+v", p)
	}
}

func planOfBadManifest(b *bed) {
	file := b.Path("bad.yaml")
	b.must(os.WriteFile(file, []byte(podOf("bad", "containers: [{name: a, image: BUSYBOX, imagePolicy: x}]")), 0o644))
	b.fails("imagePolicy", "plan", "-f", file)
}

func checkIsOK(b *bed) {
	out := b.say("check", "--config", b.ConfigFile())
	if strings.Contains(out, "NOT OK") || !strings.Contains(out, "containerd") {
		b.t.Errorf("check says\n%s", out)
	}
}

// controlCharacters that a container says don't reach the terminal.
func controlCharacters(b *bed) {
	b.apply("steer", podOf("steer", `
containers: [{name: a, image: BUSYBOX, command: [sh, -c, "printf 'be\\033[2Jware' > /dev/termination-log; exit 1"]}]`))
	b.await("steer", "a", "has ended once", func(s v1.ContainerStatus) bool { return s.LastTerminationState.Terminated != nil })
	out := b.say("explain", "steer-lab")
	if strings.Contains(out, "\x1b") || !strings.Contains(out, "be\ufffd[2Jware") {
		b.t.Errorf("it says %q", out)
	}
}

func versionForms(b *bed) {
	if out := b.say("version"); !strings.HasPrefix(out, "Kubernetes v1.36.") || !strings.Contains(out, "+nodeagent.") {
		b.t.Errorf("version: %s", out)
	}
	link := b.Path("kubelet")
	b.must(os.Symlink(binary, link))
	out, err := exec.Command(link, "--version").Output()
	b.must(err)
	if !strings.HasPrefix(string(out), "Kubernetes v1.36.") {
		b.t.Errorf("kubelet --version: %s", out)
	}
}

func socketIsForRootOnly(b *bed) {
	socket := local.Socket(b.Root)
	for path, mode := range map[string]os.FileMode{socket: 0o600, filepath.Dir(socket): 0o700} {
		info, err := os.Stat(path)
		b.must(err)
		if info.Mode().Perm() != mode {
			b.t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), mode)
		}
	}
}

func secondAgentIsBarred(b *bed) {
	b.fails(b.Root, "--config", b.ConfigFile(), "--hostname-override=lab")
	b.ready("shown")
}

// TestCheckNamesRemedies: each line that isn't ok says what to do.
func TestCheckNamesRemedies(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.Config = map[string]any{"staticPodPath": "/no/such/folder", "failCgroupV1": true}
	b.must(b.Agent.Start()) // writes the configuration; it ends for the cgroups
	if err := b.Agent.Wait(20 * time.Second); err == nil {
		t.Error("the agent started on cgroup v1 with failCgroupV1")
	}
	b.must(b.Runtime.Terminate())
	out, err := b.Command("check", "--config", b.ConfigFile()).CombinedOutput()
	if err == nil {
		t.Error("check succeeds")
	}
	for name, remedy := range map[string]string{
		"host": "set failCgroupV1: false", "runtime": "is containerd running?", "network": "runtime does not answer", "manifests": "make it, or set another",
	} {
		found := false
		for line := range strings.Lines(string(out)) {
			found = found || strings.HasPrefix(line, "NOT OK  "+name+" ") && strings.Contains(line, remedy)
		}
		if !found {
			t.Errorf("no line of %s with %q in\n%s", name, remedy, out)
		}
	}
}

// TestNoAgent: without an agent the subcommands say so.
func TestNoAgent(t *testing.T) {
	out, err := exec.Command(binary, "pods", "--root-dir", t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no agent answers") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestStopsCleanly: SIGTERM ends the agent with exit code 0; its pods go on,
// and its next process finds them.
func TestStopsCleanly(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("stays", sleeper("stays"))
	p := b.ready("stays")
	was := b.instances(string(p.UID))["main"]
	b.must(b.Agent.Stop())
	if now := b.instances(string(p.UID))["main"]; now != was {
		t.Fatalf("instance %s became %q", was, now)
	}
	b.start()
	b.ready("stays")
	if now := b.instances(string(p.UID))["main"]; now != was {
		t.Errorf("instance %s became %q", was, now)
	}
}
