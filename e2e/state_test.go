package e2e

import (
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

// TestDamagedRecords damages the record of each pod in its own way while the
// agent is down: it starts, warns, and no container notices.
func TestDamagedRecords(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	damage := map[string]func([]byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"truncated": func(d []byte) []byte { return d[:len(d)/2] },
		"shorter":   func(d []byte) []byte { return d[:len(d)-1] },
		"flipped":   func(d []byte) []byte { d[len(d)/2] ^= 1; return d },
		"noise":     func(d []byte) []byte { return []byte(strings.Repeat("\x00\xff", 300)) },
		"version":   func(d []byte) []byte { return []byte(strings.Replace(string(d), `"version":1`, `"version":9`, 1)) },
	}
	for name := range damage {
		b.apply(name, podOf(name, crashOnce))
	}
	was := map[string]string{}
	for name := range damage {
		p, _ := b.await(name, "main", "was restarted once", func(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.Ready })
		was[name] = b.instances(string(p.UID))["main"]
	}
	b.must(b.Agent.Kill())
	for name, change := range damage {
		file := b.recordOf(name)
		data, err := os.ReadFile(file)
		b.must(err)
		b.must(os.WriteFile(file, change(data), 0o600))
	}
	b.start()
	for name := range damage {
		p := b.ready(name)
		if now := b.instances(string(p.UID))["main"]; now != was[name] {
			t.Errorf("%s: instance %s became %s", name, was[name], now)
		}
		if n := container(p, "main").RestartCount; n != 1 {
			t.Errorf("%s: %d restarts, want 1", name, n)
		}
	}
	if n := strings.Count(b.agentLog(), "set aside"); n != len(damage) {
		t.Errorf("%d warnings, want %d", n, len(damage))
	}
	for name := range damage {
		uid := string(b.pod(name).UID)
		b.remove(name)
		b.gone(name, uid)
	}
}

// recordOf is the file with the record of the pod of that name.
func (b *bed) recordOf(name string) string {
	b.t.Helper()
	files, err := filepath.Glob(filepath.Join(b.Root, "nodeagent/pods/*.json"))
	b.must(err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		b.must(err)
		if strings.Contains(string(data), `"name":"`+name+`-lab"`) {
			return file
		}
	}
	b.t.Fatalf("no record of %s among %v", name, files)
	return ""
}

// TestBackoffOutlivesAgent: neither the wait for the next restart nor the count
// of restarts begins anew with the agent.
func TestBackoffOutlivesAgent(t *testing.T) {
	t.Parallel()
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("loop", podOf("loop", "containers: [{name: main, image: BUSYBOX, command: [sh, -c, 'exit 1']}]"))
	_, s := b.await("loop", "main", "backs off", waitsFor("CrashLoopBackOff"))
	died := time.Unix(0, b.inspect(s.LastTerminationState.Terminated.ContainerID).FinishedAt)
	b.restart()
	_, s = b.await("loop", "main", "backs off", waitsFor("CrashLoopBackOff"))
	if s.RestartCount != 1 {
		t.Errorf("%d restarts, want 1", s.RestartCount)
	}
	p, _ := b.await("loop", "main", "is tried again", func(s v1.ContainerStatus) bool { return s.RestartCount == 2 })
	newest := slices.MaxFunc(b.containers(string(p.UID)), func(a, b *runtimeapi.Container) int { return int(a.CreatedAt - b.CreatedAt) })
	if gap := time.Unix(0, newest.CreatedAt).Sub(died); gap < 10*time.Second || gap > 18*time.Second {
		t.Errorf("it was tried again after %v, want 10 s", gap)
	}
	b.restart()
	_, s = b.await("loop", "main", "backs off", waitsFor("CrashLoopBackOff"))
	if !strings.Contains(s.State.Waiting.Message, "back-off 20s ") {
		t.Errorf("message %q, want a back-off of 20s", s.State.Waiting.Message)
	}
}

// TestJobIsNotRunTwice: a job that ended while the agent was down has ended.
func TestJobIsNotRunTwice(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("job", podOf("job", strings.Replace("restartPolicy: Never"+until(b.Lab.Dir, "end"), "exit 5", "echo ran >> /d/runs; exit 0", 1)))
	p := b.ready("job")
	b.must(b.Agent.Kill())
	b.must(os.WriteFile(b.Lab.Dir+"/end", nil, 0o644))
	b.eventually("it has ended", 30*time.Second, func() error {
		if n := len(b.instances(string(p.UID))); n > 0 {
			return fmt.Errorf("it runs")
		}
		return nil
	})
	b.start()
	b.phase("job", "Succeeded")
	b.restart()
	b.phase("job", "Succeeded")
	if runs := b.lines(b.Lab.Dir + "/runs"); len(runs) != 1 {
		t.Errorf("it ran %d times", len(runs))
	}
}

// TestHundredPods brings up a hundred pods at once, restarts the agent under
// them, and removes them all.
func TestHundredPods(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("warm", sleeper("warm"))
	uid := string(b.ready("warm").UID)
	b.remove("warm")
	b.gone("warm", uid)
	idle := b.Snapshot()
	const count = 100
	for i := range count {
		b.apply(fmt.Sprintf("many%02d", i), sleeper(fmt.Sprintf("many%02d", i)))
	}
	all := func() error {
		r, err := b.report()
		if err != nil {
			return err
		}
		n := 0
		for _, p := range r.Pods {
			if len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].Ready {
				n++
			}
		}
		if n != count {
			return fmt.Errorf("%d are", n)
		}
		return nil
	}
	began := time.Now()
	b.eventually("all are ready", 90*time.Second, all)
	t.Logf("all are ready after %v", time.Since(began))
	was := b.alive()
	b.must(b.Agent.Kill())
	began = time.Now()
	b.start()
	b.eventually("all show again", 10*time.Second, all)
	t.Logf("all show again after %v", time.Since(began))
	if now := b.alive(); !slices.Equal(now, was) {
		t.Errorf("the instances changed")
	}
	for i := range count {
		b.remove(fmt.Sprintf("many%02d", i))
	}
	began = time.Now()
	b.eventually("all are gone", 90*time.Second, func() error {
		r, err := b.report()
		if err == nil && len(r.Pods) > 0 {
			err = fmt.Errorf("%d are left", len(r.Pods))
		}
		return err
	})
	t.Logf("all are gone after %v", time.Since(began))
	if leaks := b.Leaks(idle); len(leaks) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(leaks, "\n"))
	}
}

// alive are the IDs of all running containers, sorted.
func (b *bed) alive() []string {
	b.t.Helper()
	var ids []string
	for _, c := range b.containers("") {
		if c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			ids = append(ids, c.Id)
		}
	}
	slices.Sort(ids)
	return ids
}

// TestOrphanWithoutRecord: a pod ends of which the agent finds neither manifest
// nor record, and its cgroup goes from a tier that only its spec would tell.
func TestOrphanWithoutRecord(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("left", stays("left", "requests: {cpu: 10m}"))
	uid := string(b.ready("left").UID)
	b.must(b.Agent.Kill())
	b.must(os.Remove(b.recordOf("left")))
	b.remove("left")
	b.start()
	b.gone("left", uid)
}
