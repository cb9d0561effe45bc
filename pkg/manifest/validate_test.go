package manifest

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestValidate names the one field that is at fault in each manifest. spec is
// put into the pod's spec, container into its only container, whose volumes v
// (an emptyDir) and h (a hostPath) exist.
func TestValidate(t *testing.T) {
	for _, c := range []struct{ meta, spec, container, field string }{
		{"", "", "", ""},
		{"uid: ../../etc", "", "", "metadata.uid"},
		{"uid: " + strings.Repeat("a", 65), "", "", "metadata.uid"},
		{"namespace: a/b", "", "", "metadata.namespace"},
		{"namespace: ..", "", "", "metadata.namespace"},
		{"labels: {'bad key!': a}", "", "", "metadata.labels"},
		{"labels: {key: 'bad value!'}", "", "", "metadata.labels"},
		{"annotations: {'bad key!': a}", "", "", "metadata.annotations"},
		{"deletionTimestamp: 2026-01-01T00:00:00Z", "", "", "metadata.deletionTimestamp"},
		{"annotations: {kubernetes.io/config.mirror: x}", "", "", "metadata.annotations[kubernetes.io/config.mirror]"},

		{"", "restartPolicy: Sometimes", "", "spec.restartPolicy"},
		{"", "dnsPolicy: Never", "", "spec.dnsPolicy"},
		{"", "dnsPolicy: None", "", "spec.dnsConfig.nameservers"},
		{"", "dnsConfig: {nameservers: [a]}", "", "spec.dnsConfig.nameservers[0]"},
		{"", "dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}", "", "spec.dnsConfig.nameservers"},
		{"", "dnsConfig: {searches: ['a b']}", "", "spec.dnsConfig.searches[0]"},
		{"", "dnsConfig: {options: [{value: a}]}", "", "spec.dnsConfig.options[0].name"},
		{"", "activeDeadlineSeconds: 0", "", "spec.activeDeadlineSeconds"},
		{"", "hostname: a.b", "", "spec.hostname"},
		{"", "{hostnameOverride: a.b}", "", ""},
		{"", "{hostnameOverride: a.b, hostNetwork: true}", "", "spec.hostnameOverride"},
		{"", "{hostnameOverride: a.b, setHostnameAsFQDN: true}", "", "spec.hostnameOverride"},
		{"", "hostnameOverride: a_b", "", "spec.hostnameOverride"},
		{"", "hostnameOverride: " + strings.Repeat("a", 65), "", "spec.hostnameOverride"},
		{"", "hostAliases: [{ip: x, hostnames: [a]}]", "", "spec.hostAliases[0].ip"},
		{"", "hostAliases: [{ip: 1.1.1.1, hostnames: ['a b']}]", "", "spec.hostAliases[0].hostnames[0]"},
		{"", "os: {name: windows}", "", "spec.os.name"},
		{"", "runtimeClassName: A", "", "spec.runtimeClassName"},
		{"", "schedulingGates: [{name: a}]", "", "spec.schedulingGates"},
		{"", "nodeSelector: {'a b': c}", "", "spec.nodeSelector"},
		{"", "tolerations: [{operator: Equal, value: a}]", "", "spec.tolerations[0].operator"},
		{"", "tolerations: [{key: a, operator: Exists, value: a}]", "", "spec.tolerations[0].value"},
		{"", "tolerations: [{key: a, effect: NoSchedule, tolerationSeconds: 1}]", "", "spec.tolerations[0].effect"},
		{"", "initContainers: [{name: main, image: a}]", "", "spec.initContainers[0].name"},
		{"", "initContainers: [{name: i, image: a, livenessProbe: {tcpSocket: {port: 1}}}]", "", "spec.initContainers[0].livenessProbe"},
		{"", "initContainers: [{name: i, image: a, restartPolicy: Always, livenessProbe: {tcpSocket: {port: 1}}}]", "", ""},
		{"", "initContainers: [{name: i, image: a, lifecycle: {}}]", "", "spec.initContainers[0].lifecycle"},
		{"", "securityContext: {runAsUser: -1}", "", "spec.securityContext.runAsUser"},
		{"", "securityContext: {fsGroup: -1}", "", "spec.securityContext.fsGroup"},
		{"", "securityContext: {supplementalGroups: [1, -1]}", "", "spec.securityContext.supplementalGroups[1]"},
		{"", "securityContext: {sysctls: [{name: a, value: b}, {name: a, value: c}]}", "", "spec.securityContext.sysctls[1].name"},
		{"", "securityContext: {seccompProfile: {type: Localhost}}", "", "spec.securityContext.seccompProfile.localhostProfile"},
		{"", "{hostPID: true, shareProcessNamespace: true}", "", "spec.shareProcessNamespace"},
		{"", "{hostUsers: false, hostIPC: true}", "", "spec.hostIPC"},
		{"", "resources: {limits: {cpu: 1, nvidia.com/gpu: 1}}", "", "spec.resources"},
		{"", "resources: {limits: {cpu: 1}}", "resources: {limits: {cpu: 2}, requests: {cpu: 1}}", "spec.containers[0].resources.limits[cpu]"},
		{"", "resources: {requests: {cpu: 1}}", "resources: {requests: {cpu: 2}}", "spec.resources.requests[cpu]"},

		{"", "serviceAccountName: a", "", "spec.serviceAccountName"},
		{"", "imagePullSecrets: [{name: a}]", "", "spec.imagePullSecrets[0]"},
		{"", "resourceClaims: [{name: a, resourceClaimName: b}]", "", "spec.resourceClaims"},

		{"", "", "name: Main", "spec.containers[0].name"},
		{"", "", "image: ' a'", "spec.containers[0].image"},
		{"", "", "imagePullPolicy: Sometimes", "spec.containers[0].imagePullPolicy"},
		{"", "", "terminationMessagePolicy: Log", "spec.containers[0].terminationMessagePolicy"},
		{"", "", "restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]", "spec.containers[0].restartPolicy"},
		{"", "", "{restartPolicy: Never, restartPolicyRules: [{action: Restart}]}", "spec.containers[0].restartPolicyRules[0].exitCodes"},
		{"", "", "{restartPolicy: Never, restartPolicyRules: [{action: Stop, exitCodes: {operator: In, values: [1]}}]}", "spec.containers[0].restartPolicyRules[0].action"},
		{"", "", "restartPolicy: Perhaps", "spec.containers[0].restartPolicy"},
		{"", "", "ports: [{containerPort: 0}]", "spec.containers[0].ports[0].containerPort"},
		{"", "", "ports: [{containerPort: 65536}]", "spec.containers[0].ports[0].containerPort"},
		{"", "", "ports: [{containerPort: 1, hostPort: -1}]", "spec.containers[0].ports[0].hostPort"},
		{"", "", "ports: [{containerPort: 1, protocol: ICMP}]", "spec.containers[0].ports[0].protocol"},
		{"", "", "ports: [{containerPort: 1, hostIP: a}]", "spec.containers[0].ports[0].hostIP"},
		{"", "", "ports: [{containerPort: 1, name: a}, {containerPort: 2, name: a}]", "spec.containers[0].ports[1].name"},
		{"", "", "ports: [{containerPort: 1, hostPort: 9}, {containerPort: 2, hostPort: 9}]", "spec.containers[0].ports[1].hostPort"},
		{"", "", "ports: [{containerPort: 1, hostPort: 9}, {containerPort: 2, hostPort: 9, protocol: UDP}]", ""},
		{"", "", "env: [{value: a}]", "spec.containers[0].env[0].name"},
		{"", "", "env: [{name: 'a=b'}]", "spec.containers[0].env[0].name"},
		{"", "", "env: [{name: a, valueFrom: {}}]", "spec.containers[0].env[0].valueFrom"},
		{"", "", "env: [{name: a, value: b, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]", "spec.containers[0].env[0].valueFrom"},
		{"", "", "env: [{name: a, valueFrom: {fieldRef: {fieldPath: spec.containers}}}]", "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath"},
		{"", "", "env: [{name: a, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}]", ""},
		{"", "", "env: [{name: a, valueFrom: {fieldRef: {fieldPath: \"status.podIP['app']\"}}}]", "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath"},
		{"", "", "env: [{name: a, valueFrom: {resourceFieldRef: {resource: limits.disk}}}]", "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource"},
		{"", "", "env: [{name: a, valueFrom: {fileKeyRef: {volumeName: v, path: a, key: b}}}]", ""},
		{"", "", "env: [{name: a, valueFrom: {fileKeyRef: {volumeName: h, path: a, key: b}}}]", "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName"},
		{"", "", "env: [{name: a, valueFrom: {fileKeyRef: {volumeName: v, path: ../a, key: b}}}]", "spec.containers[0].env[0].valueFrom.fileKeyRef.path"},
		{"", "", "env: [{name: a, valueFrom: {secretKeyRef: {name: s, key: k}}}]", "spec.containers[0].env[0].valueFrom.secretKeyRef"},
		{"", "", "env: [{name: a, valueFrom: {configMapKeyRef: {name: s, key: k}}}]", "spec.containers[0].env[0].valueFrom.configMapKeyRef"},
		{"", "", "envFrom: [{secretRef: {name: s}}]", "spec.containers[0].envFrom[0].secretRef"},
		{"", "", "envFrom: [{prefix: a}]", "spec.containers[0].envFrom[0]"},
		{"", "", "volumeMounts: [{name: x, mountPath: /x}]", "spec.containers[0].volumeMounts[0].name"},
		{"", "", "volumeMounts: [{name: v}]", "spec.containers[0].volumeMounts[0].mountPath"},
		{"", "", "volumeMounts: [{name: v, mountPath: /x}, {name: h, mountPath: /x}]", "spec.containers[0].volumeMounts[1].mountPath"},
		{"", "", "volumeMounts: [{name: v, mountPath: /x, subPath: ../a}]", "spec.containers[0].volumeMounts[0].subPath"},
		{"", "", "volumeMounts: [{name: v, mountPath: /x, subPathExpr: /a}]", "spec.containers[0].volumeMounts[0].subPathExpr"},
		{"", "", "volumeMounts: [{name: v, mountPath: /x, mountPropagation: Bidirectional}]", "spec.containers[0].volumeMounts[0].mountPropagation"},
		{"", "", "volumeMounts: [{name: v, mountPath: /x, recursiveReadOnly: Enabled}]", "spec.containers[0].volumeMounts[0].recursiveReadOnly"},
		{"", "", "volumeDevices: [{name: v, devicePath: /dev/x}]", "spec.containers[0].volumeDevices[0].name"},
		{"", "", "resources: {limits: {cpu: -1}}", "spec.containers[0].resources.limits[cpu]"},
		{"", "", "resources: {limits: {disk: 1}}", "spec.containers[0].resources.limits[disk]"},
		{"", "", "resources: {requests: {nvidia.com/gpu: 1}}", "spec.containers[0].resources.limits[nvidia.com/gpu]"},
		{"", "", "resources: {limits: {hugepages-2Mi: 2Mi}}", "spec.containers[0].resources"},
		{"", "", "resources: {requests: {cpu: 2}, limits: {cpu: 1}}", "spec.containers[0].resources.requests[cpu]"},
		{"", "", "livenessProbe: {}", "spec.containers[0].livenessProbe"},
		{"", "", "livenessProbe: {exec: {command: [a]}, tcpSocket: {port: 1}}", "spec.containers[0].livenessProbe"},
		{"", "", "livenessProbe: {exec: {command: [a]}, successThreshold: 2}", "spec.containers[0].livenessProbe.successThreshold"},
		{"", "", "readinessProbe: {exec: {command: [a]}, periodSeconds: -1}", "spec.containers[0].readinessProbe.periodSeconds"},
		{"", "", "readinessProbe: {exec: {command: [a]}, terminationGracePeriodSeconds: 1}", "spec.containers[0].readinessProbe.terminationGracePeriodSeconds"},
		{"", "", "startupProbe: {httpGet: {port: 0}}", "spec.containers[0].startupProbe.httpGet.port"},
		{"", "", "startupProbe: {httpGet: {port: 1, scheme: FTP}}", "spec.containers[0].startupProbe.httpGet.scheme"},
		{"", "", "startupProbe: {exec: {}}", "spec.containers[0].startupProbe.exec.command"},
		{"", "", "lifecycle: {preStop: {sleep: {seconds: 31}}}", "spec.containers[0].lifecycle.preStop.sleep.seconds"},
		{"", "", "lifecycle: {postStart: {}}", "spec.containers[0].lifecycle.postStart"},
		{"", "", "securityContext: {privileged: true, allowPrivilegeEscalation: false}", "spec.containers[0].securityContext.allowPrivilegeEscalation"},
		{"", "", "securityContext: {procMount: Unmasked}", "spec.containers[0].securityContext.procMount"},
		{"", "", "securityContext: {seccompProfile: {type: Localhost, localhostProfile: ../a}}", "spec.containers[0].securityContext.seccompProfile.localhostProfile"},
		{"", "", "securityContext: {appArmorProfile: {type: RuntimeDefault, localhostProfile: a}}", "spec.containers[0].securityContext.appArmorProfile.localhostProfile"},
	} {
		t.Run(strings.Join([]string{c.meta, c.spec, c.container}, " "), func(t *testing.T) {
			pod := basePod(t)
			merge(t, c.meta, &pod.ObjectMeta)
			merge(t, c.spec, &pod.Spec)
			merge(t, c.container, &pod.Spec.Containers[0])
			expectField(t, pod, c.field)
		})
	}
}

func TestValidateVolumes(t *testing.T) {
	for volume, field := range map[string]string{
		"{name: a, hostPath: {path: a/b}}":                                                       "hostPath.path",
		"{name: a, hostPath: {path: /a/../b}}":                                                   "hostPath.path",
		"{name: a, hostPath: {path: ''}}":                                                        "hostPath.path",
		"{name: a, hostPath: {path: /a, type: Fifo}}":                                            "hostPath.type",
		"{name: a, hostPath: {path: /a}, emptyDir: {}}":                                          "",
		"{name: v, emptyDir: {}}":                                                                "name",
		"{name: A, emptyDir: {}}":                                                                "name",
		"{name: a, emptyDir: {sizeLimit: -1}}":                                                   "emptyDir.sizeLimit",
		"{name: a, image: {}}":                                                                   "image.reference",
		"{name: a, nfs: {server: a, path: b}}":                                                   "nfs.path",
		"{name: a, secret: {secretName: s}}":                                                     "secret",
		"{name: a, configMap: {name: s}}":                                                        "configMap",
		"{name: a, persistentVolumeClaim: {claimName: s}}":                                       "persistentVolumeClaim",
		"{name: a, ephemeral: {volumeClaimTemplate: {spec: {}}}}":                                "ephemeral",
		"{name: a, csi: {driver: d}}":                                                            "csi",
		"{name: a, projected: {sources: [{}]}}":                                                  "projected.sources[0]",
		"{name: a, projected: {sources: [{clusterTrustBundle: {path: a}}]}}":                     "projected.sources[0].clusterTrustBundle",
		"{name: a, projected: {sources: [{serviceAccountToken: {path: a}}]}}":                    "projected.sources[0].serviceAccountToken",
		"{name: a, projected: {sources: [{podCertificate: {keyType: a}}]}}":                      "projected.sources[0].podCertificate",
		"{name: a, projected: {defaultMode: 512, sources: []}}":                                  "projected.defaultMode",
		"{name: a, downwardAPI: {items: [{path: ../a, fieldRef: {fieldPath: metadata.name}}]}}":  "downwardAPI.items[0].path",
		"{name: a, downwardAPI: {items: [{path: a}]}}":                                           "downwardAPI.items[0]",
		"{name: a, downwardAPI: {items: [{path: a, fieldRef: {fieldPath: spec.nodeName}}]}}":     "downwardAPI.items[0].fieldRef.fieldPath",
		"{name: a, downwardAPI: {items: [{path: a, resourceFieldRef: {resource: limits.cpu}}]}}": "downwardAPI.items[0].resourceFieldRef.containerName",
	} {
		t.Run(volume, func(t *testing.T) {
			pod := basePod(t)
			pod.Spec.Volumes = append(pod.Spec.Volumes, v1.Volume{})
			merge(t, volume, &pod.Spec.Volumes[2])
			want := "spec.volumes[2]"
			if field != "" {
				want += "." + field
			}
			expectField(t, pod, want)
		})
	}
}

func basePod(t *testing.T) *v1.Pod {
	t.Helper()
	pod := &v1.Pod{}
	merge(t, `
metadata: {name: one-node1, namespace: default, uid: "1"}
spec:
  containers: [{name: main, image: "a:1"}]
  volumes: [{name: v, emptyDir: {}}, {name: h, hostPath: {path: /h}}]
`, pod)
	return pod
}

func merge(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func expectField(t *testing.T, pod *v1.Pod, field string) {
	t.Helper()
	Default(pod)
	errs := Validate(pod, true)
	if field == "" {
		if len(errs) > 0 {
			t.Errorf("got %v", errs)
		}
		return
	}
	if len(errs) != 1 || errs[0].Field != field {
		t.Errorf("got %v, want one error at %s", errs, field)
	}
}

func TestDefaultPullPolicy(t *testing.T) {
	for image, want := range map[string]v1.PullPolicy{
		"a": v1.PullAlways, "a:latest": v1.PullAlways, "localhost:5000/a": v1.PullAlways, "a:1": v1.PullIfNotPresent,
		"a@sha256:" + strings.Repeat("0", 64):        v1.PullIfNotPresent,
		"a:latest@sha256:" + strings.Repeat("0", 64): v1.PullAlways,
		"Not an image": v1.PullIfNotPresent,
	} {
		if got := pullPolicy(image); got != want {
			t.Errorf("%s: got %s, want %s", image, got, want)
		}
	}
}
