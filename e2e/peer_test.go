//go:build peer

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// The peer's tests need the kubelet's program, which e2e/peer/README.md says
// how to build, and root:
//
//	NODEAGENT_KUBELET=/path/to/kubelet go test -tags peer -run Peer ./e2e

// TestPeerHandsOver: static pods that the kubelet started are taken over by
// the agent, and given back, without a container noticing.
func TestPeerHandsOver(t *testing.T) {
	kubelet := os.Getenv("NODEAGENT_KUBELET")
	if kubelet == "" {
		t.Fatal("NODEAGENT_KUBELET is not set: give the path of a kubelet")
	}
	keepSysctls(t)
	b := newBed(t, lab.Containerd2)
	// The kubelet wants the cgroup that it is to work in to be there.
	mounts, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	b.must(err)
	for _, m := range mounts {
		b.must(os.MkdirAll(filepath.Join(filepath.Dir(m), b.CgroupRoot), 0o755))
	}
	peer, err := b.Lab.Agent(kubelet)
	b.must(err)
	b.must(peer.Start())
	const count = 3
	for i := range count {
		name := fmt.Sprintf("peer%d", i)
		b.apply(name, podOf(name, crashOnce))
	}
	b.eventually("the kubelet's pods run", 60*time.Second, func() error {
		restarted := 0
		for _, c := range b.containers("") {
			if c.Metadata.Attempt == 1 && c.State == 1 {
				restarted++
			}
		}
		if restarted != count {
			return fmt.Errorf("%d do", restarted)
		}
		return nil
	})
	b.must(peer.Kill())
	was := b.alive()

	b.start()
	for i := range count {
		p := b.ready(fmt.Sprintf("peer%d", i))
		if n := container(p, "main").RestartCount; n != 1 {
			t.Errorf("%s: %d restarts, want 1", p.Name, n)
		}
	}
	b.restart()
	b.apply("mark", sleeper("mark"))
	mark := b.ready("mark")
	b.remove("mark")
	b.gone("mark", string(mark.UID))
	if now := b.alive(); strings.Join(now, " ") != strings.Join(was, " ") {
		t.Fatalf("the agent took over: instances %v became %v", was, now)
	}
	b.must(b.Agent.Kill())

	b.must(peer.Start())
	b.apply("back", sleeper("back"))
	b.eventually("the kubelet works", 60*time.Second, func() error {
		if n := len(b.alive()); n <= count {
			return fmt.Errorf("%d containers run", n)
		}
		return nil
	})
	now := strings.Join(b.alive(), " ")
	for _, id := range was {
		if !strings.Contains(now, id) {
			t.Errorf("the kubelet took back: instance %s is gone", id)
		}
	}
	b.must(peer.Kill())
}

// keepSysctls puts back what the kubelet sets in the kernel.
func keepSysctls(t *testing.T) {
	for _, name := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"} {
		path := filepath.Join("/proc/sys", name)
		data, err := os.ReadFile(path)
		if err != nil {
			continue // not in this kernel
		}
		t.Cleanup(func() {
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Errorf("put back: %v", err)
			}
		})
	}
}
