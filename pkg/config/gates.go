package config

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

//go:embed gates.txt
var gatesText string

// gate is a feature gate of Kubernetes as it stands at KubernetesVersion.
type gate struct {
	byDefault bool
	locked    bool // may only be set to its default
}

// knownGates are the gates that a kubelet takes. They are known so that a
// misspelt one is told from one that has no meaning here.
var knownGates = sync.OnceValue(func() map[string]gate {
	gates := map[string]gate{"AllAlpha": {}, "AllBeta": {}}
	for line := range strings.Lines(gatesText) {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] == "#" {
			continue
		}
		gates[words[0]] = gate{byDefault: words[1] == "true", locked: len(words) > 3}
	}
	return gates
})

// Gate says whether the named feature gate is on.
func (c *Config) Gate(name string) bool { return gateEnabled(c.Kubelet.FeatureGates, name) }

// gateEnabled says whether the named gate is on.
func gateEnabled(set map[string]bool, name string) bool {
	if on, ok := set[name]; ok {
		return on
	}
	return knownGates()[name].byDefault
}

func validateGates(set map[string]bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for name, on := range sorted(set) {
		known, ok := knownGates()[name]
		switch {
		case !ok:
			errs = append(errs, field.Invalid(path.Key(name), on, "no such feature gate in Kubernetes "+KubernetesVersion+
				" (it may have been removed: remove the setting)"))
		case known.locked && on != known.byDefault:
			errs = append(errs, field.Invalid(path.Key(name), on, fmt.Sprintf("this gate is locked to %t", known.byDefault)))
		}
	}
	return errs
}

// changedGates are the gates that are set off their default, sorted.
func changedGates(set map[string]bool) []string {
	var names []string
	for name, on := range sorted(set) {
		if on != knownGates()[name].byDefault {
			names = append(names, name)
		}
	}
	return names
}
