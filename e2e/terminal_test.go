package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is one that a test looks at and types on.
type terminal struct {
	t    *testing.T
	ours *os.File
	path string
	seen strings.Builder
}

func newTerminal(t *testing.T, rows, columns uint16) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, ours: os.NewFile(uintptr(fd), "ptmx")}
	t.Cleanup(func() { term.ours.Close() })
	err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	n, numErr := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil || numErr != nil {
		t.Fatal(err, numErr)
	}
	term.path = fmt.Sprintf("/dev/pts/%d", n)
	term.resize(rows, columns)
	return term
}

// start starts a command on the terminal.
func (term *terminal) start(c *exec.Cmd) {
	term.t.Helper()
	theirs, err := os.OpenFile(term.path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		term.t.Fatal(err)
	}
	defer theirs.Close()
	c.Stdin, c.Stdout, c.Stderr = theirs, theirs, theirs
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Setpgid, c.SysProcAttr.Setsid, c.SysProcAttr.Setctty = false, true, true
	if err := c.Start(); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) resize(rows, columns uint16) {
	term.t.Helper()
	raw, err := term.ours.SyscallConn()
	if err == nil {
		controlErr := raw.Control(func(fd uintptr) {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
		})
		if controlErr != nil {
			err = controlErr
		}
	}
	if err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) say(text string) {
	term.t.Helper()
	if _, err := term.ours.WriteString(text); err != nil {
		term.t.Fatal(err)
	}
}

// expect waits until the text has been shown.
func (term *terminal) expect(text string) {
	term.t.Helper()
	_ = term.ours.SetReadDeadline(time.Now().Add(60 * time.Second))
	for buf := make([]byte, 4096); !strings.Contains(term.seen.String(), text); {
		n, err := term.ours.Read(buf)
		term.seen.Write(buf[:n])
		if err != nil && !strings.Contains(term.seen.String(), text) {
			term.t.Fatalf("%v; no %q in %q", err, text, term.seen.String())
		}
	}
}
