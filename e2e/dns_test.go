package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestDNS is what pods find in their /etc/resolv.conf.
func TestDNS(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	file := filepath.Join(b.Agent.Dir, "resolv.conf")
	b.must(os.WriteFile(file, []byte("nameserver 192.0.2.53\nsearch host.test\noptions timeout:1\n"), 0o644))
	b.Config = map[string]any{"clusterDNS": []string{"10.96.0.10"}, "clusterDomain": "cluster.local", "resolvConf": file}
	b.start()
	host := "search host.test\nnameserver 192.0.2.53\noptions timeout:1"
	cluster := "search default.svc.cluster.local svc.cluster.local cluster.local host.test\nnameserver 10.96.0.10\noptions ndots:5"
	b.share(map[string]func(*bed){
		"ClusterFirst":              resolves("dns-cluster", "", cluster),
		"ClusterFirstOnHostNetwork": resolves("dns-host", "hostNetwork: true", host),
		"ClusterFirstWithHostNet":   resolves("dns-both", "hostNetwork: true\ndnsPolicy: ClusterFirstWithHostNet", cluster),
		"Default":                   resolves("dns-default", "dnsPolicy: Default", host),
		"None":                      resolves("dns-none", "dnsPolicy: None\ndnsConfig: {nameservers: [192.0.2.9], searches: [own.test], options: [{name: ndots, value: \"2\"}, {name: edns0}]}", "search own.test\nnameserver 192.0.2.9\noptions ndots:2 edns0"),
		"OwnSettingsAreAdded": resolves("dns-own", "dnsPolicy: Default\ndnsConfig: {nameservers: [192.0.2.9], searches: [own.test], options: [{name: timeout, value: \"3\"}]}",
			"search host.test own.test\nnameserver 192.0.2.53\nnameserver 192.0.2.9\noptions timeout:3"),
		"TooManyServersAreCut": tooManyServers,
	})
}

func resolves(name, more, want string) func(*bed) {
	return func(b *bed) {
		_, id := b.running(name, spec(name, more))
		if got := b.exec(id, "cat", "/etc/resolv.conf"); got != want {
			b.t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

func tooManyServers(b *bed) {
	p, id := b.running("dns-many", spec("dns-many", "dnsPolicy: Default\ndnsConfig: {nameservers: [192.0.2.1, 192.0.2.2, 192.0.2.3]}"))
	if got := b.exec(id, "cat", "/etc/resolv.conf"); strings.Count(got, "nameserver") != 3 {
		b.t.Errorf("got %s", got)
	}
	if !told(p, "DNSConfigForming", "the applied nameserver line is: 192.0.2.53 192.0.2.1 192.0.2.2") {
		b.t.Errorf("notes %+v", p.Notes)
	}
}

// TestDNSWithoutCluster: pods that want a cluster's servers on a node that has
// none get the host's, and it is said once.
func TestDNSWithoutCluster(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.Config = map[string]any{"resolvConf": ""}
	b.start()
	p, id := b.running("dns-missing", spec("dns-missing", ""))
	if got := b.exec(id, "cat", "/etc/resolv.conf"); got != "search .\nnameserver 127.0.0.1" {
		b.t.Errorf("got %s", got)
	}
	if !told(p, "MissingClusterDNS", `Falling back to "Default" policy`) {
		b.t.Errorf("notes %+v", p.Notes)
	}
}

// TestDNSFileMissing: a pod whose settings cannot be read waits for its sandbox,
// says why, and goes on when the file is there. The node says so at its start.
func TestDNSFileMissing(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	file := filepath.Join(b.Agent.Dir, "resolv.conf")
	b.Config = map[string]any{"resolvConf": file}
	b.start()
	if n := strings.Count(b.agentLog(), "the host's resolver settings do not suit pods"); n != 1 {
		t.Errorf("said %d times at start", n)
	}
	b.apply("dns-late", spec("dns-late", "dnsPolicy: Default"))
	b.awaitTold("dns-late", "FailedCreatePodSandBox", file)
	b.phase("dns-late", "Pending")
	b.must(os.WriteFile(file, []byte("nameserver 192.0.2.53\n"), 0o644))
	p := b.ready("dns-late")
	if got := b.exec(b.instances(string(p.UID))["main"], "cat", "/etc/resolv.conf"); got != "nameserver 192.0.2.53" {
		t.Errorf("got %s", got)
	}
}
