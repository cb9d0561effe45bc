// Run shows nodeagent at work on this machine: it starts a private containerd
// unless there is one to use, makes the images of the example pods, runs
// bin/nodeagent on manifests/examples and prints its pods as they change.
// Ctrl-C ends the agent; pods and containerd go on, and the next run finds
// them. `run down` stops all that it started.
//
// `run cluster` joins bin/nodeagent to a control plane of its own, both on a
// node of their own. Ctrl-C ends all of it.
//
// Started in the repository's folder, as root, after hack/install runtime, or
// hack/install cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if os.Geteuid() != 0 {
		return errors.New("containers, mounts and cgroups need root: run it with sudo")
	}
	switch {
	case len(args) == 0:
		return up(ctx)
	case len(args) == 1 && args[0] == "down":
		return down(ctx)
	case len(args) == 1 && args[0] == "cluster":
		return cluster(ctx)
	}
	return fmt.Errorf("unknown arguments %q; usage: run [down|cluster]", args)
}

func up(ctx context.Context) error {
	rt, err := openRuntime(ctx)
	if err != nil {
		return err
	}
	if err := rt.importImages(ctx); err != nil {
		return err
	}
	a, err := startAgent(rt)
	if err != nil {
		return err
	}
	fmt.Printf("agent     pid %d, log %s, manifests %s\n", a.cmd.Process.Pid, agentLog, a.manifests)
	printHints(rt)
	return a.follow(ctx)
}

func printHints(rt *bedRuntime) {
	fmt.Printf(`
look further, in another terminal:
  %[1]s pods %[2]s            all pods
  %[1]s explain POD %[2]s     what it wants, sees, does and waits for
  %[3]s --address %[4]s -n k8s.io containers list
change, add or remove a file in manifests/examples and watch.
Ctrl-C ends the agent; its pods go on.  make down stops everything.

`, agentBinary, agentRootFlag, rt.programs.Ctr, rt.socket)
}
