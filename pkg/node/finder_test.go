package node

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestFinder(t *testing.T) {
	local, err := locals()
	if err != nil || len(local) == 0 {
		t.Fatalf("this machine's addresses: %v, %v", local, err)
	}
	own := local[0]
	for _, c := range []struct {
		name   string
		finder Finder
		want   string // "": an error that says which address
	}{
		{"configured", Finder{Name: "n1", Configured: []net.IP{own}}, own.String()},
		{"configured, but not this machine's", Finder{Name: "n1", Configured: []net.IP{net.ParseIP("203.0.113.9")}}, ""},
		{"loopback", Finder{Name: "n1", Configured: []net.IP{net.ParseIP("127.0.0.1")}}, ""},
		{"the name is one", Finder{Name: "203.0.113.8"}, "203.0.113.8"},
	} {
		got, err := c.finder.Find(t.Context())
		if c.want == "" {
			if err == nil || !strings.Contains(err.Error(), c.finder.Configured[0].String()) {
				t.Errorf("%s: %v, %v", c.name, got, err)
			}
		} else if err != nil || !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: %v, %v; want %s", c.name, got, err, c.want)
		}
	}
	// Nobody says what the name stands for: it is what it was, or else where
	// routes lead out.
	f := Finder{Name: "no such name.invalid"}
	got, err := f.Find(t.Context())
	if err != nil || len(got) != 1 || !slices.ContainsFunc(local, func(ip net.IP) bool { return ip.String() == got[0] }) {
		t.Errorf("by route: %v, %v", got, err)
	}
}

func TestSystemInfo(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/machine-id": "m1\n", "sys/class/dmi/id/product_uuid": "U1\n", "proc/sys/kernel/random/boot_id": "b1\n",
		"usr/lib/os-release": "NAME=x\nPRETTY_NAME=\"Some Linux 7\"\n",
	} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := SystemInfo(root, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if got.MachineID != "m1" || got.SystemUUID != "U1" || got.BootID != "b1" || got.OSImage != "Some Linux 7" || got.KubeletVersion != "v1" ||
		got.KernelVersion == "" || got.OperatingSystem != "linux" {
		t.Errorf("%+v", got)
	}
	if err := os.Remove(filepath.Join(root, "sys/class/dmi/id/product_uuid")); err != nil {
		t.Fatal(err)
	}
	if got, err = SystemInfo(root, "v1"); err != nil || got.SystemUUID != "m1" {
		t.Errorf("without DMI the UUID is %q, %v", got.SystemUUID, err)
	}
}

func TestHostIPs(t *testing.T) {
	for want, addresses := range map[string][]v1.NodeAddress{
		"[]":                        {{Type: v1.NodeHostName, Address: "n1"}, {Type: v1.NodeInternalDNS, Address: "192.0.2.7"}},
		"[192.0.2.1]":               {{Type: v1.NodeExternalIP, Address: "203.0.113.1"}, {Type: v1.NodeInternalIP, Address: "192.0.2.1"}, {Type: v1.NodeInternalIP, Address: "192.0.2.2"}},
		"[192.0.2.1 fd00::1]":       {{Type: v1.NodeInternalIP, Address: "192.0.2.1"}, {Type: v1.NodeInternalIP, Address: "fd00::1"}, {Type: v1.NodeInternalIP, Address: "fd00::2"}},
		"[fd00::1 203.0.113.1]":     {{Type: v1.NodeExternalIP, Address: "203.0.113.1"}, {Type: v1.NodeInternalIP, Address: "fd00:0::1"}},
		"[203.0.113.1 2001:db8::1]": {{Type: v1.NodeExternalIP, Address: "203.0.113.1"}, {Type: v1.NodeExternalIP, Address: "2001:db8::1"}},
	} {
		if got := fmt.Sprint(HostIPs(&v1.Node{Status: v1.NodeStatus{Addresses: addresses}})); got != want {
			t.Errorf("of %v: %s, want %s", addresses, got, want)
		}
	}
}
