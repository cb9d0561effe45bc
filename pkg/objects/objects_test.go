package objects

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func configMap(name, value string) *v1.ConfigMap {
	return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Data: map[string]string{"key": value}}
}

func TestReplaceSaysWhatChanged(t *testing.T) {
	s := &Store{}
	kept := configMap("kept", "a")
	for i, step := range []struct {
		source string
		given  []Object
		want   string
	}{
		{"a", []Object{kept, configMap("equal", "a"), configMap("other", "a")}, "ConfigMap ns/equal, ConfigMap ns/kept, ConfigMap ns/other"},
		{"a", []Object{kept, configMap("equal", "a"), configMap("other", "b")}, "ConfigMap ns/other"},
		{"a", []Object{kept, configMap("equal", "a")}, "ConfigMap ns/other"},
		{"b", []Object{&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "r"}}}, "RuntimeClass r"},
		{"b", nil, "RuntimeClass r"},
		{"a", []Object{kept, configMap("equal", "a")}, ""},
		{"a", []Object{kept, configMap("equal", "a"), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}}, ""},
	} {
		var got []string
		for _, k := range slices.Collect(maps.Keys(s.Replace(step.source, step.given))) {
			got = append(got, k.String())
		}
		slices.Sort(got)
		if strings.Join(got, ", ") != step.want {
			t.Errorf("step %d: %v changed, want %s", i, got, step.want)
		}
	}
	if m, err := s.ConfigMap("ns", "kept"); m != kept || err != nil {
		t.Errorf("kept is %v, %v", m, err)
	}
}

func TestNotFoundIsSaidAsByTheKubelet(t *testing.T) {
	s := &Store{}
	_, one := s.ConfigMap("ns", "c")
	_, two := s.Secret("ns", "s")
	_, three := s.RuntimeClass("r")
	if got, want := fmt.Sprint(one, two, three), `configmap "c" not found secret "s" not found runtimeclass.node.k8s.io "r" not found`; got != want || !apierrors.IsNotFound(one) {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestMentions has one reference of each kind in a pod, and none to others.
func TestMentions(t *testing.T) {
	var p v1.Pod
	if err := yaml.UnmarshalStrict([]byte(`
metadata: {namespace: ns}
spec:
  runtimeClassName: class
  imagePullSecrets: [{name: pull}]
  volumes: [{name: a, configMap: {name: mapvolume}}, {name: b, secret: {secretName: secretvolume}}, {name: c, projected: {sources: [{configMap: {name: mapsource}}, {secret: {name: secretsource}}]}}, {name: d, emptyDir: {}}]
  initContainers: [{name: i, envFrom: [{configMapRef: {name: mapfrom}}, {secretRef: {name: secretfrom}}]}]
  containers: [{name: c, env: [{name: A, value: x}, {name: B, valueFrom: {configMapKeyRef: {name: mapkey}}}]}]
  ephemeralContainers: [{name: e, env: [{name: B, valueFrom: {secretKeyRef: {name: secretkey}}}]}]
`), &p); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[Key]bool{
		{Kind: RuntimeClass, Name: "class"}: true,
		{Secret, "ns", "pull"}:              true,
		{ConfigMap, "ns", "mapvolume"}:      true,
		{Secret, "ns", "secretvolume"}:      true,
		{ConfigMap, "ns", "mapsource"}:      true,
		{Secret, "ns", "secretsource"}:      true,
		{ConfigMap, "ns", "mapfrom"}:        true,
		{Secret, "ns", "secretfrom"}:        true,
		{ConfigMap, "ns", "mapkey"}:         true,
		{Secret, "ns", "secretkey"}:         true,
		{ConfigMap, "ns", "secretkey"}:      false,
		{Secret, "other", "secretkey"}:      false,
		{ConfigMap, "ns", "x"}:              false,
	} {
		if got := Mentions(&p, map[Key]bool{name: true}); got != want {
			t.Errorf("%v: %v, want %v", name, got, want)
		}
	}
	if Mentions(&p, nil) {
		t.Error("mentions nothing")
	}
}
