package probe

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// address is host:port of a container's port, given by number or name. A name
// that is no port's may be a number in quotes.
func address(host, fallback string, port intstr.IntOrString, c *v1.Container) (string, error) {
	n := int(port.IntVal)
	if port.Type == intstr.String {
		var err error
		if n, err = named(c, port.StrVal); err != nil {
			return "", err
		}
	}
	if n < 1 || n > 65535 {
		return "", fmt.Errorf("container %s: port %d is not between 1 and 65535", c.Name, n)
	}
	if host = cmp.Or(host, fallback); host == "" {
		return "", fmt.Errorf("container %s: port %d cannot be reached: %w", c.Name, n, errNoAddress)
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), nil
}

var errNoAddress = errors.New("the pod has no address")

func named(c *v1.Container, name string) (int, error) {
	for _, p := range c.Ports {
		if p.Name == name {
			return int(p.ContainerPort), nil
		}
	}
	n, err := strconv.Atoi(name)
	if err != nil {
		return 0, fmt.Errorf("container %s has no port named %q", c.Name, name)
	}
	return n, nil
}
