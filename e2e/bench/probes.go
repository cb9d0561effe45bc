package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

const (
	// probePeriod is the period of each probe that is measured.
	probePeriod = time.Second
	// probedContainers is how many containers a pod has, each with a liveness
	// probe by HTTP and a readiness probe by TCP.
	probedContainers = 25
	// probesWatched is for how long.
	probesWatched = 30 * time.Second
)

// probeCounts are how many probes run when the agent is looked at, ascending.
var probeCounts = []int{500, 1000}

// probes measures what so many healthy probes cost, and how well they keep their
// period, beside the system calls that each of them cannot do without.
func (b *bed) probes(ctx context.Context) error {
	if err := b.clear(ctx); err != nil {
		return err
	}
	if err := b.restartAgent(ctx); err != nil {
		return err
	}
	t, err := b.newTarget()
	if err != nil {
		return err
	}
	defer t.close()
	pods := 0
	for _, n := range probeCounts {
		for ; pods < n/2/probedContainers; pods++ {
			name := b.name()
			if err := b.agent.WritePod(name+".yaml", t.manifest(name)); err != nil {
				return err
			}
		}
		if err := b.await(ctx, pods, pods); err != nil {
			return err
		}
		if err := pause(ctx, calm); err != nil {
			return err
		}
		if err := b.probed(ctx, t, n); err != nil {
			return err
		}
	}
	return nil
}

func (b *bed) probed(ctx context.Context, t *target, n int) error {
	pid, who := b.agent.Pid(), b.subject.name
	t.reset()
	before, err := cpuTime(pid)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := pause(ctx, probesWatched); err != nil {
		return err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	deviations, seen := t.deviations()
	if seen != n/2 {
		return fmt.Errorf("%d of %d HTTP probes came", seen, n/2)
	}
	percent := func(d time.Duration) float64 { return 100 * d.Seconds() / took }
	used := figure{percent(after - before), percent(max(0, after-before-clockTick)), percent(after - before + clockTick)}
	cpu := b.table.set(fmt.Sprintf("%d probes at 1 s, half HTTP, half TCP, of one core", n), who, used.text("%"))
	late := quantile(deviations, 0.99)
	jitter := b.table.set(fmt.Sprintf("%d probes: how far intervals are off, p50 and p99, of the period", n), who,
		fmt.Sprintf("%.2f %%, %.2f %%", quantile(deviations, 0.5), late))
	if !b.bare {
		return nil
	}
	cost, err := b.bareProbes(t)
	if err != nil {
		return err
	}
	b.table.set(fmt.Sprintf("%d probes at 1 s, half HTTP, half TCP, of one core", n), "bare", fmt.Sprintf("%.1f %%", 100*cost.Seconds()*float64(n)))
	if n == probeCounts[0] {
		cpu.targeted("≤ 2 %", used.atMost(2))
		jitter.targeted("≤ 10 %", figure{late, late, late}.atMost(10))
	}
	return nil
}

// target is a server that is probed. It does as little as it can.
type target struct {
	http, tcp net.Listener

	mu      sync.Mutex
	arrived map[string][]time.Time // by path
}

func (b *bed) newTarget() (*target, error) {
	t := &target{arrived: map[string][]time.Time{}}
	var err error
	if t.http, err = b.Network.Listen("tcp", lab.NodeAddress+":0"); err != nil {
		return nil, err
	}
	if t.tcp, err = b.Network.Listen("tcp", lab.NodeAddress+":0"); err != nil {
		return nil, err
	}
	go accept(t.http, t.answer)
	go accept(t.tcp, func(net.Conn) {})
	return t, nil
}

func (t *target) close() {
	t.http.Close()
	t.tcp.Close()
}

// accept hands out connections until the listener is closed.
func accept(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

func (t *target) answer(c net.Conn) {
	now := time.Now()
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")) // who doesn't read it counts it a failure
	t.mu.Lock()
	defer t.mu.Unlock()
	t.arrived[r.URL.Path] = append(t.arrived[r.URL.Path], now)
}

func (t *target) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.arrived)
}

// deviations are how far the intervals of all probes are off, in percent of the
// period, and how many probes there are.
func (t *target) deviations() (out []float64, seen int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, times := range t.arrived {
		for i := 1; i < len(times); i++ {
			off := times[i].Sub(times[i-1]) - probePeriod
			out = append(out, 100*math.Abs(off.Seconds()/probePeriod.Seconds()))
		}
	}
	return out, len(t.arrived)
}

func (t *target) manifest(name string) []byte {
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	var out strings.Builder
	fmt.Fprintf(&out, "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n", name)
	for i := range probedContainers {
		fmt.Fprintf(&out, `  - name: c%d
    image: %s
    command: [sleep, "100000"]
    livenessProbe: {httpGet: {host: %s, port: %d, path: /%s/%d}, periodSeconds: 1}
    readinessProbe: {tcpSocket: {host: %s, port: %d}, periodSeconds: 1}
`, i, lab.BusyboxImage, lab.NodeAddress, port(t.http), name, i, lab.NodeAddress, port(t.tcp))
	}
	return []byte(out.String())
}

// bareProbes is the processor time of a probe that is nothing but its system
// calls, one after another on one thread, half of them by HTTP.
func (b *bed) bareProbes(t *target) (each time.Duration, err error) {
	const rounds = 2000
	err = b.Network.Do(func() error {
		before, err := threadTime()
		if err != nil {
			return err
		}
		for range rounds {
			if err := bareProbe(t.http, "GET /bare HTTP/1.1\r\nHost: bare\r\nConnection: close\r\n\r\n"); err != nil {
				return err
			}
			if err := bareProbe(t.tcp, ""); err != nil {
				return err
			}
		}
		after, err := threadTime()
		each = (after - before) / (2 * rounds)
		return err
	})
	return each, err
}

func threadTime() (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_THREAD, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

func bareProbe(l net.Listener, request string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := l.Addr().(*net.TCPAddr)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}); err != nil || request == "" {
		return err
	}
	if _, err := unix.Write(fd, []byte(request)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		if n, err := unix.Read(fd, buf); err != nil || n == 0 {
			return err
		}
	}
}
