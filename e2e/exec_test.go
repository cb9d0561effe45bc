package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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

// TestInside is what people do inside pods, while no agent runs.
func TestInside(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("inside", sleeper("inside"))
	b.apply("two", podOf("two", `
containers:
- {name: a, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]}
- {name: b, image: BUSYBOX, command: [sh, -c, "trap exit TERM; httpd -f -p 80 -h / & wait"]}
- {name: c, image: BUSYBOX, stdin: true, command: [sh, -c, "trap exit TERM; while read line; do echo got $line; done; sleep 1000 & wait"]}`))
	b.ready("inside")
	b.ready("two")
	b.must(b.Agent.Stop())
	b.share(map[string]func(*bed){
		"ExecPrints":      func(b *bed) { b.must(want(b, "hello\n", "exec", "inside-lab", "--", "echo", "hello")) },
		"ExecByNamespace": func(b *bed) { b.must(want(b, "x\n", "exec", "default/inside-lab", "echo", "x")) },
		"ExecInContainer": func(b *bed) {
			b.must(want(b, "b\n", "exec", "-c", "b", "two-lab", "--", "sh", "-c", "pidof httpd > /dev/null && echo b"))
		},
		"ExecPassesExitCode": execPassesExitCode,
		"ExecPassesStdin":    execPassesStdin,
		"ExecWithTerminal": func(b *bed) {
			b.must(want(b, "terminal\r\n", "exec", "-t", "inside-lab", "--", "sh", "-c", "test -t 1 && echo terminal"))
		},
		"ExecManyBytes": execManyBytes,
		"ExecAmbiguous": func(b *bed) { b.refuses("containers a, b, c: choose one with -c", "exec", "two-lab", "--", "true") },
		"ExecNoSuchContainer": func(b *bed) {
			b.refuses(`no container "x" of the pod, only main`, "exec", "-c", "x", "inside-lab", "--", "true")
		},
		"ExecNoSuchPod":       func(b *bed) { b.refuses(`no containers of a pod "nobody"`, "exec", "nobody", "--", "true") },
		"ExecNoSuchCommand":   func(b *bed) { b.refuses("no such file", "exec", "inside-lab", "--", "/no/such") },
		"ExecWithoutCommand":  func(b *bed) { b.refuses("usage:", "exec", "inside-lab") },
		"AttachToStdin":       attachToStdin,
		"PortForward":         portForward,
		"PortForwardBadPort":  func(b *bed) { b.refuses("want LOCAL:REMOTE", "port-forward", "two-lab", "80:x") },
		"LogsWithoutAgent":    func(b *bed) { b.must(want(b, "up\n", "logs", "inside-lab")) },
		"LogsOfAllContainers": func(b *bed) { b.must(want(b, "", "logs", "--all-containers", "two-lab", "--tail", "0")) },
		"LogsNoPrevious":      func(b *bed) { b.refuses("no previous instance", "logs", "-p", "inside-lab") },
		"LogsBadSince":        func(b *bed) { b.refuses("--since-time", "logs", "--since-time", "noon", "inside-lab") },
	})
}

// refuses runs a subcommand that must fail and say why.
func (b *bed) refuses(text string, args ...string) {
	b.t.Helper()
	if out, errs, code := b.inside(args...); code == 0 || !strings.Contains(errs, text) {
		b.t.Errorf("nodeagent %v: exit code %d, %q, %q; want %q", args, code, out, errs, text)
	}
}

func execPassesExitCode(b *bed) {
	out, errs, code := b.inside("exec", "inside-lab", "--", "sh", "-c", "echo out; echo err >&2; exit 42")
	if code != 42 || out != "out\n" || errs != "err\n" {
		b.t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
}

func execPassesStdin(b *bed) {
	c := b.insideCommand("exec", "-i", "inside-lab", "--", "wc", "-c")
	c.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
	if out, err := c.Output(); err != nil || strings.TrimSpace(string(out)) != "1048576" {
		b.t.Errorf("%v, %q", err, out)
	}
}

func execManyBytes(b *bed) {
	out, errs, code := b.inside("exec", "inside-lab", "--", "sh", "-c", "head -c 20000000 /dev/zero")
	if code != 0 || len(out) != 20_000_000 {
		b.t.Errorf("exit code %d, %d bytes, %q", code, len(out), errs)
	}
}

func attachToStdin(b *bed) {
	c := b.insideCommand("attach", "-i", "-c", "c", "two-lab")
	in, err := c.StdinPipe()
	b.must(err)
	out, err := c.StdoutPipe()
	b.must(err)
	b.must(c.Start())
	_, err = io.WriteString(in, "this\n")
	b.must(err)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "got this\n" {
		b.t.Errorf("%v, %q", err, line)
	}
	b.must(c.Process.Signal(syscall.SIGINT))
	_ = c.Wait() // interrupted
}

// portForward carries many connections at once; one to a closed port fails
// alone.
func portForward(b *bed) {
	c := b.insideCommand("port-forward", "two-lab", ":80", ":81")
	out, err := c.StdoutPipe()
	b.must(err)
	var errs bytes.Buffer
	c.Stderr = &errs
	b.must(c.Start())
	lines := bufio.NewReader(out)
	address := regexp.MustCompile(`from (\S+) -> (\d+)`)
	open := map[string]string{}
	for len(open) < 2 {
		line, err := lines.ReadString('\n')
		b.must(err)
		if m := address.FindStringSubmatch(line); m != nil && strings.HasPrefix(m[1], "127.") {
			open[m[2]] = m[1]
		}
	}
	go io.Copy(io.Discard, lines)
	ask := func(port string) (string, error) {
		conn, err := b.Network.Dial(b.t.Context(), "tcp", open[port])
		if err != nil {
			return "", err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, "GET /etc/hostname HTTP/1.0\r\n\r\n"); err != nil {
			return "", err
		}
		answer, err := io.ReadAll(conn)
		return string(answer), err
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if answer, err := ask("80"); err != nil || !strings.Contains(answer, "two-lab") {
				b.t.Errorf("%v, %q", err, answer)
			}
		})
		wg.Go(func() {
			if answer, err := ask("81"); answer != "" {
				b.t.Errorf("closed port: %v, %q", err, answer)
			}
		})
	}
	wg.Wait()
	if answer, err := ask("80"); err != nil || !strings.Contains(answer, "two-lab") {
		b.t.Errorf("after failures: %v, %q", err, answer)
	}
	b.must(c.Process.Signal(syscall.SIGTERM))
	if err := c.Wait(); err != nil {
		b.t.Errorf("its end: %v", err)
	}
	if !strings.Contains(errs.String(), "port 81 of the pod") {
		b.t.Errorf("it says %q of the closed port", &errs)
	}
}

// TestPortForwardEndsWithPod: the runtime keeps the tunnel to a pod that is
// gone; who connects then ends it.
func TestPortForwardEndsWithPod(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("brief", sleeper("brief"))
	p := b.ready("brief")
	c := b.insideCommand("port-forward", "brief-lab", ":80")
	out, err := c.StdoutPipe()
	b.must(err)
	var errs bytes.Buffer
	c.Stderr = &errs
	b.must(c.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	b.must(err)
	address := regexp.MustCompile(`from (\S+) -> 80`).FindStringSubmatch(line)
	if address == nil {
		t.Fatalf("it says %q", line)
	}
	connect := func() {
		conn, err := b.Network.Dial(t.Context(), "tcp", address[1])
		b.must(err)
		defer conn.Close()
		_, _ = io.ReadAll(conn)
	}
	connect() // the port is closed, and the pod is there: it goes on
	connect()
	b.remove("brief")
	b.gone("brief", string(p.UID))
	connect()
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = c.Process.Kill()
		<-done
		t.Error("it goes on without its pod")
	}
	if !strings.Contains(errs.String(), "the pod's sandbox is gone") {
		t.Errorf("it says %q", &errs)
	}
}
