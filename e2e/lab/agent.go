package lab

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"
)

// Agent is the program under test, a child process in the lab's network. Its
// fields may be changed while it doesn't run.
type Agent struct {
	Binary     string
	Node       string         // the node's name. Default: lab
	Kubeconfig string         // of the cluster to join; none: stands alone
	ClientCA   string         // file of the CA of who may ask its API, which is served then, as kubeadm has it
	Args       []string       // after the lab's own --config, --root-dir, --cert-dir, --hostname-override, --kubeconfig
	Env        []string       // NAME=value, added to this process's
	Config     map[string]any // fields of KubeletConfiguration, over the lab's own

	Root, Manifests, PodLogs, Dir string // folders, made by Lab.Agent

	lab  *Lab
	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	err  error         // how it ended; read after done
}

// Agent prepares an agent to be started from binary. A second agent of one
// lab shares the first one's folders and replaces it.
func (l *Lab) Agent(binary string) (*Agent, error) {
	dir := l.Path("agent")
	a := &Agent{
		Binary: binary, Node: "lab", lab: l, Dir: dir,
		Root: filepath.Join(dir, "root"), Manifests: filepath.Join(dir, "manifests"), PodLogs: filepath.Join(dir, "logs"),
	}
	for _, d := range []string{a.Root, a.Manifests, a.PodLogs} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("prepare agent: %w", err)
		}
	}
	l.agents = append(l.agents, a)
	return a, nil
}

// LogFile holds what the agent wrote to stdout and stderr, over all its lives.
func (a *Agent) LogFile() string { return filepath.Join(a.Dir, "agent.log") }

// ConfigFile is written anew at each start.
func (a *Agent) ConfigFile() string { return filepath.Join(a.Dir, "config.yaml") }

// Pid is the agent's process id, or 0 if it doesn't run.
func (a *Agent) Pid() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cmd == nil {
		return 0
	}
	select {
	case <-a.done:
		return 0
	default:
		return a.cmd.Process.Pid
	}
}

// Start writes the configuration and starts the agent; it doesn't wait for
// anything that the agent does.
func (a *Agent) Start() error {
	if a.Pid() != 0 {
		return fmt.Errorf("start agent: it runs already, as %d", a.Pid())
	}
	if err := a.writeConfig(); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	log, err := os.OpenFile(a.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	defer log.Close()
	args := []string{"--config", a.ConfigFile(), "--root-dir", a.Root, "--cert-dir", filepath.Join(a.Root, "pki"), "--hostname-override", a.Node}
	if a.Kubeconfig != "" {
		args = append(args, "--kubeconfig", a.Kubeconfig)
	}
	cmd := a.lab.Network.Command(a.Binary, append(args, a.Args...)...)
	cmd.Env = append(append(a.lab.Runtime.Programs.environ(), labEnv+"="+a.lab.ID), a.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	done := make(chan struct{})
	a.mu.Lock()
	a.cmd, a.done = cmd, done
	a.mu.Unlock()
	go func() {
		a.err = cmd.Wait()
		close(done)
	}()
	return nil
}

// Command is another run of the program beside the agent, such as
// Command("pods"), inside the network, with the agent's --root-dir put last.
func (a *Agent) Command(args ...string) *exec.Cmd {
	return a.Plain(append(args, "--root-dir="+a.Root)...)
}

// Plain is another run of the program inside the network, with no arguments
// but these.
func (a *Agent) Plain(args ...string) *exec.Cmd {
	cmd := a.lab.Network.Command(a.Binary, args...)
	cmd.Env = append(append(a.lab.Runtime.Programs.environ(), labEnv+"="+a.lab.ID), a.Env...)
	return cmd
}

// Ended is closed when the agent that was last started has ended.
func (a *Agent) Ended() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.done
}

// Wait returns how the agent ended, or fails after the timeout.
func (a *Agent) Wait(timeout time.Duration) error {
	done := a.Ended()
	if done == nil {
		return errors.New("wait for agent: it was never started")
	}
	select {
	case <-done:
		return a.err
	case <-time.After(timeout):
		return fmt.Errorf("wait for agent: still running after %v", timeout)
	}
}

// Stop sends SIGTERM and returns how the agent ended: nil for exit code 0. An
// agent that takes over 30 seconds is killed and is an error.
func (a *Agent) Stop() error {
	if a.Pid() == 0 {
		return nil
	}
	if err := signalProcess(a.Pid(), syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop agent: %w", err)
	}
	err := a.Wait(30 * time.Second)
	if a.Pid() != 0 {
		err = errors.Join(err, a.Kill())
	}
	if err != nil {
		return fmt.Errorf("stop agent: %w", err)
	}
	return nil
}

// Kill sends SIGKILL and waits. An agent that doesn't run is no error.
func (a *Agent) Kill() error {
	pid := a.Pid()
	if pid == 0 {
		return nil
	}
	if err := signalProcess(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill agent: %w", err)
	}
	if err := waitExit(pid, 10*time.Second); err != nil {
		return fmt.Errorf("kill agent: %w", err)
	}
	<-a.done
	return nil
}

// Pause freezes the agent by SIGSTOP.
func (a *Agent) Pause() error { return a.signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (a *Agent) Resume() error { return a.signal(syscall.SIGCONT) }

func (a *Agent) signal(sig syscall.Signal) error {
	pid := a.Pid()
	if pid == 0 {
		return fmt.Errorf("send %v to agent: it doesn't run", sig)
	}
	return signalProcess(pid, sig)
}

// WritePod puts a manifest into the agent's folder, whole or not at all.
func (a *Agent) WritePod(file string, manifest []byte) error {
	tmp := filepath.Join(a.Dir, ".tmp-"+file)
	if err := os.WriteFile(tmp, manifest, 0o644); err != nil {
		return fmt.Errorf("write pod: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(a.Manifests, file)); err != nil {
		return fmt.Errorf("write pod: %w", err)
	}
	return nil
}

// RemovePod takes a manifest out of the agent's folder.
func (a *Agent) RemovePod(file string) error {
	return os.Remove(filepath.Join(a.Manifests, file))
}

func (a *Agent) writeConfig() error {
	config := NodeConfig(a.lab.Runtime.Endpoint(), a.Manifests, a.PodLogs, a.lab.CgroupRoot)
	if a.ClientCA != "" {
		config["enableServer"] = true
		config["authentication"] = map[string]any{"x509": map[string]any{"clientCAFile": a.ClientCA}}
		delete(config, "authorization") // both by webhook, for which the default is enough
	}
	maps.Copy(config, a.Config)
	data, err := yaml.Marshal(config)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return os.WriteFile(a.ConfigFile(), data, 0o644)
}

// NodeConfig is the KubeletConfiguration of an agent without an apiserver and
// without a server of its own.
func NodeConfig(endpoint, manifests, podLogs, cgroupRoot string) map[string]any {
	return map[string]any{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"staticPodPath":            manifests,
		"containerRuntimeEndpoint": endpoint,
		"podLogsDir":               podLogs,
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               cgroupRoot,
		"failCgroupV1":             false,
		"enableServer":             false,
		"authentication":           map[string]any{"anonymous": map[string]any{"enabled": true}, "webhook": map[string]any{"enabled": false}},
		"authorization":            map[string]any{"mode": "AlwaysAllow"},
	}
}
