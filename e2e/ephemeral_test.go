package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/local"
)

// debugged is a pod that names its UID, with debug containers or without.
func debugged(name string, debug ...string) string {
	spec := `
terminationGracePeriodSeconds: 5
containers: [{name: main, image: BUSYBOX, command: [sh, -c, "trap 'exit 0' TERM; sleep 100000 & wait"]}]`
	if len(debug) > 0 {
		spec += "\nephemeralContainers:\n" + strings.Join(debug, "\n")
	}
	return podOf(name+", uid: "+name+"-0001", spec)
}

// TestEphemeral is what debug containers in the manifest of a running pod do.
func TestEphemeral(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.share(map[string]func(*bed){
		"SeesProcessesOfTarget": seesProcessesOfTarget,
		"NeverRestarts":         neverRestarts,
		"NeedsUID":              ephemeralNeedsUID,
		"PortsAreRefused":       ephemeralPortsAreRefused,
	})
}

// debugStatus waits for the status of a debug container.
func (b *bed) debugStatus(name, what string, want func(v1.ContainerStatus) bool) (p *local.Pod) {
	b.t.Helper()
	p, _ = b.await(name, "debug", what, want)
	return p
}

func seesProcessesOfTarget(b *bed) {
	b.apply("aim", debugged("aim"))
	was := b.instances(string(b.ready("aim").UID))["main"]
	b.apply("aim", debugged("aim", `- {name: debug, image: BUSYBOX, targetContainerName: main, command: [sh, -c, "sleep 1000"]}`))
	p := b.debugStatus("aim", "runs", func(s v1.ContainerStatus) bool { return s.State.Running != nil })
	now := b.instances(string(p.UID))
	if now["main"] != was {
		b.t.Errorf("the main container %s became %s", was, now["main"])
	}
	if seen := b.exec(now["debug"], "ps"); !strings.Contains(seen, "sleep 100000") {
		b.t.Errorf("it sees %s", seen)
	}
}

func neverRestarts(b *bed) {
	b.apply("once", debugged("once"))
	was := b.instances(string(b.ready("once").UID))["main"]
	b.apply("once", debugged("once", `- {name: debug, image: BUSYBOX, command: [sh, -c, "exit 3"]}`))
	p := b.debugStatus("once", "has ended", func(s v1.ContainerStatus) bool { return s.State.Terminated != nil })
	if s := container(p, "debug"); s.State.Terminated.ExitCode != 3 || s.RestartCount != 0 {
		b.t.Errorf("its status %+v", s)
	}
	b.apply("other", sleeper("other")) // the agent has looked at its pods since
	b.ready("other")
	p = b.ready("once")
	if s := container(p, "debug"); s.State.Terminated == nil || s.RestartCount != 0 {
		b.t.Errorf("later its status %+v", s)
	}
	if now := b.instances(string(p.UID)); now["main"] != was {
		b.t.Errorf("the main container %s became %s", was, now["main"])
	}
}

func ephemeralNeedsUID(b *bed) {
	b.apply("nouid", podOf("nouid", `
containers: [{name: main, image: BUSYBOX}]
ephemeralContainers: [{name: debug, image: BUSYBOX}]`))
	b.problem(filepath.Join(b.Manifests, "nouid.yaml"), "metadata.uid")
}

func ephemeralPortsAreRefused(b *bed) {
	b.apply("ports", debugged("ports", `- {name: debug, image: BUSYBOX, ports: [{containerPort: 80}]}`))
	b.problem(filepath.Join(b.Manifests, "ports.yaml"), "may not be set on an ephemeral container")
}

// TestEphemeralSurvivesKill: an agent that is killed while a debug container
// starts goes on with it, once, and the main container stays.
func TestEphemeralSurvivesKill(t *testing.T) {
	f := newFaultBed(t)
	for _, point := range []string{"before-create", "after-create", "after-start"} {
		name := "kill-" + point
		f.start()
		f.apply(name, debugged(name))
		uid := string(f.ready(name).UID)
		was := f.instances(uid)["main"]
		f.must(f.Agent.Kill())
		f.apply(name, debugged(name, `- {name: debug, image: BUSYBOX, targetContainerName: main, command: [sleep, "1000"]}`))
		f.startFaulty(point)
		f.start()
		p := f.debugStatus(name, "runs", func(s v1.ContainerStatus) bool { return s.State.Running != nil })
		if now := f.instances(uid); now["main"] != was || container(p, "debug").RestartCount != 0 {
			t.Errorf("%s: main %s became %s", point, was, now["main"])
		}
		if n := len(f.containers(uid)); n != 2 {
			t.Errorf("%s: %d containers", point, n)
		}
		f.must(f.Agent.Kill())
	}
}

// restartsAll is a pod whose second container ends once, which restarts all.
const restartsAll = `
volumes: [{name: e, emptyDir: {}}]
restartPolicy: Never
initContainers: [{name: init, image: BUSYBOX, volumeMounts: [{name: e, mountPath: /e}], command: [sh, -c, "echo init >> /e/log"]}]
containers:
- {name: a, image: BUSYBOX, volumeMounts: [{name: e, mountPath: /e}], command: [sh, -c, "echo a >> /e/log; trap exit TERM; sleep 1000 & wait"]}
- name: b
  image: BUSYBOX
  volumeMounts: [{name: e, mountPath: /e}]
  command: [sh, -c, "test -e /e/again || { touch /e/again; sleep 1; exit 42; }; trap exit TERM; sleep 1000 & wait"]
  restartPolicy: Never
  restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]`

// restartedAll waits until all have been restarted, and looks at what that did.
func (b *bed) restartedAll(name string) {
	b.t.Helper()
	b.await(name, "a", "runs again", func(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.State.Running != nil })
	p := b.ready(name)
	uid := string(p.UID)
	if n := len(b.sandboxes(uid)); n != 1 {
		b.t.Errorf("%d sandboxes, want the same one", n)
	}
	for _, c := range []string{"init", "a", "b"} {
		if s := container(p, c); s.RestartCount != 1 {
			b.t.Errorf("container %s was restarted %d times", c, s.RestartCount)
		}
	}
	if log := b.exec(b.instances(uid)["a"], "cat", "/e/log"); log != "init\na\ninit\na" {
		b.t.Errorf("they ran as %q", log)
	}
}

// TestRestartAllContainers: a rule that asks for it has all containers begin
// anew in the same sandbox, init containers first.
func TestRestartAllContainers(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("all", podOf("all", restartsAll))
	b.restartedAll("all")
}

// TestRestartAllSurvivesKill: so it does when the agent is killed meanwhile.
func TestRestartAllSurvivesKill(t *testing.T) {
	f := newFaultBed(t)
	for _, point := range []string{"before-stop", "after-stop", "before-remove", "after-remove:2"} {
		name := "all-" + strings.ReplaceAll(point, ":", "-")
		f.apply(name, podOf(name, restartsAll))
		f.startFaulty(point)
		f.start()
		f.restartedAll(name)
		f.must(f.Agent.Kill())
	}
}
