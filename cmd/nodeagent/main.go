// Command nodeagent is a node agent for Kubernetes: it stands where the kubelet
// stands. Without a subcommand it runs the agent with the kubelet's flags.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
)

// commands are the subcommands, for people.
var commands = map[string]struct {
	run  func(ctx context.Context, args []string) error
	help string
}{
	"pods":         {runPods, "list the pods and what is wrong"},
	"explain":      {runExplain, "say what a pod wants, does and waits for"},
	"plan":         {runPlan, "say what would be done for a manifest, without doing it"},
	"logs":         {runLogs, "show what a pod's containers have printed"},
	"exec":         {runExec, "run a command in a container"},
	"attach":       {runAttach, "connect with a container's own streams"},
	"port-forward": {runPortForward, "reach ports of a pod by ports of this machine"},
	"ui":           {runUI, "show all that in a browser on this machine"},
	"check":        {runCheck, "check this machine: runtime, cgroups, network, folders, ports"},
	"version":      {runVersion, "print the version"},
}

// patience is how long the agent may take to end. It can be killed at any
// moment, so nothing is lost by not waiting longer.
const patience = 20 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends the process at once
		time.Sleep(patience)
		fmt.Fprintln(os.Stderr, "something hangs, a disk perhaps: ending without waiting for it")
		os.Exit(1)
	})
	err := run(ctx, os.Args)
	if code := exitCode(0); errors.As(err, &code) {
		os.Exit(int(code)) // said by the command itself
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 3 && args[1] == agent.RelayCommand {
		os.Exit(runRelay(ctx, args[2]))
	}
	if len(args) > 1 {
		if c, ok := commands[args[1]]; ok {
			err := c.run(ctx, args[2:])
			if errors.Is(err, pflag.ErrHelp) {
				return nil
			}
			return err
		}
	}
	return runAgent(ctx, args[1:])
}

// runRelay is the process that reads the runtime's events for an agent.
func runRelay(ctx context.Context, endpoint string) int {
	err := cri.Relay(ctx, endpoint, os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return cri.RelayExit(err)
}

func runAgent(ctx context.Context, args []string) error {
	c, err := config.Load(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		usage()
		return nil
	case err != nil:
		return err
	case c.PrintVersion == "raw":
		fmt.Println(config.RawVersion())
		return nil
	case c.PrintVersion != "":
		fmt.Println(config.Version())
		return nil
	}
	level := &slog.LevelVar{}
	level.Set(config.LogLevel(uint32(c.Kubelet.Logging.Verbosity)))
	log := logger(c, level)
	slog.SetDefault(log) // sources and the CRI client log through it
	agent.LibrariesLogTo(log)
	for _, w := range c.Warnings {
		log.Warn(w)
	}
	return agent.New(c, log, level, faults()).Run(ctx)
}

func usage() {
	fmt.Printf("%s\n\nUsage:\n  nodeagent [flags]            run the agent\n", config.Version())
	for _, name := range []string{"pods", "explain", "plan", "logs", "exec", "attach", "port-forward", "ui", "check", "version"} {
		fmt.Printf("  nodeagent %-12s       %s\n", name, commands[name].help)
	}
	fmt.Printf("\nFlags:\n%s", config.NewFlagSet(config.Default()).FlagUsages())
}

// logger writes to standard error, as text or JSON (logging.format).
func logger(c *config.Config, level *slog.LevelVar) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if c.Kubelet.Logging.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
