package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/cri/stream"
)

// forwarded is a port of this machine that leads to one of the pod.
type forwarded struct {
	local, remote uint16
	listeners     []net.Listener
}

// parsePorts reads LOCAL:REMOTE, PORT for both, or :REMOTE for any local one.
func parsePorts(args []string) ([]forwarded, error) {
	var out []forwarded
	for _, arg := range args {
		local, remote, two := strings.Cut(arg, ":")
		if !two {
			remote = local
		}
		if local == "" {
			local = "0"
		}
		l, err := strconv.ParseUint(local, 10, 16)
		r, rerr := strconv.ParseUint(remote, 10, 16)
		if err != nil || rerr != nil || r == 0 {
			return nil, fmt.Errorf("%q: want LOCAL:REMOTE, two ports", arg)
		}
		out = append(out, forwarded{local: uint16(l), remote: uint16(r)})
	}
	return out, nil
}

// listen takes the local port on both loopback addresses, or on the only one
// that this machine has.
func (f *forwarded) listen() error {
	var errs []error
	for _, ip := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(int(f.local))))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.local = uint16(l.Addr().(*net.TCPAddr).Port)
		f.listeners = append(f.listeners, l)
	}
	if len(f.listeners) == 0 {
		return fmt.Errorf("listen on local port %d: %w", f.local, errors.Join(errs...))
	}
	for _, l := range f.listeners {
		fmt.Printf("Forwarding from %s -> %d\n", l.Addr(), f.remote)
	}
	return nil
}

func runPortForward(ctx context.Context, args []string) error {
	q := newInside("port-forward")
	if err := q.flags.Parse(args); err != nil {
		return err
	}
	if q.flags.NArg() < 2 {
		return q.usage("POD LOCAL:REMOTE...")
	}
	ports, err := parsePorts(q.flags.Args()[1:])
	if err != nil {
		return err
	}
	client, err := q.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	sandbox, err := q.sandbox(ctx, client, q.flags.Arg(0))
	if err != nil {
		return err
	}
	url, err := client.PortForwardURL(ctx, sandbox, nil)
	if err != nil {
		return err
	}
	tunnel, err := stream.DialForward(ctx, url)
	if err != nil {
		return err
	}
	defer tunnel.Close()
	return forward(ctx, tunnel, ports, func() bool {
		all, err := client.Instances(ctx, q.flags.Arg(0))
		return err == nil && !slices.ContainsFunc(all, func(i cri.Instance) bool { return i.SandboxID == sandbox })
	})
}

// sandbox is that of the pod's newest container: a pod whose containers have
// ended may still have its network.
func (q *inside) sandbox(ctx context.Context, client *cri.Client, name string) (string, error) {
	all, err := q.instances(ctx, client, name)
	if err != nil {
		return "", err
	}
	return all[0].SandboxID, nil
}

// errPodGone ends a port-forward.
var errPodGone = errors.New("the runtime ended the connection: the pod's sandbox is gone, or the runtime restarts")

// forward carries connections until it is interrupted or the pod is gone. The
// runtime keeps the tunnel to a pod that is gone: it is looked for, by gone, when
// a connection fails.
func forward(ctx context.Context, tunnel *stream.Forward, ports []forwarded, gone func() bool) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer func() {
		for _, f := range ports {
			for _, l := range f.listeners {
				l.Close()
			}
		}
	}()
	failed := make(chan struct{}, 1)
	for i := range ports {
		f := &ports[i]
		if err := f.listen(); err != nil {
			return err
		}
		for _, l := range f.listeners {
			wg.Go(func() { accept(ctx, tunnel, l, f.remote, failed) })
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil // Ctrl-C is how one ends it
		case <-tunnel.Lost():
			return errPodGone
		case <-failed:
			if gone() {
				return errPodGone
			}
		}
	}
}

// accept carries what connects, until the listener is closed, and says when a
// connection has failed.
func accept(ctx context.Context, tunnel *stream.Forward, l net.Listener, port uint16, failed chan<- struct{}) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // say too many open files: others must end first
			fmt.Fprintf(os.Stderr, "accept a connection: %v\n", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			continue
		}
		wg.Go(func() {
			if err := tunnel.Carry(ctx, c, port); err != nil {
				fmt.Fprintln(os.Stderr, err)
				select {
				case failed <- struct{}{}:
				default: // it is being looked into
				}
			}
		})
	}
}
