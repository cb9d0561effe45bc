package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	containerimage "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/node"
)

const waitShort = 30 * time.Second

// pid is the host's process ID of the container's first process.
func (b *bed) pid(id string) string {
	b.t.Helper()
	r, err := b.CRI.Runtime.ContainerStatus(context.Background(), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	b.must(err)
	var info struct{ Pid int }
	b.must(json.Unmarshal([]byte(r.Info["info"]), &info))
	if info.Pid == 0 {
		b.t.Fatalf("container %s has no process", id)
	}
	return strconv.Itoa(info.Pid)
}

// procStatus is /proc/<pid>/status of the container's first process, as the
// host sees it.
func (b *bed) procStatus(id string) string {
	b.t.Helper()
	data, err := os.ReadFile("/proc/" + b.pid(id) + "/status")
	b.must(err)
	return string(data)
}

// field is one line of procStatus.
func (b *bed) field(id, name string) string {
	b.t.Helper()
	for line := range strings.Lines(b.procStatus(id)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Join(strings.Fields(rest), " ")
		}
	}
	b.t.Fatalf("no field %s", name)
	return ""
}

// namespace names the container's namespace of that kind.
func (b *bed) namespace(id, kind string) string {
	b.t.Helper()
	return b.namespaceOf(b.pid(id), kind)
}

func (b *bed) namespaceOf(pid, kind string) string {
	b.t.Helper()
	name, err := os.Readlink("/proc/" + pid + "/ns/" + kind)
	b.must(err)
	return name
}

func ownerOf(info os.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

func (b *bed) agentPid() string { return strconv.Itoa(b.Agent.Pid()) }

// restarted is for await: a second instance runs.
func restarted(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.State.Running != nil }

// TestSecurity is what the security settings of pods and containers do, seen in
// the container or from the host.
func TestSecurity(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.Config = map[string]any{"allowedUnsafeSysctls": []string{"net.core.*"}}
	b.must(os.MkdirAll(filepath.Join(b.Root, "seccomp"), 0o755))
	b.must(os.WriteFile(filepath.Join(b.Root, "seccomp/nomkdir.json"), []byte(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}`), 0o644))
	users := b.registry(lab.RegistryOptions{})
	named, numbered := b.pushUser(users, "named:1", "app"), b.pushUser(users, "numbered:1", "1000")
	b.start()
	b.share(map[string]func(*bed){
		"PodsUser":       secured("sec-user", "securityContext: {runAsUser: 1234, runAsGroup: 5678}", "", func(b *bed, id string) { b.prints(id, "1234 5678", "echo $(id -u) $(id -g)") }),
		"ContainersUser": secured("sec-own-user", "securityContext: {runAsUser: 1234}", "{runAsUser: 4321}", func(b *bed, id string) { b.prints(id, "4321", "id -u") }),
		"ImagesUser":     ofImage("sec-image-user", named, "", func(b *bed, id string) { b.prints(id, "1000", "id -u") }),
		"NonRootRefusesRootImage": refuses("sec-nonroot", "securityContext: {runAsNonRoot: true}", lab.BusyboxImage,
			"container has runAsNonRoot and image will run as root (pod: \"sec-nonroot-lab_default(UID)\", container: main)"),
		"NonRootRefusesUserZero": refuses("sec-zero", "securityContext: {runAsNonRoot: true, runAsUser: 0}", named,
			"container's runAsUser breaks non-root policy (pod: \"sec-zero-lab_default(UID)\", container: main)"),
		"NonRootRefusesNamedUser": refuses("sec-named", "securityContext: {runAsNonRoot: true}", named,
			"container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root (pod: \"sec-named-lab_default(UID)\", container: main)"),
		"NonRootTakesNumberedUser": ofImage("sec-numbered", numbered, "securityContext: {runAsNonRoot: true}", func(b *bed, id string) { b.prints(id, "1000", "id -u") }),
		"GroupsMerge": ofImage("sec-merge", numbered, "securityContext: {supplementalGroups: [4000], fsGroup: 3000}", func(b *bed, id string) {
			b.equal("groups", b.field(id, "Groups"), "1000 3000 4000 50000")
		}),
		"GroupsStrict": ofImage("sec-strict", numbered, "securityContext: {supplementalGroups: [4000], fsGroup: 3000, supplementalGroupsPolicy: Strict}", func(b *bed, id string) {
			b.equal("groups", b.field(id, "Groups"), "1000 3000 4000")
		}),
		"UserInStatus":   userInStatus(numbered),
		"MountsInStatus": mountsInStatus,
		"CapabilitiesAdd": secured("sec-cap-add", "", "{capabilities: {add: [NET_ADMIN]}}", func(b *bed, id string) {
			b.capability(id, unix.CAP_NET_ADMIN, true)
		}),
		"CapabilitiesDrop": secured("sec-cap-drop", "", "{capabilities: {drop: [ALL], add: [CHOWN]}}", func(b *bed, id string) {
			b.equal("capabilities", b.field(id, "CapEff"), fmt.Sprintf("%016x", 1<<unix.CAP_CHOWN))
		}),
		"CapabilitiesDefault": secured("sec-cap", "", "{}", func(b *bed, id string) {
			b.capability(id, unix.CAP_NET_ADMIN, false)
			b.capability(id, unix.CAP_CHOWN, true)
		}),
		"Privileged":      secured("sec-priv", "", "{privileged: true}", privileged),
		"ReadOnlyRoot":    secured("sec-ro", "", "{readOnlyRootFilesystem: true}", func(b *bed, id string) { b.prints(id, "no", "touch /x 2>/dev/null || echo no") }),
		"NoNewPrivileges": secured("sec-nnp", "", "{allowPrivilegeEscalation: false}", func(b *bed, id string) { b.equal("NoNewPrivs", b.field(id, "NoNewPrivs"), "1") }),
		"NewPrivileges":   secured("sec-np", "", "{}", func(b *bed, id string) { b.equal("NoNewPrivs", b.field(id, "NoNewPrivs"), "0") }),
		"SeccompNone":     secured("sec-seccomp-none", "", "{}", func(b *bed, id string) { b.equal("Seccomp", b.field(id, "Seccomp"), "0") }),
		"SeccompRuntimeDefault": secured("sec-seccomp", "securityContext: {seccompProfile: {type: RuntimeDefault}}", "", func(b *bed, id string) {
			b.equal("Seccomp", b.field(id, "Seccomp"), "2")
		}),
		"SeccompUnconfined": secured("sec-seccomp-un", "securityContext: {seccompProfile: {type: RuntimeDefault}}", "{seccompProfile: {type: Unconfined}}", func(b *bed, id string) {
			b.equal("Seccomp", b.field(id, "Seccomp"), "0")
		}),
		"SeccompLocalhost": secured("sec-seccomp-own", "securityContext: {seccompProfile: {type: Localhost, localhostProfile: nomkdir.json}}", "", func(b *bed, id string) {
			b.prints(id, "no", "mkdir /tmp/d 2>/dev/null || echo no")
		}),
		"SeccompProfileMissing": seccompMissing,
		"AppArmor":              appArmor,
		"ProcIsMasked":          secured("sec-proc", "", "{}", func(b *bed, id string) { b.prints(id, "no", "echo 1 2>/dev/null > /proc/sysrq-trigger || echo no") }),
		"SysctlSafe": secured("sec-sysctl", "securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: \"80\"}]}", "", func(b *bed, id string) {
			b.prints(id, "80", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
		}),
		"SysctlAllowed": secured("sec-sysctl-un", "securityContext: {sysctls: [{name: net/core/somaxconn, value: \"1234\"}]}", "", func(b *bed, id string) {
			b.prints(id, "1234", "cat /proc/sys/net/core/somaxconn")
		}),
		"SysctlForbidden": rejected("sec-sysctl-no", "securityContext: {sysctls: [{name: kernel.msgmax, value: \"1\"}]}", "SysctlForbidden", `forbidden sysctl: "kernel.msgmax" not allowlisted`),
	})
}

// pushUser puts busybox with a user of its own, 1000 in group 50000 too, into
// the registry.
func (b *bed) pushUser(r *lab.Registry, repositoryTag, user string) string {
	b.t.Helper()
	tag, err := name.NewTag(lab.BusyboxImage)
	b.must(err)
	image, err := tarball.ImageFromPath(b.Images.Tarball, &tag)
	b.must(err)
	people, err := lab.NewImage(containerimage.Config{}, []lab.File{
		{Name: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")},
		{Name: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\napp:x:1000:\nmore:x:50000:app\n")},
	})
	b.must(err)
	layers, err := people.Layers()
	b.must(err)
	image, err = mutate.AppendLayers(image, layers...)
	b.must(err)
	file, err := image.ConfigFile()
	b.must(err)
	config := file.Config
	config.User = user
	image, err = mutate.Config(image, config)
	b.must(err)
	ref, err := r.Push(context.Background(), repositoryTag, image)
	b.must(err)
	return ref
}

func securedPod(name, image, more, own string) string {
	if own == "" {
		own = "{}"
	}
	return podOf(name, fmt.Sprintf(`%s
terminationGracePeriodSeconds: 1
containers:
- {name: main, image: '%s', command: [sh, -c, "trap exit TERM; sleep 100000 & wait"], securityContext: %s}`, more, image, own))
}

// secured runs a pod with settings of its own and of its container, and looks.
func secured(name, more, own string, look func(*bed, string)) func(*bed) {
	return func(b *bed) {
		_, id := b.running(name, securedPod(name, lab.BusyboxImage, more, own))
		look(b, id)
	}
}

func ofImage(name, image, more string, look func(*bed, string)) func(*bed) {
	return func(b *bed) {
		_, id := b.running(name, securedPod(name, image, more, ""))
		look(b, id)
	}
}

// refuses: the container waits and says why; UID stands for the pod's.
func refuses(name, more, image, message string) func(*bed) {
	return func(b *bed) {
		b.apply(name, securedPod(name, image, more, ""))
		p, s := b.await(name, "main", "is refused", waitsFor("CreateContainerConfigError"))
		b.equal("message", s.State.Waiting.Message, strings.Replace(message, "UID", string(p.UID), 1))
		b.remove(name)
		b.gone(name, string(p.UID))
	}
}

// rejected: the pod is not let in.
func rejected(name, more, reason, message string) func(*bed) {
	return func(b *bed) {
		b.apply(name, securedPod(name, lab.BusyboxImage, more, ""))
		p := b.phase(name, "Failed")
		b.equal("reason", p.Status.Reason, reason)
		b.equal("message", p.Status.Message, "Pod was rejected: "+message)
		if n := len(b.sandboxes(string(p.UID))); n != 0 {
			b.t.Errorf("%d sandboxes", n)
		}
		b.remove(name)
	}
}

func (b *bed) equal(what, got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// prints runs a line of shell in the container.
func (b *bed) prints(id, want, line string) {
	b.t.Helper()
	b.equal(line, b.exec(id, "sh", "-c", line), want)
}

func (b *bed) capability(id string, number int, want bool) {
	b.t.Helper()
	effective, err := strconv.ParseUint(b.field(id, "CapEff"), 16, 64)
	b.must(err)
	if got := effective&(1<<number) != 0; got != want {
		b.t.Errorf("capability %d: %v, want %v (all: %x)", number, got, want, effective)
	}
}

// privileged: it has all that the runtime has, and nothing of /proc is hidden.
func privileged(b *bed, id string) {
	b.capability(id, unix.CAP_SYS_ADMIN, true)
	b.equal("Seccomp", b.field(id, "Seccomp"), "0")
	b.prints(id, "0", "grep -c ' /proc/' /proc/self/mounts; true")
}

func seccompMissing(b *bed) {
	b.apply("sec-missing", securedPod("sec-missing", lab.BusyboxImage, "securityContext: {seccompProfile: {type: Localhost, localhostProfile: gone.json}}", ""))
	p, s := b.await("sec-missing", "main", "is refused", waitsFor("CreateContainerError"))
	if want := filepath.Join(b.Root, "seccomp/gone.json"); !strings.Contains(s.State.Waiting.Message, want) {
		b.t.Errorf("message %s, want one with %s", s.State.Waiting.Message, want)
	}
	b.remove("sec-missing")
	b.gone("sec-missing", string(p.UID))
}

// appArmor: a profile is enforced, or the pod is not let in.
func appArmor(b *bed) {
	const more = "securityContext: {appArmorProfile: {type: RuntimeDefault}}"
	if node.AppArmor() {
		_, id := b.running("sec-apparmor", securedPod("sec-apparmor", lab.BusyboxImage, more, ""))
		profile, err := os.ReadFile("/proc/" + b.pid(id) + "/attr/current")
		b.must(err)
		b.equal("profile", strings.TrimSpace(string(profile)), "cri-containerd.apparmor.d (enforce)")
		return
	}
	rejected("sec-apparmor", more, "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")(b)
	// Nobody asks for anything here.
	b.running("sec-unconfined", securedPod("sec-unconfined", lab.BusyboxImage, "securityContext: {appArmorProfile: {type: Unconfined}}", ""))
}

func userInStatus(image string) func(*bed) {
	return func(b *bed) {
		p, _ := b.running("sec-status", securedPod("sec-status", image, "securityContext: {supplementalGroups: [4000]}", ""))
		u := container(p, "main").User
		if u == nil || u.Linux == nil {
			b.t.Fatalf("no user in the status: %+v", u)
		}
		groups := slices.Sorted(slices.Values(u.Linux.SupplementalGroups))
		b.equal("user", fmt.Sprint(u.Linux.UID, u.Linux.GID, groups), "1000 1000 [1000 4000 50000]")
	}
}

func mountsInStatus(b *bed) {
	p, _ := b.running("sec-mounts", podOf("sec-mounts", `
terminationGracePeriodSeconds: 1
volumes: [{name: d, emptyDir: {}}]
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]
  volumeMounts: [{name: d, mountPath: /rw}, {name: d, mountPath: /ro, readOnly: true}, {name: d, mountPath: /rro, readOnly: true, recursiveReadOnly: IfPossible}]`))
	got, err := json.Marshal(container(p, "main").VolumeMounts)
	b.must(err)
	b.equal("mounts", string(got), `[{"name":"d","mountPath":"/rw"},{"name":"d","mountPath":"/ro","readOnly":true,"recursiveReadOnly":"Disabled"},{"name":"d","mountPath":"/rro","readOnly":true,"recursiveReadOnly":"Enabled"}]`)
}

// TestSeccompDefault: the node's setting confines who asks for nothing.
func TestSeccompDefault(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.Config = map[string]any{"seccompDefault": true}
	b.start()
	_, id := b.running("sec-default", securedPod("sec-default", lab.BusyboxImage, "", ""))
	b.equal("Seccomp", b.field(id, "Seccomp"), "2")
}

// TestOldRuntimeSecurity: what containerd 1.6 lacks is refused with the reason.
func TestOldRuntimeSecurity(t *testing.T) {
	b := newBed(t, lab.Containerd16)
	b.start()
	rejected("old-strict", "securityContext: {supplementalGroupsPolicy: Strict}", "SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=Strict is not supported in this node")(b)
	p, _ := b.running("old-merge", securedPod("old-merge", lab.BusyboxImage, "securityContext: {supplementalGroupsPolicy: Merge}", ""))
	if u := container(p, "main").User; u != nil {
		t.Errorf("user %+v, of which the runtime says nothing", u)
	}
}

// TestRuntimeClass: the class names the handler; a class that is not there yet
// is waited for.
func TestRuntimeClass(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	class := func(name, handler string) string {
		return fmt.Sprintf("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: %s}\nhandler: %s\n", name, handler)
	}
	b.apply("class-late", securedPod("class-late", lab.BusyboxImage, "runtimeClassName: late", ""))
	b.awaitTold("class-late", "FailedCreatePodSandBox", `runtimeclass.node.k8s.io "late" not found`)
	b.phase("class-late", "Pending")
	b.apply("late", class("late", "runc"))
	p := b.ready("class-late")
	s, err := b.CRI.Runtime.PodSandboxStatus(context.Background(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: b.sandboxes(string(p.UID))[0].Id})
	b.must(err)
	b.equal("handler", s.Status.RuntimeHandler, "runc")

	b.apply("none", class("none", "nothere"))
	b.apply("class-none", securedPod("class-none", lab.BusyboxImage, "runtimeClassName: none", ""))
	b.awaitTold("class-none", "FailedCreatePodSandBox", "nothere")

	b.apply("class-users", securedPod("class-users", lab.BusyboxImage, "runtimeClassName: none\nhostUsers: false", ""))
	b.awaitTold("class-users", "FailedCreatePodSandBox", `RuntimeClass handler "nothere" does not support user namespaces`)
}
