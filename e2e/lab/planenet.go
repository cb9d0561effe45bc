package lab

import (
	"errors"
	"fmt"
	"os"
)

// maxNodes is how many nodes may ever join one control plane: each has the
// addresses 192.0.2.N and 10.88.N.0/24.
const maxNodes = 250

// clusterCIDR holds the addresses of all pods and services. Nodes have a route
// to it and no default one: what would leave the machine fails at once, where a
// resolver would wait if it were dropped or refused on its way.
const clusterCIDR = "10.64.0.0/10"

// routeNodes makes the control plane's network the way between its nodes.
func (p *ControlPlane) routeNodes() error {
	return p.Network.Do(func() error {
		for _, set := range []struct{ name, value string }{
			{"ip_forward", "1"},
			// Packets go out where they came in; the sender needs no advice.
			{"conf/all/send_redirects", "0"}, {"conf/node0/send_redirects", "0"},
		} {
			// /proc/net is that of the thread; of /proc/sys/net the same is true.
			if err := os.WriteFile("/proc/sys/net/ipv4/"+set.name, []byte(set.value), 0); err != nil {
				return fmt.Errorf("route between nodes: %w", err)
			}
		}
		return nil
	})
}

// nextNode gives out the addresses of a node and of its pods.
func (p *ControlPlane) nextNode() (address, podSubnet string, err error) {
	n := p.nodes.Add(1)
	if n > maxNodes {
		return "", "", fmt.Errorf("join control plane: it had %d nodes already", maxNodes)
	}
	return fmt.Sprintf("192.0.2.%d", n), fmt.Sprintf("10.88.%d.0/24", n), nil
}

// join wires a node's bridge to the control plane's, and routes to all other
// nodes and their pods. The wire goes with the node's network.
func (p *ControlPlane) join(n *Network, id, podSubnet string) error {
	wire := "to-" + id
	err := errors.Join(
		n.ip("link", "add", "plane0", "type", "veth", "peer", "name", wire, "netns", p.Network.Name),
		n.ip("link", "set", "plane0", "master", "node0", "up"),
		p.Network.ip("link", "set", wire, "master", "node0", "up"),
		n.ip("route", "add", clusterCIDR, "via", PlaneAddress),
		p.Network.ip("route", "add", podSubnet, "via", n.Address),
	)
	if err != nil {
		return fmt.Errorf("join control plane: %w", err)
	}
	return nil
}

// BlackHole drops, or no longer drops, all packets between the control plane
// and a node without a word to either: connections stay open and go silent.
// Other nodes don't notice.
func (p *ControlPlane) BlackHole(l *Lab, on bool) error {
	change := "-A"
	if !on {
		change = "-D"
	}
	err := errors.Join(
		iptables(p.Network, change, "INPUT", "-s", l.Network.Address, "-j", "DROP"),
		iptables(p.Network, change, "OUTPUT", "-d", l.Network.Address, "-j", "DROP"),
	)
	if err != nil {
		return fmt.Errorf("black hole for node %s: %w", l.Network.Address, err)
	}
	return nil
}

func iptables(n *Network, args ...string) error {
	out, err := n.Command("iptables", append([]string{"-w"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("iptables %v: %w: %s", args, err, out)
	}
	return nil
}
