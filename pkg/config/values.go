package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	netutils "k8s.io/utils/net"
)

// versionFlag is the value of --version.
type versionFlag string

func (v *versionFlag) String() string { return string(*v) }
func (v *versionFlag) Type() string   { return "version" }

func (v *versionFlag) Set(s string) error {
	switch s {
	case "raw":
		*v = "raw"
		return nil
	}
	on, err := strconv.ParseBool(s)
	if err != nil {
		return fmt.Errorf("%q must be true, false or raw", s)
	}
	*v = ""
	if on {
		*v = "true"
	}
	return nil
}

// ipString is an address that is kept as it was written. Empty leaves the
// default, as in the kubelet.
type ipString string

func (v *ipString) String() string { return string(*v) }
func (v *ipString) Type() string   { return "ip" }

func (v *ipString) Set(s string) error {
	if s == "" {
		return nil
	}
	if netutils.ParseIPSloppy(s) == nil {
		return fmt.Errorf("%q is not an IP address", s)
	}
	*v = ipString(s)
	return nil
}

// ipList is one address, or one of each family.
type ipList []net.IP

func (v *ipList) Type() string { return "ip,ip" }

func (v *ipList) String() string {
	var out []string
	for _, ip := range *v {
		out = append(out, ip.String())
	}
	return strings.Join(out, ",")
}

func (v *ipList) Set(s string) error {
	var ips []net.IP
	for _, word := range strings.Split(s, ",") {
		word = strings.TrimSpace(word)
		if word == "" && s == "" {
			break
		}
		ip := netutils.ParseIPSloppy(word)
		if ip == nil {
			return fmt.Errorf("%q is not an IP address", word)
		}
		ips = append(ips, ip)
	}
	if len(ips) > 2 || len(ips) == 2 && netutils.IsIPv6(ips[0]) == netutils.IsIPv6(ips[1]) {
		return fmt.Errorf("%q must be one address, or one IPv4 and one IPv6 address", s)
	}
	if len(ips) == 2 && (ips[0].IsUnspecified() || ips[1].IsUnspecified()) {
		return fmt.Errorf("%q: of two addresses none may be unspecified (0.0.0.0, ::)", s)
	}
	*v = ips
	return nil
}

// taintList is key=value:effect,key:effect,...
type taintList []corev1.Taint

func (v *taintList) Type() string { return "taints" }

func (v *taintList) String() string {
	var out []string
	for _, t := range *v {
		out = append(out, t.ToString())
	}
	return strings.Join(out, ",")
}

func (v *taintList) Set(s string) error {
	var taints []corev1.Taint
	seen := map[string]bool{}
	for _, word := range strings.Split(s, ",") {
		if s == "" {
			break
		}
		spec, effect, _ := strings.Cut(word, ":")
		key, value, _ := strings.Cut(spec, "=")
		t := corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)}
		if err := checkTaint(t); err != nil {
			return fmt.Errorf("taint %q: %w", word, err)
		}
		if seen[key+":"+effect] {
			return fmt.Errorf("taint %q: key and effect are given twice", word)
		}
		seen[key+":"+effect] = true
		taints = append(taints, t)
	}
	*v = taints
	return nil
}

func checkTaint(t corev1.Taint) error {
	if errs := validation.IsQualifiedName(t.Key); len(errs) > 0 {
		return fmt.Errorf("key: %s", strings.Join(errs, "; "))
	}
	if errs := validation.IsValidLabelValue(t.Value); len(errs) > 0 {
		return fmt.Errorf("value: %s", strings.Join(errs, "; "))
	}
	switch t.Effect {
	case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
	default:
		return fmt.Errorf("effect %q must be NoSchedule, PreferNoSchedule or NoExecute", t.Effect)
	}
	if t.TimeAdded != nil {
		return fmt.Errorf("timeAdded must not be set")
	}
	return nil
}

// memoryReservations is node:type=quantity,...;node:... and adds up when the
// flag is repeated.
type memoryReservations struct {
	list *[]kubeletv1beta1.MemoryReservation
	set  bool
}

func (v *memoryReservations) Type() string { return "reserved-memory" }

func (v *memoryReservations) String() string {
	if v.list == nil || len(*v.list) == 0 {
		return ""
	}
	return fmt.Sprint(*v.list)
}

func (v *memoryReservations) Set(s string) error {
	if !v.set { // the first use replaces what the file says
		*v.list, v.set = nil, true
	}
	for _, word := range strings.Split(s, ";") {
		if s == "" {
			break
		}
		node, types, ok := strings.Cut(word, ":")
		number, err := strconv.ParseInt(node, 10, 32)
		if !ok || err != nil {
			return fmt.Errorf("%q must be <NUMA node>:<type>=<quantity>", word)
		}
		limits := corev1.ResourceList{}
		for _, pair := range strings.Split(types, ",") {
			name, text, _ := strings.Cut(pair, "=")
			quantity, err := resource.ParseQuantity(text)
			if err != nil {
				return fmt.Errorf("%q in %q: %w", pair, word, err)
			}
			limits[corev1.ResourceName(name)] = quantity
		}
		*v.list = append(*v.list, kubeletv1beta1.MemoryReservation{NumaNode: int32(number), Limits: limits})
	}
	return nil
}
