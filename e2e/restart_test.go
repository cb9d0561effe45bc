package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// until is a container that ends with code 5 once the file is there.
func until(dir, file string) string {
	return fmt.Sprintf(`
volumes: [{name: d, hostPath: {path: %s}}]
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; while [ ! -e /d/%s ]; do sleep 0.1; done; rm /d/%s; exit 5"]
  volumeMounts: [{name: d, mountPath: /d}]`, dir, file, file)
}

// TestRuntimeRestarts ends the runtime under running pods: they go on, those
// that die meanwhile are noticed, those that come meanwhile start after.
func TestRuntimeRestarts(t *testing.T) {
	for name, how := range map[string]struct {
		version string
		end     func(*lab.Runtime) error
	}{
		"Term":         {lab.Containerd2, (*lab.Runtime).Terminate},
		"Kill":         {lab.Containerd2, (*lab.Runtime).Kill},
		"KillOfOldOne": {lab.Containerd16, (*lab.Runtime).Kill},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, how.version)
			b.start()
			b.apply("stays", sleeper("stays"))
			b.apply("dies", podOf("dies", until(b.Lab.Dir, "die")))
			b.apply("goes", sleeper("goes"))
			stays, goes := b.ready("stays"), b.ready("goes")
			b.ready("dies")
			was := b.instances(string(stays.UID))["main"]

			b.must(how.end(b.Runtime))
			b.eventually("the agent says so", 30*time.Second, func() error {
				r, err := b.report()
				if err == nil && r.Node.Runtime == "" {
					err = fmt.Errorf("it takes the runtime for ready")
				}
				return err
			})
			b.must(os.WriteFile(b.Lab.Dir+"/die", nil, 0o644))
			b.apply("comes", sleeper("comes"))
			b.remove("goes")
			b.eventually("the container has died", 30*time.Second, func() error {
				if _, err := os.Stat(b.Lab.Dir + "/die"); err == nil {
					return fmt.Errorf("not yet")
				}
				return nil
			})
			b.must(b.Runtime.Start(context.Background()))

			b.ready("comes")
			_, s := b.await("dies", "main", "is restarted", func(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.Ready })
			if last := s.LastTerminationState.Terminated; last == nil || last.ExitCode != 5 && last.ExitCode != 255 {
				t.Errorf("last state %+v", last)
			}
			b.gone("goes", string(goes.UID))
			b.ready("stays")
			if now := b.instances(string(stays.UID))["main"]; now != was {
				t.Errorf("instance %s became %s", was, now)
			}
			if n := strings.Count(b.agentLog(), "container runtime is not ready"); n > 4 {
				t.Errorf("the loss of the runtime is told %d times", n)
			}
		})
	}
}

// healthy asks the health port.
func (b *bed) healthy() error {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return b.Network.Dial(ctx, network, addr)
		},
	}}
	defer client.CloseIdleConnections()
	r, err := client.Get("http://127.0.0.1:10248/healthz")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if body, err := io.ReadAll(r.Body); err != nil || string(body) != "ok" || r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %q, %v", r.Status, body, err)
	}
	return nil
}

// TestFrozenShimHarmsNoOther freezes what keeps one pod, and ends that pod:
// others start, restart and end meanwhile.
func TestFrozenShimHarmsNoOther(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("frozen", sleeper("frozen"))
	b.apply("dies", podOf("dies", until(b.Lab.Dir, "die")))
	frozen := b.ready("frozen")
	b.ready("dies")
	shim, err := b.Runtime.ShimPid(b.sandboxes(string(frozen.UID))[0].Id)
	b.must(err)
	b.must(syscall.Kill(shim, syscall.SIGSTOP))
	defer syscall.Kill(shim, syscall.SIGCONT)
	b.remove("frozen")
	b.eventually("the frozen pod is being stopped", 30*time.Second, func() error {
		if p := b.pod("frozen"); p == nil || len(p.Doing) == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	began := time.Now()
	b.apply("other", sleeper("other"))
	other := b.ready("other")
	b.must(os.WriteFile(b.Lab.Dir+"/die", nil, 0o644))
	b.await("dies", "main", "is restarted", func(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.Ready })
	b.remove("other")
	b.gone("other", string(other.UID))
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the others took %v", took)
	}
	b.must(b.healthy())
	// A new process of the agent is not held up either.
	b.restart()
	b.apply("later", sleeper("later"))
	b.ready("later")
	b.must(b.healthy())
	b.must(syscall.Kill(shim, syscall.SIGCONT))
	b.gone("frozen", string(frozen.UID))
}

// TestHungRuntime freezes the runtime: the agent stays healthy and answers,
// and goes on when the runtime does.
func TestHungRuntime(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("stays", sleeper("stays"))
	stays := b.ready("stays")
	was := b.instances(string(stays.UID))["main"]
	b.must(b.Runtime.Pause())
	b.apply("comes", sleeper("comes"))
	b.eventually("the agent knows the new pod", 30*time.Second, func() error {
		if b.pod("comes") == nil {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	b.must(b.healthy())
	b.must(b.Runtime.Resume())
	b.ready("comes")
	b.ready("stays")
	if now := b.instances(string(stays.UID))["main"]; now != was {
		t.Errorf("instance %s became %s", was, now)
	}
}

// TestFrozenAgentStallsNoOther freezes the agent: another client of the runtime
// sees all events all the same, many more than fit into the buffers between the
// runtime and a subscriber that does not read.
func TestFrozenAgentStallsNoOther(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("stays", sleeper("stays"))
	uid := string(b.ready("stays").UID)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	stream, err := b.CRI.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	b.must(err)
	b.must(b.Agent.Pause())
	seen := make(chan error, 1)
	const want = 400
	go func() {
		deleted := 0
		for deleted < want {
			e, err := stream.Recv()
			if err != nil {
				seen <- fmt.Errorf("after %d: %w", deleted, err)
				return
			}
			if e.ContainerEventType == runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT {
				deleted++
			}
		}
		seen <- nil
	}()
	sandbox := &lab.BarePod{Name: "bare", Namespace: "bare", UID: "bare", LogDir: b.Lab.Dir, CgroupParent: b.CgroupRoot, Image: lab.BusyboxImage}
	b.must(b.CRI.RunPod(ctx, sandbox))
	for i := range want {
		r, err := b.CRI.Runtime.CreateContainer(ctx, sandbox.Create(fmt.Sprintf("c%d", i)))
		b.must(err)
		_, err = b.CRI.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: r.ContainerId})
		b.must(err)
	}
	select {
	case err := <-seen:
		b.must(err)
	case <-time.After(20 * time.Second):
		t.Error("the other client's events stall")
	}
	b.must(b.CRI.StopPod(ctx, sandbox, 1)) // the agent would too, of a pod that nobody wants
	b.must(b.Agent.Resume())
	b.ready("stays")
	if n := len(b.instances(uid)); n != 1 {
		t.Errorf("%d instances, want 1", n)
	}
}
