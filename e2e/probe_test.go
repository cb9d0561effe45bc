package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/local"
)

// TestProbes is what probes do to containers. The server's modes are those of
// e2e/lab/server.
func TestProbes(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.must(b.AddServerImage())
	b.start()
	tests := map[string]func(*bed){
		"LivenessExecRestarts":    livenessExecRestarts,
		"LivenessHangingRestarts": livenessHangingRestarts,
		"StartupGatesOthers":      startupGatesOthers,
		"StartupFailureRestarts":  startupFailureRestarts,
		"ReadinessComesAndGoes":   readinessComesAndGoes,
		"ReadinessAtTheEnd":       readinessAtTheEnd,
		"SidecarsAreProbed":       sidecarsAreProbed,
		"NoSuchPort":              noSuchPort,
		"NamedButUnknownPort":     namedButUnknownPort,
		"ExecTimeout":             execTimeout,
		"CrossHostRedirect":       crossHostRedirect,
		"HugeAnswer":              hugeAnswer,
		"HostNetwork":             probesOnHostNetwork,
		"ProbeOfOtherHost":        probeOfOtherHost,
	}
	for name, probe := range map[string]string{
		"Exec":              `exec: {command: [wget, -qO-, "http://127.0.0.1:8080/"]}`,
		"HTTP":              `httpGet: {port: 8080}`,
		"HTTPS":             `httpGet: {port: 8443, scheme: HTTPS}`,
		"HTTPOfNamedPort":   `httpGet: {port: web, path: /}`,
		"HTTPAfterRedirect": `httpGet: {port: 8080, path: "/redirect?to=/"}`,
		"GRPC":              `grpc: {port: 9090, service: any}`,
	} {
		tests[name] = func(b *bed) { handlerSaysHow(b, strings.ToLower(name), probe) }
	}
	tests["TCP"] = tcpSaysHow
	b.share(tests)
}

// serverOf is a container that runs the lab's server, with more fields of it in
// YAML.
func serverOf(args, more string) string {
	return fmt.Sprintf(`
terminationGracePeriodSeconds: 5
containers:
- name: main
  image: %s
  args: [%s]
  ports: [{name: web, containerPort: 8080}]
  %s`, lab.ServerImage, args, strings.ReplaceAll(strings.Trim(more, "\n"), "\n", "\n  "))
}

// ask asks a pod's server, as in ask(p, "8080/mode/fail"), and returns what it
// answered; a server that has just been started may not listen yet.
func (b *bed) ask(p *local.Pod, path string) string {
	b.t.Helper()
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return b.Network.Dial(ctx, network, addr)
		},
	}}
	var r *http.Response
	b.eventually("the server answers", 30*time.Second, func() (err error) {
		r, err = client.Get("http://" + p.Status.PodIP + ":" + path)
		return err
	})
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	b.must(err)
	return string(body)
}

func number(b *bed, text string) int {
	b.t.Helper()
	n, err := strconv.Atoi(text)
	b.must(err)
	return n
}

func isReady(s v1.ContainerStatus) bool   { return s.Ready }
func isUnready(s v1.ContainerStatus) bool { return s.State.Running != nil && !s.Ready }

// handlerSaysHow: a container is ready as long as its probe says so, whether the
// server fails or hangs.
func handlerSaysHow(b *bed, name, probe string) {
	b.apply(name, podOf(name, serverOf("", "readinessProbe: {"+probe+", periodSeconds: 1, failureThreshold: 1}")))
	p := b.ready(name)
	b.ask(p, "8080/mode/fail")
	b.await(name, "main", "is not ready", isUnready)
	b.ask(p, "8080/mode/ok")
	b.await(name, "main", "is ready again", isReady)
	b.ask(p, "8080/mode/hang")
	b.await(name, "main", "is not ready while it hangs", isUnready)
	if s := container(b.pod(name), "main"); s.RestartCount != 0 {
		b.t.Errorf("%d restarts for readiness", s.RestartCount)
	}
	if !told(b.pod(name), "Unhealthy", "Readiness probe failed: ") {
		b.t.Errorf("notes %+v", b.pod(name).Notes)
	}
}

func tcpSaysHow(b *bed) {
	b.apply("tcp", podOf("tcp", serverOf(`"-delay", 3s`, "readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}")))
	b.awaitTold("tcp", "Unhealthy", "connect: connection refused")
	b.ready("tcp")
}

func livenessExecRestarts(b *bed) {
	b.apply("liveness", podOf("liveness", `
terminationGracePeriodSeconds: 60
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap '' TERM; touch /up; sleep 3; rm /up; while true; do sleep 1; done"]
  livenessProbe: {exec: {command: [cat, /up]}, initialDelaySeconds: 1, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 2, terminationGracePeriodSeconds: 2}`))
	b.await("liveness", "main", "is restarted", func(s v1.ContainerStatus) bool { return s.RestartCount >= 1 })
	p := b.pod("liveness")
	if !told(p, "Unhealthy", "Liveness probe failed: cat: can't open '/up'") || !told(p, "Killing", "Container main failed liveness probe, will be restarted") {
		b.t.Errorf("notes %+v", p.Notes)
	}
	// It ignored TERM: the probe's own grace ended it, not the pod's.
	if s := container(p, "main").LastTerminationState.Terminated; s == nil || s.ExitCode != 137 {
		b.t.Errorf("it ended as %+v", s)
	}
}

func livenessHangingRestarts(b *bed) {
	b.apply("hanging", podOf("hanging", serverOf("", `livenessProbe: {httpGet: {port: 8080}, periodSeconds: 1, timeoutSeconds: 2, failureThreshold: 2}`)))
	p := b.ready("hanging")
	b.ask(p, "8080/mode/hang")
	b.await("hanging", "main", "is restarted", func(s v1.ContainerStatus) bool { return s.RestartCount >= 1 && s.Ready })
	if p := b.pod("hanging"); !told(p, "Unhealthy", "(Client.Timeout exceeded while awaiting headers)") {
		b.t.Errorf("notes %+v", p.Notes)
	}
}

func startupGatesOthers(b *bed) {
	dir := b.Path("startup")
	b.must(os.MkdirAll(dir, 0o755))
	b.apply("startup", podOf("startup", `
terminationGracePeriodSeconds: 2
volumes: [{name: d, hostPath: {path: `+dir+`}}]
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]
  volumeMounts: [{name: d, mountPath: /d}]
  startupProbe: {exec: {command: [sh, -c, "echo s >> /d/log; test -e /d/up"]}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 100}
  livenessProbe: {exec: {command: [sh, -c, "echo l >> /d/log"]}, periodSeconds: 1}
  readinessProbe: {exec: {command: [sh, -c, "echo r >> /d/log"]}, periodSeconds: 1}`))
	b.eventually("it is asked three times", 30*time.Second, func() error {
		if n := len(b.lines(dir + "/log")); n < 3 {
			return fmt.Errorf("asked %d times", n)
		}
		return nil
	})
	if s := container(b.pod("startup"), "main"); s.Started == nil || *s.Started || s.Ready {
		b.t.Errorf("before it has started it is %+v", s)
	}
	b.must(os.WriteFile(dir+"/up", nil, 0o644))
	b.ready("startup")
	log := strings.Join(b.lines(dir+"/log"), "")
	if gate := strings.TrimLeft(log, "s"); strings.Contains(gate, "s") || !strings.Contains(gate, "r") {
		b.t.Errorf("the probes ran as %s, want startup until it succeeded, then the others", log)
	}
}

func startupFailureRestarts(b *bed) {
	b.apply("stillborn", podOf("stillborn", serverOf("-mode, fail", `startupProbe: {httpGet: {port: 8080}, periodSeconds: 1, failureThreshold: 3}`)))
	b.await("stillborn", "main", "is restarted", func(s v1.ContainerStatus) bool { return s.RestartCount >= 1 })
	b.awaitTold("stillborn", "Unhealthy", "Startup probe failed: HTTP probe failed with statuscode: 500")
	b.awaitTold("stillborn", "Killing", "Container main failed startup probe, will be restarted")
}

// readinessComesAndGoes: the thresholds are counted, both ways.
func readinessComesAndGoes(b *bed) {
	b.apply("flips", podOf("flips", serverOf("", `readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 3, successThreshold: 2}`)))
	p := b.ready("flips")
	for _, c := range []struct {
		mode  string
		ready bool
		times int
	}{{"fail", false, 3}, {"ok", true, 2}} {
		b.ask(p, "8080/mode/"+c.mode)
		b.await("flips", "main", "follows", func(s v1.ContainerStatus) bool { return s.State.Running != nil && s.Ready == c.ready })
		if answered := b.ask(p, "8080/answered"); number(b, answered) < c.times {
			b.t.Errorf("ready %v after %s answers, want %d", c.ready, answered, c.times)
		}
	}
}

// readinessAtTheEnd: a pod that ends is still asked whether it is ready, and not
// whether it lives.
func readinessAtTheEnd(b *bed) {
	dir := b.Path("ending")
	b.must(os.MkdirAll(dir, 0o755))
	b.apply("ending", podOf("ending", `
terminationGracePeriodSeconds: 120
volumes: [{name: d, hostPath: {path: `+dir+`}}]
containers:
- name: main
  image: `+lab.ServerImage+`
  startupProbe: {httpGet: {port: 8080}, periodSeconds: 1, failureThreshold: 30}
  volumeMounts: [{name: d, mountPath: /d}]
  readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1, failureThreshold: 1}
  livenessProbe: {httpGet: {port: 8080}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}
  lifecycle: {preStop: {exec: {command: [sh, -c, "until test -e /d/over; do sleep 0.1; done"]}}}`))
	p := b.ready("ending")
	b.remove("ending")
	b.eventually("it ends", 30*time.Second, func() error {
		if p := b.pod("ending"); p == nil || !p.Ending {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	b.ask(p, "8080/mode/fail")
	b.await("ending", "main", "is not ready", isUnready)
	b.eventually("it is asked again", 30*time.Second, func() error {
		if answered := b.ask(p, "8080/answered"); number(b, answered) < 3 {
			return fmt.Errorf("%s times", answered)
		}
		return nil
	})
	if told(b.pod("ending"), "Unhealthy", "Liveness") {
		b.t.Error("it is asked whether it lives")
	}
	b.must(os.WriteFile(dir+"/over", nil, 0o644))
	b.gone("ending", string(p.UID))
}

func sidecarsAreProbed(b *bed) {
	b.apply("sidecar", podOf("sidecar", `
terminationGracePeriodSeconds: 2
initContainers:
- name: side
  image: `+lab.ServerImage+`
  args: ["-delay", 2s]
  restartPolicy: Always
  startupProbe: {tcpSocket: {port: 7000}, periodSeconds: 1, failureThreshold: 30}
  readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1, failureThreshold: 1}
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]}`))
	p := b.ready("sidecar")
	side, main := container(p, "side").State.Running, container(p, "main").State.Running
	if gap := main.StartedAt.Sub(side.StartedAt.Time); gap < time.Second {
		b.t.Errorf("main started %v after its sidecar, whose port was closed", gap)
	}
	b.ask(p, "8080/mode/fail")
	b.await("sidecar", "side", "is not ready", isUnready)
	b.eventually("its pod is not ready", 30*time.Second, func() error {
		for _, c := range b.pod("sidecar").Status.Conditions {
			if c.Type == v1.PodReady && c.Status == v1.ConditionTrue {
				return fmt.Errorf("it is")
			}
		}
		return nil
	})
}

func noSuchPort(b *bed) {
	b.apply("noport", podOf("noport", serverOf("", `readinessProbe: {httpGet: {port: 8099}, periodSeconds: 1}`)))
	p, _ := b.await("noport", "main", "runs", func(s v1.ContainerStatus) bool { return s.State.Running != nil })
	b.awaitTold("noport", "Unhealthy", "Readiness probe failed: Get \"http://"+p.Status.PodIP+":8099/\": dial tcp")
	b.await("noport", "main", "is not ready", isUnready)
}

// namedButUnknownPort: an error counts for nothing, and a container is not
// restarted for what its author wrote.
func namedButUnknownPort(b *bed) {
	b.apply("wep", podOf("wep", serverOf("", `livenessProbe: {httpGet: {port: wep}, periodSeconds: 1, failureThreshold: 1}`)))
	b.awaitTold("wep", "Unhealthy", `Liveness probe errored and resulted in unknown state: container main has no port named "wep"`)
	if s := container(b.pod("wep"), "main"); s.RestartCount != 0 || !s.Ready {
		b.t.Errorf("it is %+v", s)
	}
}

func execTimeout(b *bed) {
	b.apply("slow", podOf("slow", serverOf("", `readinessProbe: {exec: {command: [sleep, "30"]}, periodSeconds: 1, timeoutSeconds: 1}`)))
	b.awaitTold("slow", "Unhealthy", `Readiness probe failed: command timed out: "sleep 30" timed out after 1s`)
	b.await("slow", "main", "is not ready", isUnready)
	id := container(b.pod("slow"), "main").ContainerID
	b.remove("slow")
	b.eventually("its commands were ended", 60*time.Second, func() error {
		if p := b.pod("slow"); p != nil {
			return fmt.Errorf("container %s has not ended", id)
		}
		return nil
	})
}

func crossHostRedirect(b *bed) {
	b.apply("redirect", podOf("redirect", serverOf("", `readinessProbe: {httpGet: {port: 8080, path: "/redirect?to=http://elsewhere.invalid/"}, periodSeconds: 1}`)))
	b.ready("redirect")
	b.awaitTold("redirect", "ProbeWarning", "Readiness probe warning: Probe terminated redirects, Response body: ")
}

// hugeAnswer: an answer of 1 GB is a success that costs next to nothing.
func hugeAnswer(b *bed) {
	before := residentMiB(b, b.Pid())
	b.apply("huge", podOf("huge", serverOf("", `readinessProbe: {httpGet: {port: 8080, path: /big}, periodSeconds: 1}`)))
	b.ready("huge")
	if grown := residentMiB(b, b.Pid()) - before; grown > 64 {
		b.t.Errorf("the agent grew by %d MiB", grown)
	}
}

func residentMiB(b *bed, pid int) (mib int) {
	b.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	b.must(err)
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			fmt.Sscan(rest, &mib)
		}
	}
	return mib / 1024
}

func probesOnHostNetwork(b *bed) {
	b.apply("hostnet", podOf("hostnet", "hostNetwork: true"+serverOf(`"-ports", "10000"`, `readinessProbe: {httpGet: {port: 18080}, periodSeconds: 1}`)))
	b.ready("hostnet")
}

func probeOfOtherHost(b *bed) {
	b.apply("target", podOf("target", serverOf("", "")))
	target := b.ready("target")
	b.apply("asker", podOf("asker", `
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]
  readinessProbe: {httpGet: {host: `+target.Status.PodIP+`, port: 8080}, periodSeconds: 1, failureThreshold: 1}`))
	b.ready("asker")
	b.ask(target, "8080/mode/fail")
	b.await("asker", "main", "is not ready", isUnready)
}

// TestRestartKeepsReady: a container that is ready stays so when the agent is
// killed and started again, until its probes say otherwise. The first answer after
// that knows it too.
func TestRestartKeepsReady(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.must(b.AddServerImage())
	b.start()
	b.apply("stays", podOf("stays", serverOf("", `
startupProbe: {httpGet: {port: 8080}, periodSeconds: 2, timeoutSeconds: 20, failureThreshold: 30}
readinessProbe: {httpGet: {port: 8080}, periodSeconds: 2, timeoutSeconds: 20, failureThreshold: 1}`)))
	p := b.ready("stays")
	for range 3 {
		b.eventually("it is on record", 30*time.Second, func() error {
			data, err := os.ReadFile(b.Root + "/nodeagent/pods/" + string(p.UID) + ".json")
			if err == nil && !strings.Contains(string(data), `"ready":true`) {
				err = fmt.Errorf("not yet")
			}
			return err
		})
		b.restart()
		looks := 0
		for began := time.Now(); looks < 100 || time.Since(began) < 3*time.Second; <-time.After(5 * time.Millisecond) {
			r, err := b.report()
			b.must(err)
			looks++
			if s := container(find(r, "stays"), "main"); !s.Ready || s.Started == nil || !*s.Started {
				t.Fatalf("%v after the restart it is %+v", time.Since(began), s)
			}
		}
	}
	b.ask(p, "8080/mode/fail")
	b.await("stays", "main", "is not ready", isUnready)
	b.restart()
	if _, s := b.await("stays", "main", "is seen", func(s v1.ContainerStatus) bool { return s.State.Running != nil }); s.Ready {
		t.Error("it is ready again, though nobody said so")
	}
}
