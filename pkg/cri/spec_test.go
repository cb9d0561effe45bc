package cri

import (
	"os"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestHostname(t *testing.T) {
	long := strings.Repeat("a", 62) + "-bc"
	for _, c := range []struct {
		name         string
		spec         v1.PodSpec
		host, domain string
		kernel       string // "" for an error
	}{
		{"web", v1.PodSpec{}, "web", "", "web"},
		{long, v1.PodSpec{}, long[:62], "", long[:62]},
		{"web", v1.PodSpec{Hostname: "h", Subdomain: "s"}, "h", "s.default.svc.c.l", "h"},
		{"web", v1.PodSpec{Hostname: "h", Subdomain: "s", SetHostnameAsFQDN: new(true)}, "h", "s.default.svc.c.l", "h.s.default.svc.c.l"},
		{long, v1.PodSpec{Subdomain: "s", SetHostnameAsFQDN: new(true)}, long[:62], "s.default.svc.c.l", ""},
		{"web", v1.PodSpec{Subdomain: "s", HostnameOverride: new("my.host")}, "my.host", "", "my.host"},
	} {
		p := &v1.Pod{Spec: c.spec}
		p.Name, p.Namespace = c.name, "default"
		host, domain, err := hostname(p, "c.l")
		if err != nil || host != c.host || domain != c.domain {
			t.Errorf("%s: %q, %q, %v; want %q, %q", c.name, host, domain, err, c.host, c.domain)
		}
		if kernel, err := kernelHostname(p, "c.l"); kernel != c.kernel || (err != nil) != (c.kernel == "") {
			t.Errorf("%s: kernel sees %q, %v; want %q", c.name, kernel, err, c.kernel)
		}
	}
}

func TestHostsFile(t *testing.T) {
	p := web()
	p.Spec.Hostname, p.Spec.Subdomain = "h", "s"
	p.Spec.HostAliases = []v1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"a", "b"}}}
	got, err := hostsContent(p, []string{"192.0.2.1", "2001:db8::1"}, "c.l")
	want := "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n" +
		"192.0.2.1\th.s.default.svc.c.l\th\n2001:db8::1\th.s.default.svc.c.l\th\n" +
		"\n# Entries added by HostAliases.\n192.0.2.9\ta\tb\n"
	if err != nil || string(got) != want {
		t.Errorf("hosts file:\n%s%v\nwant:\n%s", got, err, want)
	}
	p.Spec.HostNetwork = true
	node, err := os.ReadFile(etcHosts)
	if err != nil {
		t.Fatal(err)
	}
	got, err = hostsContent(p, nil, "c.l")
	want = "# Kubernetes-managed hosts file (host network).\n" + string(node) + "\n# Entries added by HostAliases.\n192.0.2.9\ta\tb\n"
	if err != nil || string(got) != want {
		t.Errorf("hosts file of the node:\n%s%v\nwant:\n%s", got, err, want)
	}
}

// Containers that run have the hosts file mounted: it is changed, not
// replaced, and only when it must be.
func TestHostsFileIsKept(t *testing.T) {
	c := dialed(t, t.TempDir(), "/none")
	path, err := c.writeHosts(web(), []string{"192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range []string{"192.0.2.1", "192.0.2.2"} {
		if _, err := c.writeHosts(web(), []string{ip}); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(path)
		if err != nil || !os.SameFile(before, after) || after.Mode().Perm() != 0o644 {
			t.Errorf("hosts file was replaced: %v, %v", after, err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(raw), "192.0.2.2\tweb\n") || strings.Contains(string(raw), "192.0.2.1") {
		t.Errorf("hosts file is %q, %v", raw, err)
	}
}

func TestMounts(t *testing.T) {
	c := dialed(t, t.TempDir(), "/none")
	p := web()
	k := &p.Spec.Containers[0]
	k.VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: etcHosts}}
	got, err := c.mounts(t.Context(), p, k, CreateRequest{PodIPs: []string{"192.0.2.1"}, Mounts: map[string]string{"v": "/v"}})
	if err != nil || len(got) != 2 || got[0].HostPath != "/v" || got[1].ContainerPath != "/dev/termination-log" {
		t.Errorf("a volume at /etc/hosts: %v, %v", got, err)
	}
	info, err := os.Stat(got[1].HostPath)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("termination message file: %v, %v", info, err)
	}
	if _, err = c.mounts(t.Context(), p, k, CreateRequest{}); err == nil || !strings.Contains(err.Error(), "volumeMount v") {
		t.Errorf("a volume that is not there: %v", err)
	}
	if _, err = c.mounts(t.Context(), p, k, CreateRequest{SubPaths: map[int]string{0: "/v/sub"}}); err != nil {
		t.Errorf("a subPath: %v", err)
	}
	p.UID = "../x"
	if _, err = c.mounts(t.Context(), p, k, CreateRequest{}); err == nil || !strings.Contains(err.Error(), "metadata.uid") {
		t.Errorf("a UID that leads astray: %v", err)
	}
}

func TestRecursiveReadOnly(t *testing.T) {
	for _, c := range []struct {
		vm              v1.VolumeMount
		supported, want bool
		fails           bool
	}{
		{vm: v1.VolumeMount{}, supported: true},
		{vm: v1.VolumeMount{ReadOnly: true, RecursiveReadOnly: new(v1.RecursiveReadOnlyDisabled)}, supported: true},
		{vm: v1.VolumeMount{ReadOnly: true, RecursiveReadOnly: new(v1.RecursiveReadOnlyIfPossible)}, supported: true, want: true},
		{vm: v1.VolumeMount{ReadOnly: true, RecursiveReadOnly: new(v1.RecursiveReadOnlyIfPossible)}},
		{vm: v1.VolumeMount{ReadOnly: true, RecursiveReadOnly: new(v1.RecursiveReadOnlyEnabled)}, supported: true, want: true},
		{vm: v1.VolumeMount{ReadOnly: true, RecursiveReadOnly: new(v1.RecursiveReadOnlyEnabled)}, fails: true},
		{vm: v1.VolumeMount{RecursiveReadOnly: new(v1.RecursiveReadOnlyEnabled)}, supported: true, fails: true},
		{vm: v1.VolumeMount{ReadOnly: true, MountPropagation: new(v1.MountPropagationHostToContainer), RecursiveReadOnly: new(v1.RecursiveReadOnlyEnabled)}, supported: true, fails: true},
	} {
		got, err := recursiveReadOnly(c.vm, c.supported)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%+v, supported %v: %v, %v", c.vm, c.supported, got, err)
		}
	}
}

func TestRunAsNonRoot(t *testing.T) {
	strict := &v1.PodSecurityContext{RunAsNonRoot: new(true)}
	for _, c := range []struct {
		pod   *v1.PodSecurityContext
		own   v1.SecurityContext
		user  ImageUser
		words string // "" when it may run
	}{
		{&v1.PodSecurityContext{}, v1.SecurityContext{}, ImageUser{}, ""},
		{strict, v1.SecurityContext{}, ImageUser{UID: 1000}, ""},
		{strict, v1.SecurityContext{RunAsUser: new(int64(5))}, ImageUser{}, ""},
		{strict, v1.SecurityContext{RunAsNonRoot: new(false)}, ImageUser{}, ""},
		{strict, v1.SecurityContext{}, ImageUser{}, "image will run as root"},
		{strict, v1.SecurityContext{}, ImageUser{Name: "app"}, "non-numeric user (app)"},
		{strict, v1.SecurityContext{RunAsUser: new(int64(0))}, ImageUser{UID: 7}, "breaks non-root policy"},
		{strict, v1.SecurityContext{}, ImageUser{UID: 1 << 40}, "invalid user id"},
	} {
		err := verifyNonRoot(c.pod, &c.own, c.user)
		if (err != nil) != (c.words != "") || err != nil && !strings.Contains(err.Error(), c.words) {
			t.Errorf("%+v: %v, want %q", c, err, c.words)
		}
	}
}

// On cgroup v2 the whole container is killed when memory runs out, unless
// configured otherwise, and does not swap.
func TestUnified(t *testing.T) {
	p := web()
	k := &p.Spec.Containers[0]
	k.Resources.Limits = v1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi")}
	r := containerResources(p, k, Machine{CgroupV2: true, Swap: true, HugePageSizes: []string{"2MB", "1GB"}}, PodOptions{})
	if r.Unified["memory.oom.group"] != "1" || r.Unified["memory.swap.max"] != "0" || r.MemorySwapLimitInBytes != 0 {
		t.Errorf("unified is %v", r)
	}
	if len(r.HugepageLimits) != 2 || r.HugepageLimits[0].Limit != 4<<20 || r.HugepageLimits[1].Limit != 0 {
		t.Errorf("huge pages are %v", r.HugepageLimits)
	}
	if r = containerResources(p, k, Machine{CgroupV2: true}, PodOptions{SingleProcessOOMKill: true}); r.Unified != nil {
		t.Errorf("unified is %v", r.Unified)
	}
}

func TestStopSignal(t *testing.T) {
	for name, want := range map[string]runtimeapi.Signal{
		"SIGUSR1": runtimeapi.Signal_SIGUSR1, "SIGRTMIN": runtimeapi.Signal_SIGRTMIN,
		"SIGRTMIN+3": runtimeapi.Signal_SIGRTMINPLUS3, "SIGRTMAX-14": runtimeapi.Signal_SIGRTMAXMINUS14,
	} {
		k := &v1.Container{Lifecycle: &v1.Lifecycle{StopSignal: new(v1.Signal(name))}}
		if got, err := stopSignal(k); got != want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := stopSignal(&v1.Container{Lifecycle: &v1.Lifecycle{StopSignal: new(v1.Signal("KILLME"))}}); err == nil {
		t.Error("an unknown signal is taken")
	}
}
