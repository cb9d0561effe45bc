package e2e

import (
	"fmt"
	"testing"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// want says so unless the subcommand succeeds and prints just that.
func want(b *bed, text string, args ...string) error {
	out, errs, code := b.inside(args...)
	if code != 0 || out != text {
		return fmt.Errorf("nodeagent %v: exit code %d, %q, %q; want %q", args, code, out, errs, text)
	}
	return nil
}

// TestExec is what nodeagent exec does.
func TestExec(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("inside", sleeper("inside"))
	b.ready("inside")
	b.share(map[string]func(*bed){
		"ExecPrints":         func(b *bed) { b.must(want(b, "hello\n", "exec", "inside-lab", "--", "echo", "hello")) },
		"ExecPassesExitCode": execPassesExitCode,
	})
}

func execPassesExitCode(b *bed) {
	out, errs, code := b.inside("exec", "inside-lab", "--", "sh", "-c", "echo out; echo err >&2; exit 42")
	if code != 42 || out != "out\n" || errs != "err\n" {
		b.t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
}
