package env

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// ServiceVars tell a pod of the namespace where services are, by service name:
// of the cluster's own always, of its namespace's others when links is true
// (behaviour row 1.7-4). Services without an address of their own have none.
func ServiceVars(services []*v1.Service, namespace string, links bool) []Var {
	// The cluster's own stands for another of its name in the namespace.
	chosen := map[string]*v1.Service{}
	for _, s := range services {
		own := s.Namespace == v1.NamespaceDefault && s.Name == "kubernetes"
		switch {
		case s.Spec.ClusterIP == "" || s.Spec.ClusterIP == v1.ClusterIPNone || len(s.Spec.Ports) == 0:
		case own, links && s.Namespace == namespace && chosen[s.Name] == nil:
			chosen[s.Name] = s
		}
	}
	var sorted []*v1.Service
	for _, s := range chosen {
		sorted = append(sorted, s)
	}
	slices.SortFunc(sorted, func(a, b *v1.Service) int { return cmp.Compare(a.Name, b.Name) })
	var out []Var
	for _, s := range sorted {
		out = append(out, serviceVars(s)...)
	}
	return out
}

func serviceVars(s *v1.Service) []Var {
	name, ip := variableName(s.Name), s.Spec.ClusterIP
	first := port(s.Spec.Ports[0])
	out := []Var{{name + "_SERVICE_HOST", ip}, {name + "_SERVICE_PORT", first}}
	for _, p := range s.Spec.Ports {
		if p.Name != "" {
			out = append(out, Var{name + "_SERVICE_PORT_" + variableName(p.Name), port(p)})
		}
	}
	// And those that Docker's links had.
	for i, p := range s.Spec.Ports {
		protocol := string(cmp.Or(p.Protocol, v1.ProtocolTCP))
		url := strings.ToLower(protocol) + "://" + net.JoinHostPort(ip, port(p))
		if i == 0 {
			out = append(out, Var{name + "_PORT", url})
		}
		link := name + "_PORT_" + port(p) + "_" + strings.ToUpper(protocol)
		out = append(out, Var{link, url}, Var{link + "_PROTO", strings.ToLower(protocol)}, Var{link + "_PORT", port(p)}, Var{link + "_ADDR", ip})
	}
	return out
}

func port(p v1.ServicePort) string { return strconv.Itoa(int(p.Port)) }

func variableName(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
