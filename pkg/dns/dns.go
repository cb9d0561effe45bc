// Package dns says what a pod finds in its /etc/resolv.conf: from the pod's
// policy and settings, the node's, and the host's own file.
package dns

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Settings are the node's share in the resolver configuration of its pods.
type Settings struct {
	// ClusterDNS are the addresses of the cluster's own servers (clusterDNS).
	ClusterDNS []string
	// ClusterDomain is searched after the pod's namespace (clusterDomain).
	ClusterDomain string
	// ResolvConf is the host's file (resolvConf), "" for none: then pods ask
	// the loopback address.
	ResolvConf string
	// NodeIPs choose the family of the loopback address.
	NodeIPs []string
}

// What resolvers in use can take (behaviour row 1.8-6).
const (
	maxServers     = 3
	maxSearches    = 32
	maxSearchChars = 2048
	maxSearchPath  = 253 // glibc aborts at longer ones
)

// Pod is the resolver configuration of the pod, and what people are to know of
// how it came about. It reads the host's file if the policy asks for it.
func (s Settings) Pod(p *v1.Pod) (*runtimeapi.DNSConfig, []pod.Note, error) {
	var host []byte
	if p.Spec.DNSPolicy != v1.DNSNone && s.ResolvConf != "" {
		var err error
		if host, err = readFile(s.ResolvConf); err != nil {
			return nil, nil, fmt.Errorf("read the host's resolver settings (resolvConf): %w", err)
		}
	}
	config, notes, err := s.Config(p, host)
	if err != nil {
		return nil, nil, fmt.Errorf("resolvConf %s: %w", s.ResolvConf, err)
	}
	return config, notes, nil
}

// Config is the pod's resolver configuration, given what stands in the host's
// file (behaviour rows 1.8-1 to 1.8-6). Its error is that of the file.
func (s Settings) Config(p *v1.Pod, host []byte) (*runtimeapi.DNSConfig, []pod.Note, error) {
	config := &runtimeapi.DNSConfig{}
	var notes []pod.Note
	if p.Spec.DNSPolicy != v1.DNSNone {
		var err error
		if config, err = parse(host); err != nil {
			return nil, nil, err
		}
	}
	cluster := asksCluster(p)
	switch {
	case p.Spec.DNSPolicy == v1.DNSNone:
	case cluster && len(s.ClusterDNS) > 0:
		config.Servers = slices.Clone(s.ClusterDNS)
		config.Searches = s.clusterSearches(p.Namespace, config.Searches)
		config.Options = []string{"ndots:5"}
	default:
		if cluster {
			notes = append(notes, warning("MissingClusterDNS",
				"pod: \"%s_%s(%s)\". kubelet does not have ClusterDNS IP configured and cannot create Pod using %q policy. Falling back to %q policy.",
				p.Name, p.Namespace, p.UID, v1.DNSClusterFirst, v1.DNSDefault))
		}
		if s.ResolvConf == "" {
			config = s.loopback()
		}
	}
	if own := p.Spec.DNSConfig; own != nil {
		config.Servers = distinct(config.Servers, own.Nameservers)
		config.Searches = distinct(config.Searches, own.Searches)
		config.Options = mergeOptions(config.Options, texts(own.Options))
	}
	return config, append(notes, fit(config)...), nil
}

// asksCluster says whether the policy is to ask the cluster's servers. So is one
// that nobody knows.
func asksCluster(p *v1.Pod) bool {
	switch p.Spec.DNSPolicy {
	case v1.DNSDefault, v1.DNSNone:
		return false
	case v1.DNSClusterFirst:
		return !p.Spec.HostNetwork
	}
	return true
}

func (s Settings) clusterSearches(namespace string, host []string) []string {
	if s.ClusterDomain == "" {
		return host
	}
	return distinct([]string{namespace + ".svc." + s.ClusterDomain, "svc." + s.ClusterDomain, s.ClusterDomain}, host)
}

// loopback stands for no file: without one, resolvers ask the local machine.
func (s Settings) loopback() *runtimeapi.DNSConfig {
	c := &runtimeapi.DNSConfig{Searches: []string{"."}}
	for _, ip := range s.NodeIPs {
		if strings.Contains(ip, ":") {
			c.Servers = append(c.Servers, "::1")
		} else {
			c.Servers = append(c.Servers, "127.0.0.1")
		}
	}
	if len(c.Servers) == 0 {
		c.Servers = []string{"127.0.0.1"}
	}
	return c
}

// fit cuts the configuration to what resolvers can take, and says so.
func fit(c *runtimeapi.DNSConfig) []pod.Note {
	var notes []pod.Note
	if len(c.Servers) > maxServers {
		c.Servers = c.Servers[:maxServers]
		notes = append(notes, warning("DNSConfigForming",
			"Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: %s", strings.Join(c.Servers, " ")))
	}
	given := len(c.Searches)
	c.Searches = c.Searches[:min(given, maxSearches)]
	c.Searches = slices.DeleteFunc(slices.Clone(c.Searches), func(path string) bool { return len(path) > maxSearchPath })
	for len(strings.Join(c.Searches, " ")) > maxSearchChars {
		c.Searches = c.Searches[:len(c.Searches)-1]
	}
	if len(c.Searches) < given {
		notes = append(notes, warning("DNSConfigForming",
			"Search Line limits were exceeded, some search paths have been omitted, the applied search line is: %s", strings.Join(c.Searches, " ")))
	}
	return notes
}

func warning(reason, format string, args ...any) pod.Note {
	return pod.Note{Warning: true, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// distinct is a followed by b, without what came before.
func distinct(a, b []string) []string {
	var out []string
	for _, s := range slices.Concat(a, b) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// texts are the options as a resolv.conf has them.
func texts(own []v1.PodDNSConfigOption) []string {
	var out []string
	for _, o := range own {
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}
		out = append(out, text)
	}
	return out
}
