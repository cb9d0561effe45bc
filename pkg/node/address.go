package node

import (
	"fmt"
	"net"
	"slices"
)

// Addresses are the node's own, at most one per family, the primary first: as
// configured, else those that this machine would use to reach others, else the
// first that are not loopback. None is no error: a machine may be on its own.
func Addresses(configured []net.IP) ([]string, error) {
	if len(configured) > 0 && !configured[0].IsUnspecified() {
		var out []string
		for _, ip := range configured {
			out = append(out, ip.String())
		}
		return out, nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this node: %w", err)
	}
	var local []net.IP
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			local = append(local, n.IP)
		}
	}
	var out []string
	for _, four := range []bool{true, false} {
		if ip := pick(local, four); ip != nil {
			out = append(out, ip.String())
		}
	}
	return out, nil
}

// pick chooses the address of a family that routes lead out from.
func pick(local []net.IP, four bool) net.IP {
	network, far := "udp4", "192.0.2.1:9"
	if !four {
		network, far = "udp6", "[2001:db8::1]:9"
	}
	// Connecting a datagram socket asks the routing table and sends nothing.
	if c, err := net.Dial(network, far); err == nil {
		ip := c.LocalAddr().(*net.UDPAddr).IP
		_ = c.Close()
		if ip.IsGlobalUnicast() {
			return ip
		}
	}
	i := slices.IndexFunc(local, func(ip net.IP) bool { return (ip.To4() != nil) == four })
	if i < 0 {
		return nil
	}
	return local[i]
}
