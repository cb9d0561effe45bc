package e2e

import (
	"os/exec"
	"strings"
	"testing"
	"time"

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
		"LogsOfTheOnlyContainer": logsOfTheOnlyContainer,
	})
}

func logsOfTheOnlyContainer(b *bed) {
	b.apply("only", sleeper("only"))
	b.ready("only")
	b.eventually("it has spoken", 10*time.Second, func() error {
		return want(b, "up\n", "logs", "only-lab")
	})
}
