package cri

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"

	"k8s.io/apimachinery/pkg/types"
)

// A subscriber to the runtime's events that stops reading stalls the runtime
// for all its clients: containerd waits for it once the socket's buffer is
// full. An agent can be frozen, by a debugger, a cgroup, or memory that is
// swapped out, so what reads the stream is a process of its own, which does
// nothing else. It writes the UIDs of pods that changed to the agent, each once
// however often it changed while the agent did not read.

// relayNoEvents is the exit code of a relay whose runtime has no events.
const relayNoEvents = 3

// Relay reads the events of the runtime at endpoint and writes a line with the
// UID of each pod that changed to out, until the stream, in or ctx ends: in is
// held open by the agent, and ends with it. The exit code for the error is
// RelayExit's.
func Relay(ctx context.Context, endpoint string, in io.Reader, out io.Writer) error {
	c, err := Dial(Options{Endpoint: endpoint})
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in) // only its end matters
		cancel()
	}()
	box := newChangeset()
	go func() {
		defer cancel()
		box.deliver(ctx, out)
	}()
	return c.stream(ctx, box.add)
}

// RelayExit is the exit code of the relay process for Relay's error.
func RelayExit(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrNoEvents):
		return relayNoEvents
	}
	return 1
}

// changeset holds what changed and was not delivered yet.
type changeset struct {
	mu    sync.Mutex
	uids  map[types.UID]bool
	ready chan struct{}
}

func newChangeset() *changeset {
	return &changeset{uids: map[types.UID]bool{}, ready: make(chan struct{}, 1)}
}

func (s *changeset) add(uid types.UID) {
	s.mu.Lock()
	s.uids[uid] = true
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// deliver writes until out or ctx ends.
func (s *changeset) deliver(ctx context.Context, out io.Writer) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.ready:
		}
		s.mu.Lock()
		uids := s.uids
		s.uids = map[types.UID]bool{}
		s.mu.Unlock()
		for uid := range uids {
			if _, err := fmt.Fprintln(out, uid); err != nil {
				return // the agent is gone
			}
		}
	}
}

// relayed reads the events that a relay process writes.
func relayed(ctx context.Context, command []string, changed func(types.UID)) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	// A Ctrl-C is for the agent; the relay ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start relay of container events: %w", err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start relay of container events: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start relay of container events: %w", err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		changed(types.UID(lines.Text()))
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == relayNoEvents {
		return ErrNoEvents
	}
	if text := bytes.TrimSpace(complaint.Bytes()); len(text) > 0 {
		return fmt.Errorf("read container events: %s", text)
	}
	return fmt.Errorf("read container events: relay ended: %w", errors.Join(err, ctx.Err()))
}
