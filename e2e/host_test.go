package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestHost is what pods find of the machine: its names, its hosts file and its
// namespaces.
func TestHost(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.Config = map[string]any{"clusterDomain": "cluster.local"}
	b.start()
	b.share(map[string]func(*bed){
		"HostsFile":                   hostsFile,
		"HostsFileIsMadeAnew":         hostsFileIsMadeAnew,
		"HostsFileOfHostNetwork":      hostsFileOfHostNetwork,
		"OwnMountHidesHostsFile":      ownMountHidesHostsFile,
		"HostnameIsThePods":           named("host-plain", "", "host-plain-lab"),
		"LongNameIsCut":               named(longName, "", longName[:63]),
		"Hostname":                    named("host-named", "hostname: web", "web"),
		"SubdomainStaysOutOfHostname": named("host-sub", "hostname: web\nsubdomain: shop", "web"),
		"SetHostnameAsFQDN":           named("host-fqdn", "hostname: web\nsubdomain: shop\nsetHostnameAsFQDN: true", "web.shop.default.svc.cluster.local"),
		"HostnameOverride":            hostnameOverride,
		"LongFQDNFailsTheSandbox":     longFQDN,
		"HostnameOfHostNetwork":       hostnameOfHostNetwork,
		"NamespacesAreThePods":        namespacesAreThePods,
		"HostNetwork":                 sharesWithHost("net-host", "hostNetwork: true", "net"),
		"HostPID":                     sharesWithHost("pid-host", "hostPID: true", "pid"),
		"HostIPC":                     sharesWithHost("ipc-host", "hostIPC: true", "ipc"),
		"ShareProcessNamespace":       shareProcessNamespace,
	})
}

// longName is longer than a host name may be; cut to 63 it ends in a letter.
var longName = "host-" + strings.Repeat("n", 70)

const localhosts = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
	"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"

const aliases = "\n# Entries added by HostAliases.\n192.0.2.7\tone.test\ttwo.test"

func hostsFile(b *bed) {
	p, id := b.running("hosts", spec("hosts", "hostname: web\nsubdomain: shop\nhostAliases: [{ip: 192.0.2.7, hostnames: [one.test, two.test]}]"))
	want := localhosts + p.Status.PodIP + "\tweb.shop.default.svc.cluster.local\tweb\n" + aliases
	if got := b.exec(id, "cat", "/etc/hosts"); got != want {
		b.t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	info, err := os.Stat(filepath.Join(b.Root, "pods", string(p.UID), "etc-hosts"))
	b.must(err)
	if info.Mode().Perm() != 0o644 {
		b.t.Errorf("mode %v", info.Mode())
	}
}

func hostsFileIsMadeAnew(b *bed) {
	b.apply("hosts-anew", podOf("hosts-anew", `
terminationGracePeriodSeconds: 2
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "while ! [ -e /tmp/x ]; do sleep 0.1; done; exit 1"]}`))
	p := b.ready("hosts-anew")
	id := b.instances(string(p.UID))["main"]
	b.exec(id, "sh", "-c", "echo '192.0.2.66 fake.test' >> /etc/hosts; touch /tmp/x")
	p, s := b.await("hosts-anew", "main", "is restarted", restarted)
	if got := b.exec(strings.TrimPrefix(s.ContainerID, "containerd://"), "cat", "/etc/hosts"); got != localhosts+p.Status.PodIP+"\thosts-anew-lab" {
		b.t.Errorf("got\n%s", got)
	}
	b.remove("hosts-anew")
}

func hostsFileOfHostNetwork(b *bed) {
	_, id := b.running("hosts-net", spec("hosts-net", "hostNetwork: true\nhostAliases: [{ip: 192.0.2.7, hostnames: [one.test, two.test]}]"))
	node, err := os.ReadFile("/etc/hosts")
	b.must(err)
	if got, want := b.exec(id, "cat", "/etc/hosts"), "# Kubernetes-managed hosts file (host network).\n"+string(node)+aliases; got != want {
		b.t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func ownMountHidesHostsFile(b *bed) {
	_, id := b.running("hosts-own", podOf("hosts-own", `
terminationGracePeriodSeconds: 2
volumes: [{name: d, emptyDir: {}}]
initContainers: [{name: write, image: BUSYBOX, command: [sh, -c, "echo mine > /d/hosts"], volumeMounts: [{name: d, mountPath: /d}]}]
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"], volumeMounts: [{name: d, mountPath: /etc/hosts, subPath: hosts}]}`))
	if got := b.exec(id, "cat", "/etc/hosts"); got != "mine" {
		b.t.Errorf("got %s", got)
	}
}

func named(name, more, want string) func(*bed) {
	return func(b *bed) {
		_, id := b.running(name, spec(name, more))
		if got := b.exec(id, "hostname"); got != want {
			b.t.Errorf("hostname is %s, want %s", got, want)
		}
	}
}

func hostnameOverride(b *bed) {
	p, id := b.running("host-over", spec("host-over", "hostname: web\nsubdomain: shop\nhostnameOverride: any.name.test"))
	if got := b.exec(id, "hostname"); got != "any.name.test" {
		b.t.Errorf("hostname is %s", got)
	}
	if got := b.exec(id, "tail", "-n1", "/etc/hosts"); got != p.Status.PodIP+"\tany.name.test" {
		b.t.Errorf("the hosts file ends in %s", got)
	}
}

func longFQDN(b *bed) {
	sub := strings.Repeat("s", 60)
	b.apply("host-long", spec("host-long", "hostname: web\nsubdomain: "+sub+"\nsetHostnameAsFQDN: true"))
	b.awaitTold("host-long", "FailedCreatePodSandBox", "failed to construct FQDN from pod hostname and cluster domain, FQDN web."+sub+".default.svc.cluster.local is too long (64 characters is the max, 90 characters requested)")
	b.phase("host-long", "Pending")
	b.remove("host-long")
}

func hostnameOfHostNetwork(b *bed) {
	_, id := b.running("host-net", spec("host-net", "hostNetwork: true\nhostname: web"))
	host, err := os.Hostname()
	b.must(err)
	if got := b.exec(id, "hostname"); got != host {
		b.t.Errorf("hostname is %s, want %s", got, host)
	}
}

// namespacesAreThePods: by default network, IPC and host name are the pod's,
// processes the container's own.
func namespacesAreThePods(b *bed) {
	p, main := b.running("ns-own", podOf("ns-own", `
terminationGracePeriodSeconds: 2
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]}
- {name: other, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]}`))
	other := b.instances(string(p.UID))["other"]
	for kind, shared := range map[string]bool{"net": true, "ipc": true, "uts": true, "pid": false, "mnt": false} {
		one, two, host := b.namespace(main, kind), b.namespace(other, kind), b.namespaceOf(b.agentPid(), kind)
		if (one == two) != shared || one == host {
			b.t.Errorf("%s: the containers have %s and %s, the agent %s", kind, one, two, host)
		}
	}
}

func sharesWithHost(name, more, kind string) func(*bed) {
	return func(b *bed) {
		_, id := b.running(name, spec(name, more))
		for _, k := range []string{"net", "pid", "ipc"} {
			got, host := b.namespace(id, k), b.namespaceOf(b.agentPid(), k)
			if (got == host) != (k == kind) {
				b.t.Errorf("%s: the container has %s, the agent %s", k, got, host)
			}
		}
	}
}

func shareProcessNamespace(b *bed) {
	p, main := b.running("ns-share", podOf("ns-share", `
shareProcessNamespace: true
terminationGracePeriodSeconds: 2
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]}
- {name: other, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 4242 & wait"]}`))
	other := b.instances(string(p.UID))["other"]
	if one, two, host := b.namespace(main, "pid"), b.namespace(other, "pid"), b.namespaceOf(b.agentPid(), "pid"); one != two || one == host {
		b.t.Errorf("the containers have %s and %s, the agent %s", one, two, host)
	}
	if got := b.exec(main, "ps"); !strings.Contains(got, "sleep 4242") || !strings.Contains(got, "/pause") {
		b.t.Errorf("one container sees of the others:\n%s", got)
	}
}
