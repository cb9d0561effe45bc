package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestUserNamespaces is what pods with user IDs of their own find and leave.
func TestUserNamespaces(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.share(map[string]func(*bed){
		"RootIsNobodyOutside":     rootIsNobodyOutside,
		"VolumesShowAsRoots":      volumesShowAsRoots,
		"PodsShareNoID":           podsShareNoID,
		"RangeIsGivenBack":        rangeIsGivenBack,
		"ProcMountUnmasked":       procMountUnmasked,
		"HostUsersIsTheNodesOwn":  hostUsersIsTheNodes,
		"SidecarsShareTheirUsers": sidecarsShareTheirUsers,
	})
}

// mapped is the host's ID of user 0 in a container, and how many it has.
func (b *bed) mapped(id string) (first, length string) {
	b.t.Helper()
	f := strings.Fields(b.exec(id, "cat", "/proc/self/uid_map"))
	if len(f) != 3 || f[0] != "0" {
		b.t.Fatalf("uid_map is %q", f)
	}
	return f[1], f[2]
}

func rootIsNobodyOutside(b *bed) {
	_, id := b.running("users-root", spec("users-root", "hostUsers: false"))
	if got := b.exec(id, "id", "-u"); got != "0" {
		b.t.Errorf("inside it is user %s", got)
	}
	first, length := b.mapped(id)
	if first == "0" || length != "65536" {
		b.t.Errorf("user 0 is %s outside, of %s", first, length)
	}
	outside, _, _ := strings.Cut(b.field(id, "Uid"), " ")
	if outside != first {
		b.t.Errorf("outside it runs as %s, want %s", outside, first)
	}
}

func volumesShowAsRoots(b *bed) {
	p, id := b.running("users-volume", podOf("users-volume", `
hostUsers: false
terminationGracePeriodSeconds: 2
volumes: [{name: d, emptyDir: {}}]
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"], volumeMounts: [{name: d, mountPath: /d}]}`))
	b.exec(id, "touch", "/d/made")
	if got := b.exec(id, "stat", "-c", "%u %n", "/d/made", "/d", "/etc/hosts"); got != "0 /d/made\n0 /d\n0 /etc/hosts" {
		b.t.Errorf("inside they belong to\n%s", got)
	}
	// The mount maps IDs: outside, the file is root's, for the next user of the volume.
	info, err := os.Stat(filepath.Join(b.Root, "pods", string(p.UID), "volumes/kubernetes.io~empty-dir/d/made"))
	b.must(err)
	if uid := ownerOf(info); uid != 0 {
		b.t.Errorf("outside the file belongs to %d", uid)
	}
}

func podsShareNoID(b *bed) {
	_, one := b.running("users-one", spec("users-one", "hostUsers: false"))
	_, two := b.running("users-two", spec("users-two", "hostUsers: false"))
	first, _ := b.mapped(one)
	second, _ := b.mapped(two)
	if first == second {
		b.t.Errorf("both have %s", first)
	}
}

func rangeIsGivenBack(b *bed) {
	b.apply("users-back", spec("users-back", "hostUsers: false"))
	p := b.ready("users-back")
	var file struct {
		UIDMappings, GIDMappings []struct{ HostID, ContainerID, Length int64 }
	}
	path := filepath.Join(b.Root, "pods", string(p.UID), "userns")
	content, err := os.ReadFile(path)
	b.must(err)
	b.must(json.Unmarshal(content, &file))
	first, _ := b.mapped(b.instances(string(p.UID))["main"])
	if len(file.UIDMappings) != 1 || fmt.Sprint(file.UIDMappings[0].HostID) != first || file.GIDMappings[0] != file.UIDMappings[0] {
		b.t.Errorf("%s says %s, the pod has %s", path, content, first)
	}
	b.remove("users-back")
	b.gone("users-back", string(p.UID))
}

func procMountUnmasked(b *bed) {
	_, id := b.running("users-proc", podOf("users-proc", `
hostUsers: false
terminationGracePeriodSeconds: 2
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"], securityContext: {procMount: Unmasked}}`))
	if got := b.exec(id, "sh", "-c", "grep -c ' /proc/' /proc/self/mounts; true"); got != "0" {
		b.t.Errorf("%s mounts cover parts of /proc", got)
	}
}

func hostUsersIsTheNodes(b *bed) {
	_, id := b.running("users-host", spec("users-host", "hostUsers: true"))
	if first, _ := b.mapped(id); first != "0" {
		b.t.Errorf("user 0 is %s outside", first)
	}
}

func sidecarsShareTheirUsers(b *bed) {
	p, id := b.running("users-side", podOf("users-side", `
hostUsers: false
terminationGracePeriodSeconds: 2
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]}
- {name: other, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]}`))
	other := b.instances(string(p.UID))["other"]
	if a, c := b.namespace(id, "user"), b.namespace(other, "user"); a != c {
		b.t.Errorf("user namespaces %s and %s", a, c)
	}
}

// TestUsersOutliveTheAgent: a pod keeps its range when the agent comes back, and
// a new pod gets another.
func TestUsersOutliveTheAgent(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("users-stay", podOf("users-stay", `
hostUsers: false
terminationGracePeriodSeconds: 2
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]}
- {name: dies, image: BUSYBOX, command: [sh, -c, "while ! [ -e /tmp/x ]; do sleep 0.1; done; exit 1"]}`))
	p := b.ready("users-stay")
	was := b.instances(string(p.UID))
	first, _ := b.mapped(was["main"])
	b.restart()
	p = b.ready("users-stay")
	if now := b.instances(string(p.UID)); now["main"] != was["main"] {
		t.Errorf("container %s became %s", was["main"], now["main"])
	}
	_, next := b.running("users-next", spec("users-next", "hostUsers: false"))
	if got, _ := b.mapped(next); got == first {
		t.Errorf("both pods have %s", got)
	}
	// An instance made by the new process has the pod's old range.
	b.exec(was["dies"], "touch", "/tmp/x")
	b.eventually("the container is restarted", waitShort, func() error {
		if b.instances(string(p.UID))["dies"] == was["dies"] || b.instances(string(p.UID))["dies"] == "" {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if got, _ := b.mapped(b.instances(string(p.UID))["dies"]); got != first {
		t.Errorf("the new instance has %s, the pod %s", got, first)
	}
}

// TestOldRuntimeHasNoUserNamespaces: on a runtime that cannot, the pod waits for
// its sandbox and says why.
func TestOldRuntimeHasNoUserNamespaces(t *testing.T) {
	b := newBed(t, lab.Containerd16)
	b.start()
	b.apply("users-old", spec("users-old", "hostUsers: false"))
	b.awaitTold("users-old", "FailedCreatePodSandBox", "runtime does not support user namespaces")
	b.phase("users-old", "Pending")
}
