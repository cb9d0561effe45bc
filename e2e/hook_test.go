package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestHooks is what hooks do besides running commands, which TestLife shows.
func TestHooks(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.must(b.AddServerImage())
	b.start()
	b.share(map[string]func(*bed){
		"HTTPGoesToThePod":      httpHookGoesToThePod,
		"HTTPFallsBack":         httpHookFallsBack,
		"HTTPFailureIsTold":     httpHookFailure,
		"AnyAnswerIsSuccess":    anyAnswerIsSuccess,
		"HTTPEndsWithItsGrace":  httpHookEndsWithItsGrace,
		"SleepBeforeTheEnd":     sleepBeforeTheEnd,
		"SleepOfNothing":        sleepOfNothing,
		"SocketIsNoHook":        socketIsNoHook,
		"StopSignalIsDelivered": stopSignalIsDelivered,
	})
}

// hooked is a pod whose first container serves, until the hooks of the second
// have run.
func hooked(lifecycle string) string {
	return `
terminationGracePeriodSeconds: 10
containers:
- name: serve
  image: ` + lab.ServerImage + `
  lifecycle:
    postStart: {exec: {command: [sh, -c, "until wget -qO- http://127.0.0.1:8080/; do sleep 0.1; done"]}}
    preStop: {sleep: {seconds: 2}}
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]
  lifecycle: {` + lifecycle + `}`
}

func httpHookGoesToThePod(b *bed) {
	b.apply("hears", podOf("hears", serverOf("", "")))
	hears := b.ready("hears")
	b.apply("calls", podOf("calls", hooked(`postStart: {httpGet: {port: 8080, path: /log/poststart}}, preStop: {httpGet: {host: `+
		hears.Status.PodIP+`, port: 8080, path: /log/prestop}}`)))
	calls := b.ready("calls")
	if log := b.ask(calls, "8080/log"); log != "poststart\n" {
		b.t.Errorf("the pod's own server heard %q", log)
	}
	b.remove("calls")
	b.gone("calls", string(calls.UID))
	if log := b.ask(hears, "8080/log"); log != "prestop\n" {
		b.t.Errorf("the other server heard %q", log)
	}
}

func httpHookFallsBack(b *bed) {
	b.apply("plain", podOf("plain", hooked(`postStart: {httpGet: {port: 8080, scheme: HTTPS, path: /log/fallback}}`)))
	p := b.ready("plain")
	if log := b.ask(p, "8080/log"); log != "fallback\n" {
		b.t.Errorf("the server heard %q", log)
	}
	want := fmt.Sprintf("request to HTTPS lifecycle hook %s:8080 got HTTP response, retry with HTTP succeeded", p.Status.PodIP)
	if p := b.pod("plain"); !told(p, "LifecycleHTTPFallback", want) {
		b.t.Errorf("notes %+v", p.Notes)
	}
}

func httpHookFailure(b *bed) {
	b.apply("nobody", podOf("nobody", hooked(`postStart: {httpGet: {port: 8099}}`)))
	b.await("nobody", "main", "is restarted for its hook", func(s v1.ContainerStatus) bool { return s.RestartCount >= 1 })
	b.awaitTold("nobody", "FailedPostStartHook", "PostStartHook failed")
}

func anyAnswerIsSuccess(b *bed) {
	b.apply("rude", podOf("rude", hooked(`postStart: {httpGet: {port: 8080, path: /status/500}}`)))
	if s := container(b.ready("rude"), "main"); s.RestartCount != 0 {
		b.t.Errorf("%d restarts", s.RestartCount)
	}
}

// httpHookEndsWithItsGrace: a server that never answers holds nobody longer.
func httpHookEndsWithItsGrace(b *bed) {
	b.apply("mute", podOf("mute", hooked(`preStop: {httpGet: {port: 8080, path: /stall}}`)))
	if took := b.ends("mute"); took > 20*time.Second {
		b.t.Errorf("it took %v, its grace is 10 s", took)
	}
}

func sleepBeforeTheEnd(b *bed) {
	b.apply("naps", podOf("naps", strings.Replace(hooked(`preStop: {sleep: {seconds: 3}}`), "Seconds: 10", "Seconds: 60", 1)))
	if took := b.ends("naps"); took < 3*time.Second || took > 30*time.Second {
		b.t.Errorf("it took %v, its hook sleeps 3 s", took)
	}
}

func sleepOfNothing(b *bed) {
	b.apply("awake", podOf("awake", hooked(`postStart: {sleep: {seconds: 0}}, preStop: {sleep: {seconds: 0}}`)))
	b.ends("awake")
}

func socketIsNoHook(b *bed) {
	b.apply("socket", podOf("socket", hooked(`postStart: {tcpSocket: {port: 8080}}`)))
	b.await("socket", "main", "is restarted for its hook", func(s v1.ContainerStatus) bool { return s.RestartCount >= 1 })
	if out := b.say("explain", "socket-lab"); !strings.Contains(out, "a hook may not be a tcpSocket") {
		b.t.Errorf("explain says %s", out)
	}
}

// stopSignalIsDelivered: the container that waits for it ends at once.
func stopSignalIsDelivered(b *bed) {
	b.apply("usr1", podOf("usr1", `
os: {name: linux}
terminationGracePeriodSeconds: 30
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap '' TERM; trap exit USR1; touch /up; while true; do sleep 0.2; done"]
  readinessProbe: {exec: {command: [cat, /up]}, periodSeconds: 1}
  lifecycle: {stopSignal: SIGUSR1}`))
	if took := b.ends("usr1"); took > 15*time.Second {
		b.t.Errorf("it took %v of 30 s grace", took)
	}
}
