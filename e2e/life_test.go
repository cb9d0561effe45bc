package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestLife is what happens to pods between their file's coming and going.
func TestLife(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.share(map[string]func(*bed){
		"Runs":                       runs,
		"ImageChangeRestarts":        imageChangeRestarts,
		"ChangedFileReplacesPod":     changedFileReplacesPod,
		"CrashRestartsAtOnce":        crashRestartsAtOnce,
		"SecondCrashBacksOff":        secondCrashBacksOff,
		"InitsAndSidecarsInOrder":    initsAndSidecarsInOrder,
		"OnFailureJobSucceeds":       onFailureJobSucceeds,
		"NeverJobFails":              neverJobFails,
		"ActiveDeadlineEndsPod":      activeDeadlineEndsPod,
		"TermIsHandled":              termIsHandled,
		"KillAfterGrace":             killAfterGrace,
		"TerminationMessage":         terminationMessage,
		"LogsAreNumbered":            logsAreNumbered,
		"RestartRules":               restartRules,
		"Hooks":                      hooks,
		"FailedPostStartKills":       failedPostStartKills,
		"PodComesBackUnderItsUID":    podComesBackUnderItsUID,
		"LostSandboxIsMadeAnew":      lostSandboxIsMadeAnew,
		"RemovedContainerIsReplaced": removedContainerIsReplaced,
	})
}

func runs(b *bed) {
	b.apply("runs", sleeper("runs"))
	p := b.ready("runs")
	if got := len(b.instances(string(p.UID))); got != 1 {
		b.t.Fatalf("%d instances run, want 1", got)
	}
	if p.Status.PodIP == "" || p.Status.Phase != v1.PodRunning {
		b.t.Errorf("phase %s, address %q", p.Status.Phase, p.Status.PodIP)
	}
	b.remove("runs")
	b.gone("runs", string(p.UID))
}

// otherImage names the same image by another name, which makes another
// container of it.
func (b *bed) otherImage(name string) string {
	b.t.Helper()
	ctx := context.Background()
	out, err := b.Runtime.Programs.CtrCommand(ctx, b.Runtime.Socket(), "images", "tag", "--force", lab.BusyboxImage, name).CombinedOutput()
	if err != nil {
		b.t.Fatalf("tag: %v: %s", err, out)
	}
	b.eventually("the runtime has image "+name, 30*time.Second, func() error {
		if ok, err := b.CRI.HasImage(ctx, name); err != nil || !ok {
			return fmt.Errorf("not yet (%v)", err)
		}
		return nil
	})
	return name
}

func imageChangeRestarts(b *bed) {
	manifest := podOf("image, uid: 5d3c8f1e-0000-4000-8000-00000000aaaa", `
terminationGracePeriodSeconds: 5
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]}
- {name: other, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]}`)
	b.apply("image", manifest)
	before := b.ready("image")
	first := b.instances(string(before.UID))
	other := b.otherImage("nodeagent.test/busybox:other")
	b.apply("image", strings.Replace(manifest, lab.BusyboxImage, other, 1))
	b.await("image", "main", "is restarted", func(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.Ready })
	after := b.ready("image")
	if after.UID != before.UID {
		b.t.Errorf("UID %s became %s", before.UID, after.UID)
	}
	now := b.instances(string(after.UID))
	if now["main"] == first["main"] || now["other"] != first["other"] {
		b.t.Errorf("instances %v became %v, want only main replaced", first, now)
	}
	if n := len(b.sandboxes(string(after.UID))); n != 1 {
		b.t.Errorf("%d sandboxes, want 1", n)
	}
}

func changedFileReplacesPod(b *bed) {
	// A short grace: a shell that was just started ignores TERM until its trap is set.
	spec := `
terminationGracePeriodSeconds: 5
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap 'sleep 1; exit' TERM; sleep 1000 & wait"]}`
	b.apply("replace", podOf("replace", spec))
	old := b.ready("replace")
	was := b.instances(string(old.UID))["main"]
	b.apply("replace", podOf("replace", strings.Replace(spec, "1000", "1001", 1)))
	b.eventually("the new pod runs", 30*time.Second, func() error {
		if p := b.pod("replace"); p == nil || p.UID == old.UID || p.Status.Phase != v1.PodRunning {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	now := b.ready("replace")
	b.gone("replace", string(old.UID))
	started := b.inspect(b.instances(string(now.UID))["main"])
	if started.Id == was {
		b.t.Fatal("the old container goes on")
	}
	if n := container(now, "main").RestartCount; n != 0 {
		b.t.Errorf("the new pod begins with %d restarts", n)
	}
	// The old one took a second to end, and the new one waited for it.
	if began := time.Unix(0, started.StartedAt); began.Sub(now.Status.StartTime.Time) < time.Second {
		b.t.Errorf("the new container began %v after its pod was seen, before the old one ended", began.Sub(now.Status.StartTime.Time))
	}
}

// crashOnce is a container that ends with code 3 when it runs for the first
// time in its pod.
const crashOnce = `
volumes: [{name: d, emptyDir: {}}]
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "echo up; [ -e /d/x ] || { touch /d/x; exit 3; }; trap exit TERM; sleep 1000 & wait"]
  volumeMounts: [{name: d, mountPath: /d}]`

func crashRestartsAtOnce(b *bed) {
	died, again := crashRestarts(b)
	if gap := again.Sub(died); gap > 2*time.Second {
		b.t.Errorf("it was started %v after it died", gap)
	}
}

func crashRestarts(b *bed) (died, again time.Time) {
	b.apply("crash", podOf("crash", crashOnce))
	_, s := b.await("crash", "main", "is restarted", func(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.Ready })
	last := s.LastTerminationState.Terminated
	if last == nil || last.ExitCode != 3 || last.Reason != "Error" {
		b.t.Fatalf("last state is %+v, want exit code 3", last)
	}
	return time.Unix(0, b.inspect(last.ContainerID).FinishedAt), time.Unix(0, b.inspect(s.ContainerID).StartedAt)
}

func secondCrashBacksOff(b *bed) {
	b.apply("loop", podOf("loop", `
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "exit 1"]}`))
	_, s := b.await("loop", "main", "backs off", func(s v1.ContainerStatus) bool {
		return s.State.Waiting != nil && s.State.Waiting.Reason == "CrashLoopBackOff"
	})
	if s.RestartCount != 1 {
		b.t.Errorf("back-off after %d restarts, want 1", s.RestartCount)
	}
	if !strings.Contains(s.State.Waiting.Message, "back-off 10s restarting failed container=main pod=loop-lab_default(") {
		b.t.Errorf("message %q", s.State.Waiting.Message)
	}
	died := time.Unix(0, b.inspect(s.LastTerminationState.Terminated.ContainerID).FinishedAt)
	p, s := b.await("loop", "main", "is tried again", func(s v1.ContainerStatus) bool { return s.RestartCount == 2 })
	third := b.containers(string(p.UID))
	again := time.Unix(0, slices.MaxFunc(third, func(a, b *runtimeapi.Container) int { return int(a.CreatedAt - b.CreatedAt) }).CreatedAt)
	if gap := again.Sub(died); gap < 10*time.Second || gap > 12*time.Second {
		b.t.Errorf("it was tried again after %v, want 10 s", gap)
	}
	b.remove("loop")
	b.gone("loop", string(p.UID))
}

func initsAndSidecarsInOrder(b *bed) {
	dir := b.Path("order")
	b.must(os.MkdirAll(dir, 0o755))
	const script = `command: [sh, -c, "echo NAME >> /d/log; trap 'echo NAME-term >> /d/log; sleep 0.5; echo NAME-end >> /d/log; exit' TERM; sleep 1000 & wait"]`
	spec := `
volumes: [{name: d, hostPath: {path: ` + dir + `, type: Directory}}]
initContainers:
- {name: i1, image: BUSYBOX, command: [sh, -c, "echo i1 >> /d/log; sleep 0.3; echo i1-end >> /d/log"], volumeMounts: [{name: d, mountPath: /d}]}
- {name: s1, image: BUSYBOX, restartPolicy: Always, ` + strings.ReplaceAll(script, "NAME", "s1") + `, volumeMounts: [{name: d, mountPath: /d}]}
- {name: i2, image: BUSYBOX, command: [sh, -c, "sleep 0.5; echo i2 >> /d/log; echo i2-end >> /d/log"], volumeMounts: [{name: d, mountPath: /d}]}
- {name: s2, image: BUSYBOX, restartPolicy: Always, ` + strings.ReplaceAll(script, "NAME", "s2") + `, volumeMounts: [{name: d, mountPath: /d}]}
containers:
- {name: m, image: BUSYBOX, command: [sh, -c, "sleep 0.5; echo m >> /d/log; trap 'echo m-term >> /d/log; sleep 0.5; echo m-end >> /d/log; exit' TERM; sleep 1000 & wait"], volumeMounts: [{name: d, mountPath: /d}]}`
	b.apply("order", podOf("order", spec))
	p := b.ready("order")
	b.eventually("main says so", 30*time.Second, func() error {
		if !slices.Contains(b.lines(dir+"/log"), "m") {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	b.remove("order")
	b.gone("order", string(p.UID))
	got := strings.Join(b.lines(dir+"/log"), " ")
	if want := "i1 i1-end s1 i2 i2-end s2 m m-term m-end s2-term s2-end s1-term s1-end"; got != want {
		b.t.Errorf("order of events\n got %s\nwant %s", got, want)
	}
}

func onFailureJobSucceeds(b *bed) {
	b.apply("job", podOf("job", "restartPolicy: OnFailure\n"+strings.Replace(strings.TrimSpace(crashOnce), "trap exit TERM; sleep 1000 & wait", "exit 0", 1)))
	p := b.phase("job", "Succeeded")
	if s := container(p, "main"); s.RestartCount != 1 || s.State.Terminated == nil || s.State.Terminated.ExitCode != 0 {
		b.t.Errorf("main is %+v, want one restart and exit code 0", s)
	}
	b.eventually("its sandbox is down", 30*time.Second, func() error {
		for _, s := range b.sandboxes(string(p.UID)) {
			if s.State == runtimeapi.PodSandboxState_SANDBOX_READY {
				return fmt.Errorf("sandbox %s is ready", s.Id)
			}
		}
		return nil
	})
}

func neverJobFails(b *bed) {
	b.apply("never", podOf("never", `
restartPolicy: Never
containers:
- {name: good, image: BUSYBOX, command: [sh, -c, "exit 0"]}
- {name: bad, image: BUSYBOX, command: [sh, -c, "exit 7"]}`))
	p := b.phase("never", "Failed")
	if s := container(p, "bad"); s.RestartCount != 0 || s.State.Terminated == nil || s.State.Terminated.ExitCode != 7 {
		b.t.Errorf("bad is %+v, want exit code 7 and no restart", s)
	}
	if n := len(b.containers(string(p.UID))); n != 2 {
		b.t.Errorf("%d containers, want 2", n)
	}
}

func activeDeadlineEndsPod(b *bed) {
	b.apply("late", podOf("late", `
activeDeadlineSeconds: 2
terminationGracePeriodSeconds: 3
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]}`))
	p := b.phase("late", "Failed")
	if p.Status.Reason != "DeadlineExceeded" {
		b.t.Errorf("reason %q: %s", p.Status.Reason, p.Status.Message)
	}
	if n := len(b.instances(string(p.UID))); n != 0 {
		b.t.Errorf("%d containers run on", n)
	}
}

// ends removes the pod and says how long it took to go.
func (b *bed) ends(name string) time.Duration {
	b.t.Helper()
	p := b.ready(name)
	began := time.Now()
	b.remove(name)
	b.gone(name, string(p.UID))
	return time.Since(began)
}

func termIsHandled(b *bed) {
	dir := b.Path("term")
	b.must(os.MkdirAll(dir, 0o755))
	b.apply("term", podOf("term", `
volumes: [{name: d, hostPath: {path: `+dir+`}}]
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap 'echo term > /d/x; exit' TERM; touch /d/up; sleep 1000 & wait"], volumeMounts: [{name: d, mountPath: /d}]}`))
	b.eventually("it is up", 30*time.Second, func() error { _, err := os.Stat(dir + "/up"); return err })
	if took := b.ends("term"); took > 20*time.Second {
		b.t.Errorf("it took %v of 30 s grace", took)
	}
	if got := b.lines(dir + "/x"); !slices.Equal(got, []string{"term"}) {
		b.t.Errorf("the container wrote %v", got)
	}
}

func killAfterGrace(b *bed) {
	b.apply("stubborn", podOf("stubborn", `
terminationGracePeriodSeconds: 4
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap '' TERM; while true; do sleep 1; done"]}`))
	p := b.ready("stubborn")
	began := time.Now()
	b.remove("stubborn")
	b.eventually("the stop and its grace are shown", 30*time.Second, func() error {
		p := b.pod("stubborn")
		if p == nil || !p.Ending || len(p.Doing) == 0 || !strings.HasSuffix(p.Doing[0].Step, "/4") {
			return fmt.Errorf("it shows %+v", p)
		}
		return nil
	})
	b.gone("stubborn", string(p.UID))
	if took := time.Since(began); took < 4*time.Second || took > 20*time.Second {
		b.t.Errorf("it took %v, want its grace of 4 s", took)
	}
}

func terminationMessage(b *bed) {
	b.apply("message", podOf("message", `
restartPolicy: Never
containers:
- {name: file, image: BUSYBOX, command: [sh, -c, "echo from the file > /dev/termination-log; exit 1"]}
- {name: log, image: BUSYBOX, terminationMessagePolicy: FallbackToLogsOnError, command: [sh, -c, "echo from the log; exit 1"]}`))
	p := b.phase("message", "Failed")
	for name, want := range map[string]string{"file": "from the file\n", "log": "from the log\n"} {
		if s := container(p, name); s.State.Terminated == nil || s.State.Terminated.Message != want {
			b.t.Errorf("%s: %+v, want message %q", name, s.State.Terminated, want)
		}
	}
}

func logsAreNumbered(b *bed) {
	b.apply("logs", podOf("logs", strings.Replace(crashOnce, "echo up", "echo hello of $(cat /d/x)", 1)))
	p, s := b.await("logs", "main", "is restarted", func(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.Ready })
	dir := filepath.Join(b.PodLogs, "default_logs-lab_"+string(p.UID), "main")
	for _, n := range []string{"0", "1"} {
		b.eventually("log "+n+" is written", 30*time.Second, func() error {
			data, err := os.ReadFile(filepath.Join(dir, n+".log"))
			if err == nil && !strings.Contains(string(data), " stdout F hello of") {
				err = fmt.Errorf("it has %q", data)
			}
			return err
		})
	}
	_, id, _ := strings.Cut(s.ContainerID, "://")
	link := filepath.Join("/var/log/containers", fmt.Sprintf("logs-lab_default_main-%s.log", id))
	if target, err := os.Readlink(link); err != nil || target != filepath.Join(dir, "1.log") {
		b.t.Errorf("link %s leads to %q (%v), want %s/1.log", link, target, err, dir)
	}
	b.remove("logs")
	b.gone("logs", string(p.UID))
	if left, _ := filepath.Glob("/var/log/containers/logs-lab_default_main-*"); slices.Contains(left, link) {
		b.t.Errorf("links are left: %v", left)
	}
}

func restartRules(b *bed) {
	b.apply("rules", podOf("rules", `
restartPolicy: Never
volumes: [{name: d, emptyDir: {}}]
containers:
- name: main
  image: BUSYBOX
  restartPolicy: Never
  restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]
  command: [sh, -c, "[ -e /d/x ] || { touch /d/x; exit 42; }; exit 1"]
  volumeMounts: [{name: d, mountPath: /d}]`))
	p := b.phase("rules", "Failed")
	s := container(p, "main")
	if s.RestartCount != 1 || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 42 ||
		s.State.Terminated == nil || s.State.Terminated.ExitCode != 1 {
		b.t.Errorf("main is %+v, want a restart after 42 and none after 1", s)
	}
}

func hooks(b *bed) {
	dir := b.Path("hooks")
	b.must(os.MkdirAll(dir, 0o755))
	b.apply("hooks", podOf("hooks", `
volumes: [{name: d, hostPath: {path: `+dir+`}}]
containers:
- name: first
  image: BUSYBOX
  command: [sh, -c, "trap 'echo term >> /d/log; exit' TERM; sleep 1000 & wait"]
  volumeMounts: [{name: d, mountPath: /d}]
  lifecycle:
    postStart: {exec: {command: [sh, -c, "sleep 1; echo poststart >> /d/log"]}}
    preStop: {exec: {command: [sh, -c, "echo prestop >> /d/log; sleep 1; echo prestop-end >> /d/log"]}}
- name: second
  image: BUSYBOX
  command: [sh, -c, "echo second >> /d/log; trap exit TERM; sleep 1000 & wait"]
  volumeMounts: [{name: d, mountPath: /d}]`))
	b.ready("hooks")
	b.eventually("second runs", 30*time.Second, func() error {
		if len(b.lines(dir+"/log")) < 2 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	b.ends("hooks")
	got := strings.Join(b.lines(dir+"/log"), " ")
	if want := "poststart second prestop prestop-end term"; got != want {
		b.t.Errorf("order of events\n got %s\nwant %s", got, want)
	}
}

func failedPostStartKills(b *bed) {
	b.apply("badhook", podOf("badhook", `
terminationGracePeriodSeconds: 2
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]
  lifecycle: {postStart: {exec: {command: [sh, -c, "exit 9"]}}}`))
	p, _ := b.await("badhook", "main", "is restarted for its hook", func(s v1.ContainerStatus) bool { return s.RestartCount >= 1 })
	if !told(b.pod("badhook"), "FailedPostStartHook", "") {
		b.t.Errorf("nobody is told: %+v", p.Notes)
	}
	b.remove("badhook")
	b.gone("badhook", string(p.UID))
}

// podComesBackUnderItsUID: a file that is removed and put back at once is the
// same pod by its UID, ended and begun again.
func podComesBackUnderItsUID(b *bed) {
	manifest := podOf("again", `
terminationGracePeriodSeconds: 5
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap 'sleep 1; exit' TERM; sleep 1000 & wait"]}`)
	b.apply("again", manifest)
	p := b.ready("again")
	was := b.instances(string(p.UID))["main"]
	b.remove("again")
	b.eventually("it ends", 30*time.Second, func() error {
		if p := b.pod("again"); p == nil || !p.Ending {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	b.apply("again", manifest)
	b.eventually("it runs again", 30*time.Second, func() error {
		p := b.pod("again")
		if p == nil || p.Ending {
			return fmt.Errorf("still ending")
		}
		if now := b.instances(string(p.UID))["main"]; now == "" || now == was {
			return fmt.Errorf("instance %q", now)
		}
		return nil
	})
	b.ready("again")
	if n := len(b.sandboxes(string(p.UID))); n != 1 {
		b.t.Errorf("%d sandboxes, want 1", n)
	}
}

func lostSandboxIsMadeAnew(b *bed) {
	b.apply("lost", sleeper("lost"))
	p := b.ready("lost")
	first := b.sandboxes(string(p.UID))[0]
	_, err := b.CRI.Runtime.StopPodSandbox(context.Background(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: first.Id})
	b.must(err)
	b.await("lost", "main", "runs again", func(s v1.ContainerStatus) bool { return s.RestartCount >= 1 && s.Ready })
	ready := 0
	for _, s := range b.sandboxes(string(p.UID)) {
		if s.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			ready++
		}
	}
	// The old one is down, and stays only for the log of its container.
	if ready != 1 {
		b.t.Errorf("%d sandboxes are ready, want 1", ready)
	}
}

func removedContainerIsReplaced(b *bed) {
	b.apply("removed", sleeper("removed"))
	p := b.ready("removed")
	_, err := b.CRI.Runtime.RemoveContainer(context.Background(), &runtimeapi.RemoveContainerRequest{ContainerId: b.instances(string(p.UID))["main"]})
	b.must(err)
	b.await("removed", "main", "runs again", func(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.Ready })
}
