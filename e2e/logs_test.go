package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// insideCommand is a subcommand that looks into a pod, told where the runtime is.
func (b *bed) insideCommand(args ...string) *exec.Cmd {
	return b.Plain(append([]string{args[0], "--config", b.ConfigFile()}, args[1:]...)...)
}

// inside runs a subcommand that looks into a pod, and returns what it prints
// and its exit code.
func (b *bed) inside(args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	c := b.insideCommand(args...)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		return out.String(), errs.String(), exit.ExitCode()
	}
	b.must(err)
	return out.String(), errs.String(), 0
}

// TestLogs is what nodeagent logs shows.
func TestLogs(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.share(map[string]func(*bed){
		"LogsOfPrevious":     logsOfPrevious,
		"LogsFollowToTheEnd": logsFollowToTheEnd,
		"LogsOverRotation":   logsOverRotation,
		"LogsFollowCtrlC":    logsFollowCtrlC,
		"LogsSplitLine":      logsSplitLine,
	})
}

func logsOfPrevious(b *bed) {
	b.apply("again", podOf("again", `
volumes: [{name: e, emptyDir: {}}]
containers:
- {name: a, image: BUSYBOX, volumeMounts: [{name: e, mountPath: /e}], command: [sh, -c, "echo x >> /e/n; echo run $(wc -l < /e/n); test $(wc -l < /e/n) = 2 || exit 1; trap exit TERM; sleep 1000 & wait"]}`))
	b.await("again", "a", "runs again", func(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.Ready })
	b.eventually("the second has spoken", 30*time.Second, func() error { return want(b, "run 2\n", "logs", "again-lab") })
	b.must(want(b, "run 1\n", "logs", "-p", "again-lab"))
}

func logsFollowToTheEnd(b *bed) {
	b.apply("ending", podOf("ending", `
restartPolicy: Never
containers: [{name: a, image: BUSYBOX, command: [sh, -c, "for i in 1 2 3 4 5; do echo $i; sleep 0.5; done"]}]`))
	b.await("ending", "a", "runs", func(s v1.ContainerStatus) bool { return s.State.Running != nil })
	b.must(want(b, "1\n2\n3\n4\n5\n", "logs", "-f", "ending-lab"))
}

// logsOverRotation rotates the log of a busy container as a kubelet does, while
// it is followed; every line arrives once.
func logsOverRotation(b *bed) {
	b.apply("busy", podOf("busy", `
restartPolicy: Never
containers: [{name: a, image: BUSYBOX, command: [sh, -c, "i=0; while [ $i -lt 60000 ]; do echo $i; i=$((i+1)); done; sleep 2"]}]`))
	p, s := b.await("busy", "a", "runs", func(s v1.ContainerStatus) bool { return s.State.Running != nil })
	log := filepath.Join(b.PodLogs, "default_busy-lab_"+string(p.UID), "a", "0.log")
	_, id, _ := strings.Cut(s.ContainerID, "://")
	c := b.insideCommand("logs", "-f", "busy-lab")
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	b.must(c.Start())
	for i := range 4 {
		<-time.After(300 * time.Millisecond)
		b.must(os.Rename(log, fmt.Sprintf("%s.20260102-15040%d", log, i)))
		_, err := b.CRI.Runtime.ReopenContainerLog(b.t.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
		b.must(err)
	}
	b.must(c.Wait())
	var all strings.Builder
	for i := range 60000 {
		fmt.Fprintln(&all, i)
	}
	if out.String() != all.String() {
		b.t.Errorf("followed: %d bytes, want %d", out.Len(), all.Len())
	}
	b.must(want(b, all.String(), "logs", "busy-lab"))
}

func logsFollowCtrlC(b *bed) {
	b.apply("watched", sleeper("watched"))
	b.ready("watched")
	c := b.insideCommand("logs", "-f", "watched-lab")
	out, err := c.StdoutPipe()
	b.must(err)
	b.must(c.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		b.t.Errorf("%q, %v", line, err)
	}
	b.must(c.Process.Signal(syscall.SIGINT))
	if err := c.Wait(); err != nil {
		b.t.Errorf("its end: %v", err)
	}
}

// logsSplitLine: the runtime splits long lines, and people see them whole.
func logsSplitLine(b *bed) {
	b.apply("long", podOf("long", `
restartPolicy: Never
containers: [{name: a, image: BUSYBOX, command: [sh, -c, "head -c 100000 /dev/zero | tr '\\0' x; echo"]}]`))
	b.phase("long", "Succeeded")
	b.must(want(b, strings.Repeat("x", 100000)+"\n", "logs", "long-lab"))
}
