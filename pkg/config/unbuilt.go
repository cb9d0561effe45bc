package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// state is how far a field of the config file, or a flag that no file holds, is
// honoured.
type state int

const (
	built    state = iota
	harmless       // not built; ignoring it does no harm: one warning names it
	unsafe         // not built; ignoring it would break a promise to the operator: start refused
)

// setting is one row of the tables of what is built.
type setting struct {
	state state
	// why is what ignoring the setting means.
	why string
	// off tells values that ask for nothing although they aren't the default.
	off func(*kubeletv1beta1.KubeletConfiguration) bool
}

// judgeUnbuilt compares c with what would be had the operator set nothing. It
// warns about what is ignored and refuses what must not be. given are the flags
// on the command line.
func (c *Config) judgeUnbuilt(untouched *kubeletv1beta1.KubeletConfiguration, given []*pflag.Flag) error {
	for _, name := range c.AllowUnbuilt {
		_, isField := fieldSettings[name]
		if _, isFlag := flagSettings[name]; !isField && !isFlag {
			return fmt.Errorf("--allow-unbuilt=%s: no such field or flag; those not built and refused are %s",
				name, strings.Join(refusable(), ", "))
		}
	}
	ignored := map[string][]string{} // by reason
	var errs []error
	judge := func(s setting, prefix, name string) {
		switch {
		case s.state == built || s.off != nil && s.off(&c.Kubelet):
		case s.state == unsafe && !slices.Contains(c.AllowUnbuilt, name):
			errs = append(errs, fmt.Errorf("%s%s is set, but %s; remove it, or accept that with --allow-unbuilt=%s", prefix, name, s.why, name))
		default:
			ignored[s.why] = append(ignored[s.why], prefix+name)
		}
	}
	for _, name := range changedFields(&c.Kubelet, untouched) {
		judge(fieldSettings[name], "", name)
	}
	for _, f := range given {
		if f.Value.String() != f.DefValue { // --kubeconfig= asks for nothing
			judge(flagSettings[f.Name], "--", f.Name)
		}
	}
	if gates := changedGates(c.Kubelet.FeatureGates); len(gates) > 0 {
		ignored["feature gates are ignored"] = gates
	}
	if c.evictsByDefault() {
		ignored[noEviction] = append(ignored[noEviction], "evictionHard (default)")
	}
	if len(ignored) > 0 {
		var parts []string
		for why, names := range sorted(ignored) {
			parts = append(parts, strings.Join(names, ", ")+" ("+why+")")
		}
		c.Warnings = append(c.Warnings, "not built yet and without effect: "+strings.Join(parts, "; "))
	}
	if len(errs) > 0 {
		return errors.Join(append([]error{errors.New("refuse to start with settings that are not built yet")}, errs...)...)
	}
	return nil
}

// evictsByDefault says whether the built-in thresholds hold, which the operator
// did not ask for but may count on.
func (c *Config) evictsByDefault() bool {
	return maps.Equal(c.Kubelet.EvictionHard, evictionHardDefaults)
}

// refusable are the names that --allow-unbuilt has a use for.
func refusable() []string {
	var names []string
	for _, table := range []map[string]setting{fieldSettings, flagSettings} {
		for name, s := range sorted(table) {
			if s.state == unsafe {
				names = append(names, name)
			}
		}
	}
	return names
}

// changedFields are the top-level fields in which a and b differ, by their names
// in the file. An absent list or map equals an empty one.
func changedFields(a, b *kubeletv1beta1.KubeletConfiguration) []string {
	va, vb := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	var names []string
	for i := range va.NumField() {
		name := fieldName(va.Type().Field(i))
		fa, fb := va.Field(i), vb.Field(i)
		empty := (fa.Kind() == reflect.Map || fa.Kind() == reflect.Slice) && fa.Len() == 0 && fb.Len() == 0
		if name != "" && !empty && !reflect.DeepEqual(fa.Interface(), fb.Interface()) {
			names = append(names, name)
		}
	}
	return names
}

// fieldName is the name of a field in the file, empty for an embedded one.
func fieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
