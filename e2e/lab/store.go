package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// StopAPIServer ends the apiserver by SIGTERM; controllers, scheduler and
// store stay and wait. Clients see closed connections.
func (p *ControlPlane) StopAPIServer() error { return p.apiserver.stop() }

// KillAPIServer ends the apiserver by SIGKILL.
func (p *ControlPlane) KillAPIServer() error { return p.apiserver.kill() }

// StartAPIServer starts it again, at the same address with the same keys, and
// returns when it is ready. Controllers and scheduler take some seconds more
// to find it, as many as they were without it.
func (p *ControlPlane) StartAPIServer() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.startAPIServer(ctx); err != nil {
		return err
	}
	// They may have ended without it.
	return errors.Join(p.controllers.start(), p.scheduler.start())
}

// startStore returns when the store listens. Its socket outlives a killed one,
// whose successor removes it first.
func (p *ControlPlane) startStore(ctx context.Context) error {
	if err := p.kine.start(); err != nil {
		return err
	}
	return poll(ctx, func() error {
		if err := p.kine.check(); err != nil {
			return err
		}
		c, err := net.Dial("unix", p.kineSocket())
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// startAPIServer returns when the apiserver says that it is ready: its
// namespaces are there, and the default roles.
func (p *ControlPlane) startAPIServer(ctx context.Context) error {
	if err := p.apiserver.start(); err != nil {
		return err
	}
	return poll(ctx, func() error {
		if err := errors.Join(p.kine.check(), p.apiserver.check()); err != nil {
			return err
		}
		if err := p.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
			return err
		}
		_, err := p.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		return err
	})
}

// SaveStore keeps a copy of all that the cluster knows, under a name. The
// control plane stands still meanwhile, and runs again in the end.
func (p *ControlPlane) SaveStore(name string) error {
	return p.whileStopped(func() error {
		return os.CopyFS(p.path("saved-"+name), os.DirFS(p.path("store")))
	})
}

// RestoreStore has the control plane forget all that was since SaveStore.
func (p *ControlPlane) RestoreStore(name string) error {
	return p.whileStopped(func() error {
		if err := removeTree(p.path("store")); err != nil {
			return err
		}
		return os.CopyFS(p.path("store"), os.DirFS(p.path("saved-"+name)))
	})
}

func (p *ControlPlane) whileStopped(f func() error) error {
	err := p.stop()
	if err == nil {
		err = f()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err = errors.Join(err, p.start(ctx)); err != nil {
		return fmt.Errorf("change store: %w", err)
	}
	return nil
}
