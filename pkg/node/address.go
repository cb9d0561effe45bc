package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
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
	local, err := locals()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, four := range []bool{true, false} {
		if ip := pick(local, four); ip != nil {
			out = append(out, ip.String())
		}
	}
	return out, nil
}

// Finder finds the addresses at which a cluster reaches this node, as a kubelet
// chooses them (behaviour row 1.17-14).
type Finder struct {
	Name       string
	Configured []net.IP // --node-ip; 0.0.0.0 or :: only asks for a family

	named []net.IP // what the name stood for when it was last asked for; nil: never
}

// lookupTime is how long the machine's resolver may take. A node must not wait
// for a name server that is dead, or runs on it as a pod.
const lookupTime = time.Second

// Find says the addresses: those configured, which must be this machine's; else
// one, of the family asked for, IPv4 if none is: the name itself if it is an
// address, what the name stands for, or the address that routes lead out from.
func (f *Finder) Find(ctx context.Context) ([]string, error) {
	f.lookUp(ctx)
	return f.Known()
}

// Known is Find by what the name stood for when it was last looked up: it asks
// nobody.
func (f *Finder) Known() ([]string, error) {
	local, err := locals()
	if err != nil {
		return nil, err
	}
	ours := func(ip net.IP) bool { return slices.ContainsFunc(local, ip.Equal) }
	if len(f.Configured) > 0 && !f.Configured[0].IsUnspecified() {
		var out []string
		for _, ip := range f.Configured {
			if !ours(ip) {
				return nil, fmt.Errorf("--node-ip %s is no address of this machine that others could reach", ip)
			}
			out = append(out, ip.String())
		}
		return out, nil
	}
	if ip := net.ParseIP(f.Name); ip != nil {
		return []string{ip.String()}, nil
	}
	four := len(f.Configured) == 0 || f.Configured[0].To4() != nil
	named := slices.DeleteFunc(slices.Clone(f.named), func(ip net.IP) bool { return !ours(ip) })
	if i := slices.IndexFunc(named, func(ip net.IP) bool { return (ip.To4() != nil) == four }); i > 0 {
		named = named[i:]
	}
	if len(named) > 0 {
		return []string{named[0].String()}, nil
	}
	for _, four := range []bool{four, !four} {
		if ip := pick(local, four); ip != nil {
			return []string{ip.String()}, nil
		}
	}
	return nil, errors.New("this machine has no address but those of its loopback")
}

// lookUp asks what the name stands for. While nobody answers, it is what it was.
func (f *Finder) lookUp(ctx context.Context) {
	if net.ParseIP(f.Name) != nil || len(f.Configured) > 0 && !f.Configured[0].IsUnspecified() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	found, err := net.DefaultResolver.LookupIP(ctx, "ip", f.Name)
	var unknown *net.DNSError
	if err == nil || errors.As(err, &unknown) && unknown.IsNotFound {
		f.named = found
	}
}

// locals are this machine's addresses that others could reach.
func locals() ([]net.IP, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this node: %w", err)
	}
	var out []net.IP
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			out = append(out, n.IP)
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

// HostIPs are the addresses that pods know the node by: the first of its object's,
// of the internal ones if there are any, and the first of the other family
// (behaviour row 1.3-15).
func HostIPs(n *v1.Node) (out []string) {
	four := false
	for _, kind := range []v1.NodeAddressType{v1.NodeInternalIP, v1.NodeExternalIP} {
		for _, a := range n.Status.Addresses {
			ip := net.ParseIP(a.Address)
			switch {
			case a.Type != kind || ip == nil:
			case len(out) == 0:
				four = ip.To4() != nil
				out = []string{ip.String()}
			case len(out) == 1 && (ip.To4() != nil) != four:
				out = append(out, ip.String())
			}
		}
	}
	return out
}
