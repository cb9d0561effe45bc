package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// One bed per machine, whichever checkout starts it. Sockets stand in /run,
// because their paths may have no more than 107 bytes.
const (
	bedID     = "run"
	stateDir  = "/run/nodeagent-run"
	dataDir   = "/var/lib/nodeagent-run"
	bedCgroup = "/nodeagent-run"
	bedBridge = "nodeagent0"
	bedSubnet = "10.88.64.0/20"

	systemSocket = "/run/containerd/containerd.sock"
	// Says that the machine's own containerd is in use by the bed.
	systemMark = dataDir + "/uses-system-containerd"
	agentRoot  = dataDir + "/agent"
)

// bedRuntime is the runtime that the agent is given.
type bedRuntime struct {
	programs lab.Programs
	socket   string
	private  bool
}

// openRuntime takes the machine's containerd if it can run pods and has none
// of somebody else's: next to a kubelet the agent would take that one's pods
// for orphans. Else it starts a private one, or finds it running.
func openRuntime(ctx context.Context) (*bedRuntime, error) {
	if err := os.MkdirAll(dataDir, 0o755); err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	programs, err := lab.FindPrograms(lab.ContainerdAny)
	if err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	reason := systemUsable(ctx)
	if reason == nil {
		if err := os.WriteFile(systemMark, nil, 0o644); err != nil {
			return nil, fmt.Errorf("open runtime: %w", err)
		}
		fmt.Printf("runtime   this machine's, %s\n", systemSocket)
		return &bedRuntime{programs: programs, socket: systemSocket}, nil
	}
	fmt.Printf("runtime   private, because %v\n", reason)
	r, err := privateRuntime()
	if err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	if err := r.Start(ctx); err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	fmt.Printf("          containerd pid %d, socket %s, log %s\n", r.Pid(), r.Socket(), r.LogFile())
	return &bedRuntime{programs: programs, socket: r.Socket(), private: true}, nil
}

func privateRuntime() (*lab.Runtime, error) {
	return lab.NewRuntime(lab.RuntimeOptions{
		ID: bedID, Version: lab.ContainerdAny,
		Dir: filepath.Join(dataDir, "containerd"), RunDir: stateDir,
		Bridge: bedBridge, Subnet: bedSubnet, Outbound: true,
	})
}

// systemUsable says why the machine's own containerd is not to be used, or nil.
func systemUsable(ctx context.Context) error {
	if _, err := os.Stat(systemSocket); err != nil {
		return errors.New("no containerd listens on " + systemSocket)
	}
	c, err := lab.DialCRI(systemSocket)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		return fmt.Errorf("containerd on %s is not ready for pods: %w", systemSocket, err)
	}
	if _, err := os.Stat(systemMark); err == nil {
		return nil
	}
	sandboxes, err := c.Sandboxes(ctx, "")
	if err != nil {
		return err
	}
	if len(sandboxes) > 0 {
		return fmt.Errorf("containerd on %s has %d pods of another agent", systemSocket, len(sandboxes))
	}
	return nil
}

func (rt *bedRuntime) importImages(ctx context.Context) error {
	c, err := lab.DialCRI(rt.socket)
	if err != nil {
		return err
	}
	defer c.Close()
	images, err := lab.BuildImages()
	if err != nil {
		return err
	}
	missing := false
	for _, ref := range []string{lab.PauseImage, lab.BusyboxImage} {
		has, err := c.HasImage(ctx, ref)
		if err != nil {
			return err
		}
		missing = missing || !has
	}
	if !missing {
		return nil
	}
	fmt.Printf("images    %s, %s\n", lab.PauseImage, lab.BusyboxImage)
	return images.Import(ctx, rt.programs, rt.socket)
}

// down stops what up started, from the top: the agent, the pods through CRI
// (which gives back addresses and host ports), the private containerd, and
// what is left in mounts, cgroups and folders.
func down(ctx context.Context) error {
	if err := stopRecordedAgent(); err != nil {
		return fmt.Errorf("down: %w", err)
	}
	var err error
	if _, e := os.Stat(systemMark); e == nil {
		err = removePods(ctx, systemSocket, true)
	}
	if _, e := os.Stat(filepath.Join(dataDir, "containerd")); e == nil {
		err = errors.Join(err, stopPrivate(ctx))
	}
	if err != nil {
		return fmt.Errorf("down: %w", err)
	}
	if err := lab.Clean(bedID, bedCgroup, stateDir, dataDir); err != nil {
		return fmt.Errorf("down: %w", err)
	}
	fmt.Println("stopped: agent, pods and private containerd; their folders are removed")
	return nil
}

func stopPrivate(ctx context.Context) error {
	r, err := privateRuntime()
	if err != nil {
		return err
	}
	// Without containerd the pods' addresses and rules can't be given back.
	if err := r.Start(ctx); err != nil {
		return err
	}
	if err := removePods(ctx, r.Socket(), false); err != nil {
		return err
	}
	if err := r.Stop(); err != nil {
		return err
	}
	if _, err := os.Stat("/sys/class/net/" + bedBridge); err != nil {
		return nil // no pod ever needed it
	}
	if out, err := exec.Command("ip", "link", "delete", bedBridge).CombinedOutput(); err != nil {
		return fmt.Errorf("delete bridge %s: %w: %s", bedBridge, err, out)
	}
	return nil
}

// removePods removes the sandboxes of a runtime. Where others may have pods
// too, ours are those that have a folder in the agent's root.
func removePods(ctx context.Context, socket string, shared bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c, err := lab.DialCRI(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	sandboxes, err := c.Sandboxes(ctx, "")
	if err != nil {
		return err
	}
	for _, s := range sandboxes {
		_, foreign := os.Stat(filepath.Join(agentRoot, "pods", s.Metadata.Uid))
		if shared && foreign != nil {
			continue
		}
		err = errors.Join(err, c.RemoveSandbox(ctx, s.Id))
	}
	return err
}
