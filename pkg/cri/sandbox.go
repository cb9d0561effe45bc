package cri

import (
	"fmt"
	"net/netip"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// SandboxRequest is what the pod's value and its surroundings add to the spec.
type SandboxRequest struct {
	Attempt uint32
	DNS     *runtimeapi.DNSConfig
	// Handler is the runtime's handler that the pod's RuntimeClass names, "" for
	// the default.
	Handler string
	// Users are the IDs of the pod's own user namespace, if it has one.
	Users pod.IDs
}

// SandboxConfig is the pod's sandbox as the kubelet would ask for it
// (behaviour rows 1.8-8, 1.8-12 to 1.8-15, 1.9-14, 1.11-4).
func SandboxConfig(p *v1.Pod, req SandboxRequest, m Machine, o PodOptions) (*runtimeapi.PodSandboxConfig, error) {
	logs, err := LogFolder(p.Namespace, p.Name, p.UID)
	if err != nil {
		return nil, err
	}
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID), Attempt: req.Attempt},
		Labels:       sandboxLabels(p),
		Annotations:  p.Annotations,
		LogDirectory: o.LogsDir + "/" + logs,
		PortMappings: portMappings(p),
		DnsConfig:    req.DNS,
	}
	if !p.Spec.HostNetwork {
		if cfg.Hostname, err = kernelHostname(p, o.ClusterDomain); err != nil {
			return nil, err
		}
	}
	if cfg.Linux, err = linuxSandbox(p, req.Users, m, o); err != nil {
		return nil, err
	}
	return cfg, nil
}

func linuxSandbox(p *v1.Pod, users pod.IDs, m Machine, o PodOptions) (*runtimeapi.LinuxPodSandboxConfig, error) {
	sc := &runtimeapi.LinuxSandboxSecurityContext{
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	for c := range pod.Containers(p) {
		if c.SecurityContext != nil && ptr.Deref(c.SecurityContext.Privileged, false) {
			sc.Privileged = true
		}
	}
	cfg := &runtimeapi.LinuxPodSandboxConfig{
		SecurityContext: sc,
		Sysctls:         map[string]string{},
		Resources:       sandboxResources(p, m, o),
		Overhead:        overhead(p, m, o),
	}
	if o.CgroupParent != nil {
		cfg.CgroupParent = o.CgroupParent(p)
	}
	psc := orEmpty(p.Spec.SecurityContext)
	for _, s := range psc.Sysctls {
		cfg.Sysctls[pod.SysctlName(s.Name)] = s.Value
	}
	var err error
	if sc.NamespaceOptions, err = namespaces(p, users); err != nil {
		return nil, err
	}
	if sc.SupplementalGroups, sc.SupplementalGroupsPolicy, err = groups(psc); err != nil {
		return nil, err
	}
	sc.RunAsUser, sc.RunAsGroup = int64Value(psc.RunAsUser), int64Value(psc.RunAsGroup)
	sc.SelinuxOptions = selinuxOptions(psc.SELinuxOptions)
	return cfg, nil
}

// portMappings are the main containers' ports. Of ports of one container that
// share a name, or are alike, the first counts.
func portMappings(p *v1.Pod) []*runtimeapi.PortMapping {
	var out []*runtimeapi.PortMapping
	for _, c := range p.Spec.Containers {
		seen := map[string]bool{}
		for _, port := range c.Ports {
			name := port.Name
			if name == "" {
				name = fmt.Sprintf("%s-%s-%s:%d:%d", family(port.HostIP), port.Protocol, port.HostIP, port.ContainerPort, port.HostPort)
			}
			if seen[name] {
				continue
			}
			seen[name] = true
			out = append(out, &runtimeapi.PortMapping{
				HostIp:        port.HostIP,
				HostPort:      port.HostPort,
				ContainerPort: port.ContainerPort,
				Protocol:      protocol(port.Protocol),
			})
		}
	}
	return out
}

func family(ip string) string {
	if ip == "" {
		return "any"
	}
	if a, err := netip.ParseAddr(ip); err == nil && a.Is6() {
		return "v6"
	}
	return "v4"
}

func protocol(p v1.Protocol) runtimeapi.Protocol {
	switch p {
	case v1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case v1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}

// hostname is the pod's host and domain name (behaviour rows 1.8-12, 1.8-14).
func hostname(p *v1.Pod, clusterDomain string) (host, domain string, err error) {
	if p.Spec.HostnameOverride != nil {
		host, err = cut63(*p.Spec.HostnameOverride)
		return host, "", err
	}
	host = p.Name
	if p.Spec.Hostname != "" {
		host = p.Spec.Hostname
	}
	if host, err = cut63(host); err != nil {
		return "", "", err
	}
	if p.Spec.Subdomain != "" {
		domain = fmt.Sprintf("%s.%s.svc.%s", p.Spec.Subdomain, p.Namespace, clusterDomain)
	}
	return host, domain, nil
}

// cut63 shortens a host name to what the kernel takes.
func cut63(name string) (string, error) {
	if len(name) <= 63 {
		return name, nil
	}
	cut := strings.TrimRight(name[:63], "-.")
	if cut == "" {
		return "", fmt.Errorf("hostname %q is empty after it is cut to 63 characters", name)
	}
	return cut, nil
}

// maxKernelName is how long a machine's name may be for the kernel.
const maxKernelName = 64

// kernelHostname is what the pod's processes see as the machine's name.
func kernelHostname(p *v1.Pod, clusterDomain string) (string, error) {
	host, domain, err := hostname(p, clusterDomain)
	if err != nil || domain == "" || p.Spec.SetHostnameAsFQDN == nil || !*p.Spec.SetHostnameAsFQDN {
		return host, err
	}
	fqdn := host + "." + domain
	if len(fqdn) > maxKernelName {
		return "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)", fqdn, maxKernelName, len(fqdn))
	}
	return fqdn, nil
}
