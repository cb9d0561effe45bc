package manifest

import "testing"

// TestValidateStandalone names the field of the pod's only container that is at
// fault where ConfigMaps and Secrets may be referred to.
func TestValidateStandalone(t *testing.T) {
	for container, want := range map[string]string{
		"envFrom: [{configMapRef: {name: a}}, {prefix: a.b-, secretRef: {name: b}}]": "",
		"envFrom: [{}]": "envFrom[0]",
		"envFrom: [{configMapRef: {name: a}, secretRef: {name: b}}]":                                      "envFrom[0]",
		"envFrom: [{configMapRef: {}}]":                                                                   "envFrom[0].configMapRef.name",
		"envFrom: [{secretRef: {name: A}}]":                                                               "envFrom[0].secretRef.name",
		"envFrom: [{prefix: '=', secretRef: {name: a}}]":                                                  "envFrom[0].prefix",
		"env: [{name: 'a b', valueFrom: {configMapKeyRef: {name: a, key: b.c}}}]":                         "",
		"env: [{name: A, valueFrom: {configMapKeyRef: {key: b}}}]":                                        "env[0].valueFrom.configMapKeyRef.name",
		"env: [{name: A, valueFrom: {configMapKeyRef: {name: a}}}]":                                       "env[0].valueFrom.configMapKeyRef.key",
		"env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: b/c}}}]":                                "env[0].valueFrom.secretKeyRef.key",
		"env: [{name: A, valueFrom: {secretKeyRef: {name: ../a, key: b}}}]":                               "env[0].valueFrom.secretKeyRef.name",
		"env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}]":            "",
		"env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1Mi}}}]":           "env[0].valueFrom.resourceFieldRef.divisor",
		"env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: -1}}}]":         "env[0].valueFrom.resourceFieldRef.divisor",
		"env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.hugepages-2Mi, divisor: 1Ki}}}]": "",
	} {
		pod := basePod(t)
		merge(t, container, &pod.Spec.Containers[0])
		Default(pod)
		errs := Validate(pod, false)
		if want == "" && len(errs) > 0 || want != "" && (len(errs) != 1 || errs[0].Field != "spec.containers[0]."+want) {
			t.Errorf("%s: %v, want one at %q", container, errs, want)
		}
	}
	pod := basePod(t)
	merge(t, "spec: {serviceAccountName: a, imagePullSecrets: [{name: b}]}", pod)
	Default(pod)
	if errs := Validate(pod, false); len(errs) != 1 || errs[0].Field != "spec.serviceAccountName" {
		t.Errorf("pull secrets without a service account: %v", errs)
	}
}
