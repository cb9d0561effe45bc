package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const netnsDir = "/var/run/netns"

// NodeAddress is the address of a node that stands alone. It and those of
// nodes with a control plane are of TEST-NET-1: nothing leaves the machine.
const NodeAddress = "192.0.2.1"

// Network is a network namespace that stands for one node's network. The nil
// Network is the host's own.
type Network struct {
	Name    string // as `ip netns` shows it
	Address string // the node's own

	mounts string // file of the mount namespace for Command; none: this process's
}

// NewNetwork makes a namespace with loopback up and a bridge node0 that has
// the address and leads nowhere. Close removes it.
func NewNetwork(name, address string) (*Network, error) {
	n := &Network{Name: name, Address: address}
	if err := ip("netns", "add", name); err != nil {
		return nil, err
	}
	err := errors.Join(
		n.ip("link", "set", "lo", "up"),
		// A bridge would else take the lowest of its ports' addresses, and
		// change it under open connections when a port comes.
		n.ip("link", "add", "node0", "address", hardwareAddress(address), "type", "bridge"),
		n.ip("addr", "add", address+"/24", "dev", "node0"),
		n.ip("link", "set", "node0", "up"),
	)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// hardwareAddress is a locally administered one that says the IPv4 address.
func hardwareAddress(address string) string {
	b := netip.MustParseAddr(address).As4()
	return net.HardwareAddr{2, 0, b[0], b[1], b[2], b[3]}.String()
}

// ip configures the namespace.
func (n *Network) ip(args ...string) error { return ip(append([]string{"-n", n.Name}, args...)...) }

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Path is the file that holds the namespace.
func (n *Network) Path() string { return filepath.Join(netnsDir, n.Name) }

// Close removes the namespace; what still runs in it keeps it alive unnamed.
func (n *Network) Close() error {
	if _, err := os.Stat(n.Path()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return ip("netns", "del", n.Name)
}

// Command is exec.Command inside the namespace; the process that starts has
// the command's own pid. (`ip netns exec` would remount /sys and so hide the
// cgroups.)
func (n *Network) Command(name string, args ...string) *exec.Cmd {
	if n == nil {
		return exec.Command(name, args...)
	}
	enter := []string{"--net=" + n.Path()}
	if n.mounts != "" {
		enter = append(enter, "--mount="+n.mounts)
	}
	return exec.Command("nsenter", slices.Concat(enter, []string{"--", name}, args)...)
}

// Do calls f on a thread inside the namespace. Sockets that f opens stay
// there; goroutines that f starts do not run in it.
func (n *Network) Do(f func() error) error {
	if n == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked, so it ends with this goroutine and no
		// other goroutine finds itself in the namespace.
		runtime.LockOSThread()
		done <- n.enterAndCall(f)
	}()
	return <-done
}

func (n *Network) enterAndCall(f func() error) error {
	ns, err := os.Open(n.Path())
	if err != nil {
		return fmt.Errorf("enter network %s: %w", n.Name, err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network %s: setns: %w", n.Name, err)
	}
	return f()
}

// Listen is net.Listen inside the namespace.
func (n *Network) Listen(network, addr string) (l net.Listener, err error) {
	err = n.Do(func() error {
		l, err = net.Listen(network, addr)
		return err
	})
	return l, err
}

// Dial is net.Dial inside the namespace; addr has an IP literal.
func (n *Network) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}
