package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// daemon is one program of a control plane, over all its lives.
type daemon struct {
	name    string // of its executable, in messages
	program string
	args    []string
	env     []string
	log     string
	network *Network

	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// start does nothing if it runs. It waits for nothing that the program does.
func (d *daemon) start() error {
	if d.runs() {
		return nil
	}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	defer log.Close()
	cmd := d.network.Command(d.program, d.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = d.env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	d.cmd, d.done = cmd, make(chan struct{})
	go func() {
		cmd.Wait() // how it ended is in its log
		close(d.done)
	}()
	return nil
}

func (d *daemon) runs() bool {
	if d.cmd == nil {
		return false
	}
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// check is an error that ends a poll if the program has ended.
func (d *daemon) check() error {
	if d.runs() {
		return nil
	}
	return fatal(fmt.Errorf("%s ended by itself; the end of its log:\n%s", d.name, tail(d.log, 20)))
}

// stop ends the program by SIGTERM, and by SIGKILL after two seconds: an
// apiserver with clients would wait for them for a minute.
func (d *daemon) stop() error {
	if !d.runs() {
		return nil
	}
	if err := Terminate(d.cmd.Process.Pid, 2*time.Second); err != nil {
		return fmt.Errorf("stop %s: %w", d.name, err)
	}
	<-d.done
	return nil
}

// kill ends the program by SIGKILL.
func (d *daemon) kill() error {
	if !d.runs() {
		return nil
	}
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", d.name, err)
	}
	<-d.done
	return nil
}
