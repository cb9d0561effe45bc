package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/cri/stream"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// exitCode is the end of a command in a container, for the shell that asked.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("the command ended with exit code %d", int(e)) }

// inside is what the subcommands have in common that look into a pod. They ask
// the runtime, so that they work while no agent runs.
type inside struct {
	flags     *pflag.FlagSet
	config    string
	endpoint  string
	container string
}

func newInside(name string) *inside {
	q := &inside{flags: pflag.NewFlagSet("nodeagent "+name, pflag.ContinueOnError)}
	q.flags.StringVar(&q.config, "config", "", "the agent's configuration, for where the runtime is")
	q.flags.StringVar(&q.endpoint, "container-runtime-endpoint", "", "the runtime's socket, instead of the configuration's")
	return q
}

// withContainer adds the flag that chooses a container.
func (q *inside) withContainer() *inside {
	q.flags.StringVarP(&q.container, "container", "c", "", "container of the pod; may be left out if there is one only")
	return q
}

func (q *inside) usage(what string) error { return fmt.Errorf("usage: %s %s", q.flags.Name(), what) }

// dial prepares the connection to the runtime.
func (q *inside) dial() (*cri.Client, error) {
	var args []string
	if q.config != "" {
		args = append(args, "--config="+q.config)
	}
	if q.endpoint != "" {
		args = append(args, "--container-runtime-endpoint="+q.endpoint)
	}
	c, err := config.Load(args)
	if err != nil {
		return nil, err
	}
	return cri.Dial(cri.Options{Endpoint: c.Kubelet.ContainerRuntimeEndpoint, RequestTimeout: 10 * time.Second})
}

// instances are those of the one pod that bears the name, the newest first.
func (q *inside) instances(ctx context.Context, client *cri.Client, name string) ([]cri.Instance, error) {
	all, err := client.Instances(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the runtime has no containers of a pod %q: see nodeagent pods", name)
	}
	var pods []string
	for _, i := range all {
		if text := i.Namespace + "/" + i.Pod + " (" + string(i.UID) + ")"; !slices.Contains(pods, text) {
			pods = append(pods, text)
		}
	}
	if len(pods) > 1 {
		return nil, fmt.Errorf("%q is several pods: %s; give a namespace/name or a UID", name, strings.Join(pods, ", "))
	}
	return all, nil
}

// choose leaves the instances of the container asked for, or of the only one.
func (q *inside) choose(all []cri.Instance) ([]cri.Instance, error) {
	names := containerNames(all)
	switch {
	case q.container == "" && len(names) > 1:
		return nil, fmt.Errorf("the pod has containers %s: choose one with -c", strings.Join(names, ", "))
	case q.container != "" && !slices.Contains(names, q.container):
		return nil, fmt.Errorf("the runtime has no container %q of the pod, only %s", q.container, strings.Join(names, ", "))
	}
	name := cmp.Or(q.container, names[0])
	return slices.DeleteFunc(slices.Clone(all), func(i cri.Instance) bool { return i.Container != name }), nil
}

// containerNames are the containers' names, that of the first made first.
func containerNames(all []cri.Instance) []string {
	var names []string
	for _, i := range slices.Backward(all) {
		if !slices.Contains(names, i.Container) {
			names = append(names, i.Container)
		}
	}
	return names
}

// running is the running instance of the container asked for, or of the only
// one that runs.
func (q *inside) running(ctx context.Context, client *cri.Client, name string) (cri.Instance, error) {
	all, err := q.instances(ctx, client, name)
	if err != nil {
		return cri.Instance{}, err
	}
	run := slices.DeleteFunc(slices.Clone(all), func(i cri.Instance) bool { return i.State != pod.Running })
	if len(run) == 0 {
		return cri.Instance{}, fmt.Errorf("no container of pod %s runs: see nodeagent explain %s", name, name)
	}
	chosen, err := q.choose(run)
	if err != nil && q.container != "" && slices.Contains(containerNames(all), q.container) {
		return cri.Instance{}, fmt.Errorf("container %s does not run: see nodeagent explain %s", q.container, name)
	}
	if err != nil {
		return cri.Instance{}, err
	}
	return chosen[0], nil
}

func runExec(ctx context.Context, args []string) error {
	q := newInside("exec").withContainer()
	stdin := q.flags.BoolP("stdin", "i", false, "give the command what is typed or piped in")
	tty := q.flags.BoolP("tty", "t", false, "give the command a terminal")
	q.flags.SetInterspersed(false) // flags behind the pod are the command's
	if err := q.flags.Parse(args); err != nil {
		return err
	}
	rest := q.flags.Args()
	if len(rest) > 1 && rest[1] == "--" {
		rest = slices.Delete(rest, 1, 2)
	}
	if len(rest) < 2 {
		return q.usage("[-c CONTAINER] [-i] [-t] POD -- COMMAND [ARG...]")
	}
	client, err := q.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	at, err := q.running(ctx, client, rest[0])
	if err != nil {
		return err
	}
	url, err := client.ExecURL(ctx, at.ID, rest[1:], cri.Streams{Stdin: *stdin, Stdout: true, Stderr: true, TTY: *tty})
	if err != nil {
		return err
	}
	return converse(ctx, url, *stdin, *tty)
}

func runAttach(ctx context.Context, args []string) error {
	q := newInside("attach").withContainer()
	stdin := q.flags.BoolP("stdin", "i", false, "give the container what is typed or piped in, if it has stdin")
	tty := q.flags.BoolP("tty", "t", false, "the container has a terminal (tty: true)")
	if err := q.flags.Parse(args); err != nil {
		return err
	}
	if q.flags.NArg() != 1 {
		return q.usage("[-c CONTAINER] [-i] [-t] POD")
	}
	client, err := q.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	at, err := q.running(ctx, client, q.flags.Arg(0))
	if err != nil {
		return err
	}
	url, err := client.AttachURL(ctx, at.ID, cri.Streams{Stdin: *stdin, Stdout: true, Stderr: true, TTY: *tty})
	if err != nil {
		return err
	}
	return converse(ctx, url, *stdin, *tty)
}

// converse connects our own streams with those at the URL until the command
// has ended.
func converse(ctx context.Context, url string, stdin, tty bool) error {
	s := stream.Session{Stdout: os.Stdout, Stderr: os.Stderr, TTY: tty}
	if stdin {
		s.Stdin = os.Stdin
	}
	if fd := int(os.Stdin.Fd()); tty && stdin && term.IsTerminal(fd) {
		old, err := term.MakeRaw(fd)
		if err != nil {
			return fmt.Errorf("prepare the terminal: %w", err)
		}
		defer func() { _ = term.Restore(fd, old) }()
		sizes, stop := terminalSizes(fd)
		defer stop()
		s.Sizes = sizes
	}
	code, err := stream.Run(ctx, url, s)
	switch {
	case errors.Is(err, context.Canceled):
		return exitCode(128 + int(syscall.SIGINT))
	case err != nil:
		return err
	case code != 0:
		return exitCode(code)
	}
	return nil
}

// terminalSizes sends the terminal's size, at once and whenever it changes.
func terminalSizes(fd int) (sizes <-chan stream.Size, stop func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	changed <- syscall.SIGWINCH
	out, done := make(chan stream.Size), make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-changed:
			}
			width, height, err := term.GetSize(fd)
			if err != nil {
				continue // the old size stays
			}
			select {
			case out <- stream.Size{Width: uint16(width), Height: uint16(height)}:
			case <-done:
				return
			}
		}
	}()
	return out, func() { signal.Stop(changed); close(done) }
}
