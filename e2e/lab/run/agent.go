package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

const (
	agentBinary   = "bin/nodeagent"
	agentRootFlag = "--root-dir=" + agentRoot
	agentConfig   = ".run/config.yaml"
	agentLog      = ".run/nodeagent.log"
	agentPid      = stateDir + "/agent.pid"
)

// agent is bin/nodeagent as a child of this program.
type agent struct {
	cmd       *exec.Cmd
	manifests string
	ended     chan error
}

func startAgent(rt *bedRuntime) (*agent, error) {
	if pid := recordedAgent(); pid != 0 {
		return nil, fmt.Errorf("start agent: one runs already, as %d, perhaps from another terminal", pid)
	}
	manifests, err := filepath.Abs("manifests/examples")
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	if _, err := os.Stat(manifests); err != nil {
		return nil, fmt.Errorf("start agent: %w; run it in the repository's folder", err)
	}
	for _, dir := range []string{".run", stateDir, agentRoot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("start agent: %w", err)
		}
	}
	if err := writeConfig(rt, manifests); err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	log, err := os.Create(agentLog)
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(agentBinary, "--config", agentConfig, agentRootFlag)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "NODEAGENT_LAB="+bedID)
	// Out of the terminal's process group: Ctrl-C reaches it as the SIGTERM
	// that it is to be ended by, once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start agent: %w; run make build first", err)
	}
	a := &agent{cmd: cmd, manifests: manifests, ended: make(chan error, 1)}
	go func() { a.ended <- cmd.Wait() }()
	if err := os.WriteFile(agentPid, []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return nil, errors.Join(fmt.Errorf("start agent: %w", err), a.stop())
	}
	return a, nil
}

// writeConfig gives a private runtime's agent a cgroup of its own; with the
// machine's runtime the agent asks that one which driver it has.
func writeConfig(rt *bedRuntime, manifests string) error {
	config := lab.NodeConfig("unix://"+rt.socket, manifests, filepath.Join(dataDir, "pod-logs"), bedCgroup)
	if !rt.private {
		delete(config, "cgroupRoot")
		delete(config, "cgroupDriver")
	}
	data, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(agentConfig, data, 0o644)
}

// follow prints the pods whenever they have changed, until the context ends,
// which ends the agent, or the agent ends, which is an error.
func (a *agent) follow(ctx context.Context) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	started, last := time.Now(), ""
	for {
		select {
		case <-ctx.Done():
			return a.end()
		case err := <-a.ended:
			text, _ := os.ReadFile(agentLog)
			return fmt.Errorf("the agent ended by itself (%v); its log, %s:\n%s", err, agentLog, text[max(0, len(text)-4096):])
		case <-tick.C:
		}
		text, err := podTable(ctx)
		if err != nil && time.Since(started) < 5*time.Second {
			continue // it opens its socket first
		}
		if bare := ages.ReplaceAllString(text, ""); bare != last && ctx.Err() == nil {
			fmt.Printf("--- %s\n%s\n", time.Now().Format(time.TimeOnly), text)
			last = bare
		}
	}
}

// ages are what changes in the table although nothing happens.
var ages = regexp.MustCompile(` +\d+[smhd][0-9smhd]* +`)

func podTable(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, agentBinary, "pods", agentRootFlag).CombinedOutput()
	return strings.TrimRight(string(out), "\n"), err
}

func (a *agent) end() error {
	fmt.Println("\nending the agent")
	if err := a.stop(); err != nil {
		return err
	}
	fmt.Println("its pods go on: make run finds them again, make down stops them")
	return nil
}

// stop ends the agent by SIGTERM, and by SIGKILL after 30 seconds.
func (a *agent) stop() error {
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop agent: %w", err)
	}
	select {
	case err := <-a.ended:
		if err != nil {
			return fmt.Errorf("stop agent: %w; its log is %s", err, agentLog)
		}
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("stop agent: still there 30s after SIGTERM, killed"), a.cmd.Process.Kill())
	}
	return os.Remove(agentPid)
}

// recordedAgent is the pid of the agent that a run has started and that
// still runs, or 0. A pid that means another process by now doesn't count.
func recordedAgent() int {
	data, err := os.ReadFile(agentPid)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(cmdline), agentRootFlag) {
		return 0
	}
	return pid
}

func stopRecordedAgent() error {
	pid := recordedAgent()
	if pid == 0 {
		return nil
	}
	return lab.Terminate(pid, 30*time.Second)
}
