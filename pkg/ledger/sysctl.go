package ledger

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// safeSysctls are those that any pod may set: they act within its own
// namespaces and cost the node nothing (behaviour row 1.2-9).
var safeSysctls = []string{
	"kernel.shm_rmid_forced",
	"net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_unprivileged_port_start",
	"net.ipv4.ping_group_range", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}

// judgeSysctls refuses what is not allowed, and what would be set for the whole
// node because the pod shares the namespace.
func (l Ledger) judgeSysctls(c Claim) pod.Verdict {
	for _, name := range c.Sysctls {
		why := ""
		switch {
		case !slices.Contains(safeSysctls, name) && !slices.ContainsFunc(l.Sysctls, func(pattern string) bool { return covers(pattern, name) }):
			why = "not allowlisted"
		case c.HostNetwork && strings.HasPrefix(name, "net."):
			why = "not allowed with host net enabled"
		case c.HostIPC && !strings.HasPrefix(name, "net."):
			why = "not allowed with host ipc enabled"
		}
		if why != "" {
			return pod.Verdict{State: pod.Refused, Reason: "SysctlForbidden", Message: fmt.Sprintf("forbidden sysctl: %q %s", name, why)}
		}
	}
	return pod.Verdict{}
}

// covers says whether a name is allowed by a pattern: the name itself, or its
// beginning and a star.
func covers(pattern, name string) bool {
	pattern = pod.SysctlName(pattern)
	if beginning, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, beginning)
	}
	return name == pattern
}
