package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"golang.org/x/sys/unix"
	"k8s.io/apiserver/pkg/server/healthz"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// Check says what is wrong, nil for nothing.
type Check struct {
	Name  string
	Check func(context.Context) error
}

// Logs is the check that what the agent logs is taken: a reader of standard
// error who stopped reading halts whoever logs.
var Logs = Check{"log", func(context.Context) error { return taken(unix.Stderr) }}

func taken(fd int) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(fds, 0); err == nil && n == 0 {
		return errors.New("standard error takes no more: who reads the log has stopped")
	}
	return nil
}

// installHealth serves /healthz and /healthz/<check> (behaviour row 1.20-4).
func installHealth(mux *http.ServeMux, checks []Check) {
	all := []healthz.HealthChecker{healthz.PingHealthz}
	for _, c := range checks {
		all = append(all, healthz.NamedCheck(c.Name, func(r *http.Request) error { return c.Check(r.Context()) }))
	}
	healthz.InstallHandler(mux, all...)
}

// ServeHealth answers on healthzBindAddress:healthzPort, as kubeadm waits for
// (behaviour row 1.20-19), until ctx ends; port 0 turns it off.
func ServeHealth(ctx context.Context, k *kubeletv1beta1.KubeletConfiguration, checks []Check, log *slog.Logger) error {
	if *k.HealthzPort == 0 {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(k.HealthzBindAddress, fmt.Sprint(*k.HealthzPort)))
	if err != nil {
		return fmt.Errorf("health port (healthzBindAddress, healthzPort): %w", err)
	}
	mux := http.NewServeMux()
	installHealth(mux, checks)
	sizes := defaultLimits
	sizes.stream = sizes.request // nobody follows anything here
	return serve(ctx, l, nil, mux, sizes, log)
}
