package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// RuntimeOptions says what a private containerd is to be like.
type RuntimeOptions struct {
	ID       string   // marks its processes and names its CNI network
	Version  string   // Containerd2 (default), Containerd16 or ContainerdAny
	Dir      string   // images, snapshots, configuration, log; persistent
	RunDir   string   // sockets and state; a short path, for sockets end at 107 bytes. Default: Dir
	Network  *Network // nil: the host's
	Bridge   string   // of the CNI network; at most 15 bytes
	Subnet   string   // of the pods. Default: 10.88.0.0/16
	Outbound bool     // pods reach the outside through masquerading
}

// Runtime is a private containerd. It runs in its own session, so that it
// survives the process that started it, and is known by the pid in RunDir.
type Runtime struct {
	RuntimeOptions
	Programs Programs
	log      string
}

// NewRuntime finds the programs and writes the configuration; Start starts it.
func NewRuntime(o RuntimeOptions) (*Runtime, error) {
	if o.Version == "" {
		o.Version = Containerd2
	}
	if o.RunDir == "" {
		o.RunDir = o.Dir
	}
	if o.Subnet == "" {
		o.Subnet = "10.88.0.0/16"
	}
	programs, err := FindPrograms(o.Version)
	if err != nil {
		return nil, err
	}
	r := &Runtime{RuntimeOptions: o, Programs: programs, log: filepath.Join(o.Dir, "containerd.log")}
	if n := len(r.Socket() + ".ttrpc"); n > 107 {
		return nil, fmt.Errorf("configure containerd: socket path %s is %d bytes too long", r.Socket(), n-107)
	}
	return r, r.writeConfig()
}

// Socket is the path of the CRI socket.
func (r *Runtime) Socket() string { return filepath.Join(r.RunDir, "containerd.sock") }

// Endpoint is the socket as CRI clients want it.
func (r *Runtime) Endpoint() string { return "unix://" + r.Socket() }

// LogFile is where containerd logs to, over all its lives.
func (r *Runtime) LogFile() string { return r.log }

func (r *Runtime) pidFile() string { return filepath.Join(r.RunDir, "containerd.pid") }

// Pid is containerd's process id, or 0 if it doesn't run. A recorded pid
// counts only if that process still runs our configuration.
func (r *Runtime) Pid() int {
	data, err := os.ReadFile(r.pidFile())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	switch {
	case err != nil:
		return 0
	case strings.Contains(string(cmdline), r.configFile()):
		return pid
	case len(cmdline) == 0 && inExec(pid):
		return pid
	}
	return 0
}

// Start starts containerd and returns when its CRI plugin answers that the
// runtime and its network are ready. It does nothing if it runs already.
func (r *Runtime) Start(ctx context.Context) error {
	if r.Pid() == 0 {
		if err := r.launch(); err != nil {
			return fmt.Errorf("start containerd: %w", err)
		}
	}
	if err := r.awaitReady(ctx); err != nil {
		return fmt.Errorf("start containerd: %w; the end of %s:\n%s", err, r.log, tail(r.log, 20))
	}
	return nil
}

func (r *Runtime) launch() error {
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := r.Network.Command(r.Programs.Containerd, "--config", r.configFile())
	cmd.Env = append(r.Programs.environ(), labEnv+"="+r.ID)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	// Only reaps: the end is seen through the pid, also by later processes.
	go cmd.Wait()
	return os.WriteFile(r.pidFile(), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

// awaitReady asks until Status says ready. The socket shows up before the
// CRI plugin does, and the CNI configuration is loaded later still.
func (r *Runtime) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := DialCRI(r.Socket())
	if err != nil {
		return err
	}
	defer c.Close()
	return poll(ctx, func() error {
		if r.Pid() == 0 {
			return fatal(errors.New("it ended at once"))
		}
		return c.Ready(ctx)
	})
}

// Kill ends containerd by SIGKILL; pods go on.
func (r *Runtime) Kill() error {
	pid := r.Pid()
	if pid == 0 {
		return nil
	}
	if err := signalProcess(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill containerd: %w", err)
	}
	return waitExit(pid, 10*time.Second)
}

// Terminate ends containerd by SIGTERM; pods go on.
func (r *Runtime) Terminate() error {
	pid := r.Pid()
	if pid == 0 {
		return nil
	}
	if err := Terminate(pid, 10*time.Second); err != nil {
		return fmt.Errorf("terminate containerd: %w", err)
	}
	return nil
}

// Restart ends containerd by SIGTERM and starts it; pods go on.
func (r *Runtime) Restart(ctx context.Context) error {
	if err := r.Terminate(); err != nil {
		return err
	}
	return r.Start(ctx)
}

// Pause freezes containerd by SIGSTOP: calls hang, connections stay.
func (r *Runtime) Pause() error { return signalProcess(r.mustPid(), syscall.SIGSTOP) }

// Resume ends Pause.
func (r *Runtime) Resume() error { return signalProcess(r.mustPid(), syscall.SIGCONT) }

// mustPid is Pid, with an id that no process has instead of 0, which kill(2)
// takes for the caller's process group.
func (r *Runtime) mustPid() int {
	if pid := r.Pid(); pid != 0 {
		return pid
	}
	return 1 << 30
}

// Stop ends containerd, its shims and its containers, and removes what they
// would leave: mounts, shim sockets, the CNI result cache. It takes them as
// it finds them: frozen, half dead, or gone already. The folders stay.
func (r *Runtime) Stop() error {
	err := r.Terminate()
	left := append(r.shimSockets(), r.cniResults()...)
	err = errors.Join(err, killAll(r.ID, r.Dir), unmountUnder(r.Dir))
	if r.RunDir != r.Dir {
		err = errors.Join(err, unmountUnder(r.RunDir))
	}
	for _, f := range left {
		err = errors.Join(err, removeIfThere(f))
	}
	err = errors.Join(err, removeIfThere(r.pidFile()))
	if err != nil {
		return fmt.Errorf("stop containerd: %w", err)
	}
	return nil
}

// killAll ends all processes of a lab and waits for them. Several rounds,
// because a shim may be starting a process while it is looked for.
func killAll(id, dir string) error {
	var err error
	for range 5 {
		processes := processesOf(id, dir)
		if len(processes) == 0 {
			return nil
		}
		err = nil
		for pid := range processes {
			err = errors.Join(err, signalProcess(pid, syscall.SIGKILL))
		}
		for pid := range processes {
			err = errors.Join(err, waitExit(pid, 10*time.Second))
		}
	}
	return err
}

// bundles is the folder with one folder per sandbox and container that runs.
func (r *Runtime) bundles() string {
	return filepath.Join(r.stateDir(), "io.containerd.runtime.v2.task/k8s.io")
}

// cniResults lists what libcni keeps of our sandboxes, in a folder which all
// of a machine share: those of our network, and the sandboxes' loopbacks.
func (r *Runtime) cniResults() []string {
	const dir = "/var/lib/cni/results"
	results, _ := filepath.Glob(filepath.Join(dir, r.networkName()+"-*"))
	ids, _ := os.ReadDir(r.bundles())
	for _, id := range ids {
		results = append(results, filepath.Join(dir, "cni-loopback-"+id.Name()+"-lo"))
	}
	return results
}

// shimSockets lists the sockets that this runtime's shims listen on. They
// stand in a folder which all containerds of a machine share.
func (r *Runtime) shimSockets() []string {
	var sockets []string
	for _, name := range []string{"address", "bootstrap.json"} {
		files, _ := filepath.Glob(filepath.Join(r.bundles(), "*", name))
		for _, f := range files {
			data, _ := os.ReadFile(f)
			if _, rest, ok := strings.Cut(string(data), "unix://"); ok {
				path, _, _ := strings.Cut(rest, `"`)
				sockets = append(sockets, strings.TrimSpace(path))
			}
		}
	}
	return sockets
}

// ShimPid is the process id of the shim that holds a sandbox and its
// containers, for tests that freeze or kill it.
func (r *Runtime) ShimPid(sandbox string) (int, error) {
	for pid, cmdline := range processesOf(r.ID, r.Dir) {
		if strings.Contains(cmdline, "containerd-shim") && strings.Contains(cmdline, "-id "+sandbox) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("find shim of sandbox %s: no such process", sandbox)
}
