//go:build peer

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// The peer's tests need the kubelet's program, which e2e/peer/README.md says
// how to build, and root:
//
//	NODEAGENT_KUBELET=/path/to/kubelet go test -tags peer -run Peer ./e2e

// TestPeerHandsOver: static pods that the kubelet started are taken over by
// the agent, and given back, without a container noticing.
func TestPeerHandsOver(t *testing.T) {
	b, peer := newPeerBed(t)
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

// newPeerBed is a bed with a kubelet that may run in the agent's place.
func newPeerBed(t *testing.T) (*bed, *lab.Agent) {
	kubelet := os.Getenv("NODEAGENT_KUBELET")
	if kubelet == "" {
		t.Fatal("NODEAGENT_KUBELET is not set: give the path of a kubelet")
	}
	keepSysctls(t)
	b := newBed(t, lab.Containerd2)
	makeTopCgroups(t, b.CgroupRoot)
	peer, err := b.Lab.Agent(kubelet)
	b.must(err)
	return b, peer
}

// makeTopCgroups makes the cgroup that the kubelet is to work in, which it wants to find.
func makeTopCgroups(t *testing.T, root string) {
	mounts, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	for _, m := range mounts {
		err = errors.Join(err, os.MkdirAll(filepath.Join(filepath.Dir(m), root), 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rich has all that a static pod may have and that stays on the node's disk, in
// its mount table or in its processes.
const rich = `
terminationGracePeriodSeconds: 3
volumes:
- {name: disk, emptyDir: {}}
- {name: memory, emptyDir: {medium: Memory, sizeLimit: 4Mi}}
- {name: about, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}, {path: deep/uid, fieldRef: {fieldPath: metadata.uid}}]}}
initContainers:
- {name: first, image: BUSYBOX, command: [sh, -c, "mkdir /disk/part; echo kept > /disk/part/file"], volumeMounts: [{name: disk, mountPath: /disk}]}
- {name: side, image: BUSYBOX, restartPolicy: Always, command: [sleep, "100000"], startupProbe: {exec: {command: ["true"]}, periodSeconds: 1}}
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]
  env: [{name: CPUS, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]
  readinessProbe: {exec: {command: [sh, -c, "! [ -e /memory/unready ]"]}, periodSeconds: 1}
  livenessProbe: {exec: {command: ["true"]}, periodSeconds: 1}
  lifecycle:
    postStart: {exec: {command: [sh, -c, "echo x >> /disk/hook"]}}
    preStop: {exec: {command: [sh, -c, "touch /disk/stopped"]}}
  volumeMounts:
  - {name: disk, mountPath: /disk}
  - {name: disk, mountPath: /part, subPath: part}
  - {name: memory, mountPath: /memory}
  - {name: about, mountPath: /about}`

// TestPeerHandsOverVolumesAndProbes: what a kubelet mounted, probes and
// remembers of a pod is the agent's after a swap, down to the last mount.
func TestPeerHandsOverVolumesAndProbes(t *testing.T) {
	b, peer := newPeerBed(t)
	b.must(peer.Start())
	b.apply("rich", podOf("rich", rich))
	b.eventually("the kubelet's pod runs", 60*time.Second, func() error {
		if n := len(b.alive()); n != 2 {
			return fmt.Errorf("%d of 2 containers run", n)
		}
		return nil
	})
	was := strings.Join(b.alive(), " ")
	b.must(peer.Kill())

	b.start()
	p := b.ready("rich")
	main := container(p, "main")
	_, id, _ := strings.Cut(main.ContainerID, "://")
	look := "cat /part/file /about/name /about/deep/uid /disk/hook"
	want := fmt.Sprintf("kept\n%s%sx", p.Name, p.UID)
	if got := b.exec(id, "sh", "-c", look); got != want {
		t.Errorf("after the swap the container sees %q, want %q", got, want)
	}
	b.exec(id, "touch", "/memory/unready")
	b.await("rich", "main", "is unready", func(s v1.ContainerStatus) bool { return !s.Ready })
	b.exec(id, "rm", "/memory/unready")
	b.ready("rich")
	if now := strings.Join(b.alive(), " "); now != was {
		t.Fatalf("instances %s became %s", was, now)
	}
	b.remove("rich")
	b.gone("rich", string(p.UID)) // with every mount and folder
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
