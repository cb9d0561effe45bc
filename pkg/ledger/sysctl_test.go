package ledger

import (
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

func TestSysctls(t *testing.T) {
	l := Ledger{Sysctls: []string{"net.core.*", "kernel.msgmax"}}
	for _, tt := range []struct {
		name        string
		net, ipc    bool
		message     string // "" is granted
		onPlainNode string // the same without allowedUnsafeSysctls
	}{
		{name: "kernel.shm_rmid_forced"},
		{name: "net/ipv4/tcp_syncookies"},
		{name: "net.ipv4.tcp_syncookies", net: true, message: `forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host net enabled`},
		{name: "kernel.shm_rmid_forced", ipc: true, message: `forbidden sysctl: "kernel.shm_rmid_forced" not allowed with host ipc enabled`},
		{name: "net.core.somaxconn", onPlainNode: `forbidden sysctl: "net.core.somaxconn" not allowlisted`},
		{name: "kernel.msgmax", onPlainNode: `forbidden sysctl: "kernel.msgmax" not allowlisted`},
		{name: "kernel.msgmaxx", message: `forbidden sysctl: "kernel.msgmaxx" not allowlisted`},
		{name: "vm.swappiness", message: `forbidden sysctl: "vm.swappiness" not allowlisted`},
	} {
		p := &v1.Pod{Spec: v1.PodSpec{HostNetwork: tt.net, HostIPC: tt.ipc,
			SecurityContext: &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: tt.name, Value: "1"}}}}}
		p.UID = "u1"
		check := func(l Ledger, message string) {
			_, v := Admit(l, ClaimOf(p))
			if v.Message != message || (message == "") != (v.State == pod.Granted) || (v.State == pod.Refused) != (v.Reason == "SysctlForbidden") {
				t.Errorf("%s: %+v, want %q", tt.name, v, message)
			}
		}
		check(l, tt.message)
		if tt.onPlainNode == "" {
			tt.onPlainNode = tt.message
		}
		check(Ledger{}, tt.onPlainNode)
	}
}
