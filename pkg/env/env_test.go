package env

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)", "": "empty name"}
	for in, want := range map[string]string{
		"":              "",
		"plain":         "plain",
		"$(A)":          "1",
		"x$(A)y$(B)z":   "x1y$(A)z",
		"$$(A)":         "$(A)",
		"$$$(A)":        "$1",
		"$(NO)":         "$(NO)",
		"$(A":           "$(A",
		"$A $ $":        "$A $ $",
		"$(A$(A)":       "$(A$(A)",
		"$()":           "empty name",
		"100$":          "100$",
		"$€$(A)":        "$€1",
		"a) $(A) b) $x": "a) 1 b) $x",
	} {
		if got := Expand(in, values); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$x$(")
	f.Fuzz(func(t *testing.T, s string) {
		if got := Expand(s, nil); len(got) > len(s) {
			t.Errorf("%q grows to %q without a variable", s, got)
		}
		if !strings.Contains(s, "$") && Expand(s, map[string]string{"A": "1"}) != s {
			t.Errorf("%q changes without a $", s)
		}
	})
}

func TestEnvironmentRefuses(t *testing.T) {
	ref := func(s v1.EnvVarSource) []v1.EnvVar { return []v1.EnvVar{{Name: "A", ValueFrom: &s}} }
	for _, c := range []struct {
		k     v1.Container
		words string
	}{
		{v1.Container{Env: ref(v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{}})}, "config maps are not built yet"},
		{v1.Container{Env: ref(v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{}})}, "secrets are not built yet"},
		{v1.Container{EnvFrom: []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{}}}}, "envFrom[0]"},
		{v1.Container{EnvFrom: []v1.EnvFromSource{{ConfigMapRef: &v1.ConfigMapEnvSource{}}}}, "envFrom[0]"},
		{v1.Container{Env: ref(v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "spec.x"}})}, "env A"},
		{v1.Container{Env: ref(v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.cpu"}})}, "no such limit"},
		{v1.Container{Env: ref(v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "x.cpu"}})}, "unsupported resource"},
		{v1.Container{Env: ref(v1.EnvVarSource{FileKeyRef: &v1.FileKeySelector{}})}, "not built yet"},
		{v1.Container{Env: ref(v1.EnvVarSource{})}, "no source"},
	} {
		if _, err := (Resolver{}).Container(&v1.Pod{}, &c.k, Surroundings{}); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("error %v misses %q", err, c.words)
		}
	}
}

func TestExpandStrictly(t *testing.T) {
	values := map[string]string{"A": "a", "EMPTY": "", "ODD": "$(A)"}
	for expr, want := range map[string]string{"$(A)/b": "a/b", "b": "b", "$(ODD)": "$(A)", "$(EMPTY)": "", "x/$(NO)": ""} {
		got, err := ExpandStrictly(expr, values)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v; want %q", expr, got, err, want)
		}
	}
}
