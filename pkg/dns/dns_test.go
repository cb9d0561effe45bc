package dns

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const hostFile = "# the host's\nnameserver 192.0.2.53\nsearch example.com. . corp.example.com\noptions timeout:1 rotate\noptions timeout:2\n"

var node = Settings{ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local", ResolvConf: "/etc/resolv.conf", NodeIPs: []string{"192.0.2.1"}}

func podWith(policy v1.DNSPolicy, change func(*v1.PodSpec)) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "u1"}, Spec: v1.PodSpec{DNSPolicy: policy}}
	if change != nil {
		change(&p.Spec)
	}
	return p
}

func text(c *runtimeapi.DNSConfig) string {
	return fmt.Sprintf("%s | %s | %s", strings.Join(c.Servers, " "), strings.Join(c.Searches, " "), strings.Join(c.Options, " "))
}

func TestPolicies(t *testing.T) {
	hostNetwork := func(s *v1.PodSpec) { s.HostNetwork = true }
	asHost := "192.0.2.53 | example.com corp.example.com | timeout:2 rotate"
	asCluster := "10.96.0.10 | shop.svc.cluster.local svc.cluster.local cluster.local example.com corp.example.com | ndots:5"
	for _, c := range []struct {
		name string
		node func(*Settings)
		pod  *v1.Pod
		want string
	}{
		{"cluster first", nil, podWith(v1.DNSClusterFirst, nil), asCluster},
		{"cluster first on the host's network", nil, podWith(v1.DNSClusterFirst, hostNetwork), asHost},
		{"cluster first with host net", nil, podWith(v1.DNSClusterFirstWithHostNet, hostNetwork), asCluster},
		{"default", nil, podWith(v1.DNSDefault, nil), asHost},
		{"none", nil, podWith(v1.DNSNone, func(s *v1.PodSpec) { s.DNSConfig = &v1.PodDNSConfig{Nameservers: []string{"192.0.2.7"}} }), "192.0.2.7 |  | "},
		{"no cluster domain", func(s *Settings) { s.ClusterDomain = "" }, podWith(v1.DNSClusterFirst, nil), "10.96.0.10 | example.com corp.example.com | ndots:5"},
		{"no file", func(s *Settings) { s.ResolvConf = "" }, podWith(v1.DNSDefault, nil), "127.0.0.1 | . | "},
		{"no file, two families", func(s *Settings) { s.ResolvConf, s.NodeIPs = "", []string{"2001:db8::1", "192.0.2.1"} }, podWith(v1.DNSDefault, nil), "::1 127.0.0.1 | . | "},
		{"no file, cluster first", func(s *Settings) { s.ResolvConf = "" }, podWith(v1.DNSClusterFirst, nil), "10.96.0.10 | shop.svc.cluster.local svc.cluster.local cluster.local | ndots:5"},
		{"own settings", nil, podWith(v1.DNSDefault, func(s *v1.PodSpec) {
			s.DNSConfig = &v1.PodDNSConfig{
				Nameservers: []string{"192.0.2.53", "192.0.2.54"}, Searches: []string{"example.com", "own.example.com"},
				Options: []v1.PodDNSConfigOption{{Name: "timeout", Value: new("5")}, {Name: "edns0"}, {Name: "rotate", Value: new("")}},
			}
		}), "192.0.2.53 192.0.2.54 | example.com corp.example.com own.example.com | timeout:5 rotate edns0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, host := node, []byte(hostFile)
			if c.node != nil {
				c.node(&s)
			}
			if s.ResolvConf == "" {
				host = nil
			}
			got, notes, err := s.Config(c.pod, host)
			if err != nil || len(notes) > 0 {
				t.Fatalf("notes %v, error %v", notes, err)
			}
			if text(got) != c.want {
				t.Errorf("got  %s\nwant %s", text(got), c.want)
			}
		})
	}
}

func TestMissingClusterDNS(t *testing.T) {
	s := node
	s.ClusterDNS = nil
	got, notes, err := s.Config(podWith(v1.DNSClusterFirst, nil), []byte(hostFile))
	if err != nil {
		t.Fatal(err)
	}
	if want := "192.0.2.53 | example.com corp.example.com | timeout:2 rotate"; text(got) != want {
		t.Errorf("got %s, want %s", text(got), want)
	}
	const want = `pod: "web_shop(u1)". kubelet does not have ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. Falling back to "Default" policy.`
	if len(notes) != 1 || notes[0].Reason != "MissingClusterDNS" || !notes[0].Warning || notes[0].Message != want {
		t.Errorf("notes %+v", notes)
	}
}

func TestLimits(t *testing.T) {
	many := func(n, length int) []string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf("%0*d", length, i))
		}
		return out
	}
	for _, c := range []struct {
		name              string
		servers, searches []string
		keptServers       int
		keptSearches      []string
		note              string
	}{
		{"all fit", many(3, 9), many(32, 10), 3, many(32, 10), ""},
		{"a fourth server", many(4, 9), nil, 3, nil, "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 000000000 000000001 000000002"},
		{"a 33rd path", nil, many(33, 2), 0, many(32, 2), "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: " + strings.Join(many(32, 2), " ")},
		// 20 paths of 100 characters and 19 spaces are 2019; a 21st makes 2120.
		{"too many characters", nil, many(21, 100), 0, many(20, 100), "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: " + strings.Join(many(20, 100), " ")},
		{"a path too long", nil, []string{"a", strings.Repeat("b", 254), "c"}, 0, []string{"a", "c"}, "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: a c"},
		// A path too long counts among the 32 that are looked at.
		{"cut before the long ones", nil, append([]string{strings.Repeat("b", 254)}, many(32, 2)...), 0, many(31, 2), "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: " + strings.Join(many(31, 2), " ")},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := podWith(v1.DNSNone, func(s *v1.PodSpec) { s.DNSConfig = &v1.PodDNSConfig{Nameservers: c.servers, Searches: c.searches} })
			got, notes, err := node.Config(p, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Servers) != c.keptServers || !slices.Equal(got.Searches, c.keptSearches) {
				t.Errorf("got %s", text(got))
			}
			told := ""
			for _, n := range notes {
				if n.Reason != "DNSConfigForming" || !n.Warning {
					t.Errorf("note %+v", n)
				}
				told += n.Message
			}
			if told != c.note {
				t.Errorf("told %q, want %q", told, c.note)
			}
		})
	}
}

// The host's file is read when the pod's policy asks for it, each time anew.
func TestFile(t *testing.T) {
	s := node
	s.ResolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	if _, _, err := s.Pod(podWith(v1.DNSDefault, nil)); err == nil || !strings.Contains(err.Error(), "resolvConf") {
		t.Errorf("no file: %v", err)
	}
	if _, _, err := s.Pod(podWith(v1.DNSNone, nil)); err != nil {
		t.Errorf("no file, but none is asked for: %v", err)
	}
	for _, server := range []string{"192.0.2.1", "192.0.2.2"} {
		if err := os.WriteFile(s.ResolvConf, []byte("nameserver "+server+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _, err := s.Pod(podWith(v1.DNSDefault, nil)); err != nil || !slices.Equal(got.Servers, []string{server}) {
			t.Errorf("got %v, %v; want %s", got, err, server)
		}
	}
	if err := os.WriteFile(s.ResolvConf, []byte("nameserver\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Pod(podWith(v1.DNSDefault, nil)); err == nil || !strings.Contains(err.Error(), s.ResolvConf) {
		t.Errorf("a line without address: %v", err)
	}
}

func TestCheck(t *testing.T) {
	s := node
	s.ResolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	if err := s.Check(); err == nil {
		t.Error("no file, and nothing is wrong")
	}
	for content, want := range map[string]string{
		hostFile:                                                     "",
		"search " + strings.Repeat("a ", 29):                         "",
		"search " + strings.Repeat("a ", 30):                         "30 domains",
		"search " + strings.Repeat("a", 254):                         "longer than 253",
		"search " + strings.Repeat(strings.Repeat("a", 200)+" ", 11): "2210 characters",
		"nameserver":                                                 "names no address",
	} {
		if err := os.WriteFile(s.ResolvConf, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", content, err, want)
		}
	}
	s.ResolvConf = ""
	if err := s.Check(); err != nil {
		t.Errorf("no file is asked for: %v", err)
	}
}

// As many options as a manifest may hold take no longer than reading them.
func TestManyOptions(t *testing.T) {
	p := podWith(v1.DNSNone, func(s *v1.PodSpec) {
		s.DNSConfig = &v1.PodDNSConfig{Nameservers: []string{"192.0.2.1"}}
		for i := range 100_000 {
			s.DNSConfig.Options = append(s.DNSConfig.Options, v1.PodDNSConfigOption{Name: fmt.Sprint("o", i)})
		}
	})
	begin := time.Now()
	got, _, err := node.Config(p, nil)
	if err != nil || len(got.Options) != 100_000 {
		t.Errorf("%d options, %v", len(got.Options), err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Whatever stands in the host's file, what a pod gets is within the limits.
func FuzzHostFile(f *testing.F) {
	f.Add([]byte(hostFile))
	f.Add([]byte("nameserver\nsearch\noptions :\n"))
	f.Add([]byte(strings.Repeat("nameserver 1\nsearch "+strings.Repeat("a ", 50)+"\n", 5)))
	f.Fuzz(func(t *testing.T, host []byte) {
		for _, policy := range []v1.DNSPolicy{v1.DNSDefault, v1.DNSClusterFirst} {
			got, _, err := node.Config(podWith(policy, nil), host)
			if err != nil {
				continue
			}
			if len(got.Servers) > maxServers || len(got.Searches) > maxSearches || len(strings.Join(got.Searches, " ")) > maxSearchChars {
				t.Errorf("beyond the limits: %s", text(got))
			}
			if slices.ContainsFunc(slices.Concat(got.Servers, got.Searches, got.Options), func(w string) bool { return w == "" && policy == v1.DNSClusterFirst || strings.ContainsAny(w, " \n\t") }) {
				t.Errorf("a word that is none: %q", text(got))
			}
		}
	})
}
