package config

import (
	"strings"
	"testing"
)

// Each of these is wrong in one way; the error must name the field, the value
// and what is allowed.
func TestValidate(t *testing.T) {
	for _, tc := range []struct{ yaml, want string }{
		{"readOnlyPort: -1", "readOnlyPort: Invalid value: -1: must be between 0 and 65535"},
		{"cpuCFSQuotaPeriod: 2s", "cpuCFSQuotaPeriod: Invalid value: \"2s\": must be between 1ms and 1s"},
		{"crashLoopBackOff: {maxContainerRestartPeriod: 1h}", "crashLoopBackOff.maxContainerRestartPeriod: Invalid value: \"1h0m0s\": must be between 1s and 5m0s"},
		{"maxPods: -1", "maxPods: Invalid value: -1: must be 0 or more"},
		{"nodeStatusMaxImages: -2", "nodeStatusMaxImages: Invalid value: -2: must be -1 or more"},
		{"containerLogMaxFiles: 1", "containerLogMaxFiles: Invalid value: 1: must be 2 or more"},
		{"containerLogMonitorInterval: 1s", "containerLogMonitorInterval: Invalid value: \"1s\": must be 3s or more"},
		{"containerLogMaxSize: big", `containerLogMaxSize: Invalid value: "big"`},
		{"fileCheckFrequency: -1s", `fileCheckFrequency: Invalid value: "-1s": must be longer than 0s`},
		{"hairpinMode: x", `hairpinMode: Unsupported value: "x"`},
		{"authorization: {mode: RBAC}", `authorization.mode: Unsupported value: "RBAC"`},
		{"memorySwap: {swapBehavior: Much}", `memorySwap.swapBehavior: Unsupported value: "Much"`},
		{"showHiddenMetricsForVersion: '1.36'", `showHiddenMetricsForVersion: Unsupported value: "1.36": supported values: "", "1.35"`},
		{"runOnce: true", "runOnce: Forbidden"},
		{"logging: {format: xml}", `logging.format: Unsupported value: "xml"`},
		{"staticPodURL: ftp://h/x", `staticPodURL: Invalid value: "ftp://h/x": must be an http or https URL`},
		{"containerRuntimeEndpoint: tcp://h:1", `containerRuntimeEndpoint: Invalid value: "tcp://h:1": must be a unix socket`},
		{"imageServiceEndpoint: npipe:x", `imageServiceEndpoint: Invalid value: "npipe:x"`},
		{"healthzBindAddress: localhost", `healthzBindAddress: Invalid value: "localhost": must be an IP address`},
		{"clusterDNS: [10.0.0.1, dns]", `clusterDNS[1]: Invalid value: "dns"`},
		{"registerWithTaints: [{key: a, effect: Never}]", "registerWithTaints[0]: Invalid value"},
		{"imageGCLowThresholdPercent: 90", "imageGCLowThresholdPercent: Invalid value: 90: must be less than imageGCHighThresholdPercent, 85"},
		{"imageMaximumGCAge: 1m", "imageMaximumGCAge: Invalid value"},
		{"maxParallelImagePulls: 0", "maxParallelImagePulls: Invalid value: 0: must be 1 or more"},
		{"maxParallelImagePulls: 2\nserializeImagePulls: true", "maxParallelImagePulls: Invalid value: 2: must be 1 while"},
		{"preloadedImagesVerificationAllowlist: [a]", "preloadedImagesVerificationAllowlist: Forbidden"},
		{"podLogsDir: /var/../log", `podLogsDir: Invalid value: "/var/../log"`},
		{"tracing: {endpoint: 'http://h:4317'}", `tracing.endpoint: Invalid value: "http://h:4317": unsupported scheme`},
		{"tracing: {samplingRatePerMillion: 1000001}", "tracing.samplingRatePerMillion: Invalid value: 1000001"},
		{"podLogsDir: /var/lög", "must be ASCII"},
		{"enableSystemLogHandler: false\nenableSystemLogQuery: true", "enableSystemLogQuery: Forbidden"},
		{"logging: {format: json, vmodule: [{filePattern: a, verbosity: 1}]}", "logging.vmodule: Forbidden"},
		{"enforceNodeAllocatable: [all]", `enforceNodeAllocatable[0]: Unsupported value: "all"`},
		{"enforceNodeAllocatable: [pods, pods]", "enforceNodeAllocatable[1]: Duplicate value"},
		{"enforceNodeAllocatable: [none, pods]", "enforceNodeAllocatable[0]: Invalid value"},
		{"enforceNodeAllocatable: [kube-reserved]", "kubeReservedCgroup: Required value"},
		{"enforceNodeAllocatable: [system-reserved-compressible]", "systemReservedCgroup: Required value"},
		{"enforceNodeAllocatable: [kube-reserved, kube-reserved-compressible]\nkubeReservedCgroup: /k", "cannot be together with kube-reserved"},
		{"cgroupsPerQOS: false", "enforceNodeAllocatable[0]: Invalid value: \"pods\": needs cgroupsPerQOS true"},
		{"systemCgroups: /s", "cgroupRoot: Required value"},
		{"cgroupRoot: /a/../..", "cgroupRoot: Invalid value"},
		{"kubeReserved: {gpu: a}", `kubeReserved[gpu]: Unsupported value: "gpu"`},
		{"systemReserved: {cpu: -1m}", `systemReserved[cpu]: Invalid value: "-1m"`},
		{"evictionHard: {disk.free: 1Gi}", `evictionHard[disk.free]: Unsupported value`},
		{"evictionHard: {memory.available: 101%}", `evictionHard[memory.available]: Invalid value: "101%": must be between 0% and 100%`},
		{"evictionHard: {memory.available: NaN%}", `evictionHard[memory.available]: Invalid value: "NaN%"`},
		{`evictionHard: {memory.available: "0"}`, `evictionHard[memory.available]: Invalid value: "0": must be a positive quantity`},
		{"evictionSoft: {memory.available: 0%}", "evictionSoftGracePeriod[memory.available]: Required value"},
		{"evictionSoftGracePeriod: {memory.available: soon}", `evictionSoftGracePeriod[memory.available]: Invalid value: "soon"`},
		{"shutdownGracePeriod: 1ms", `shutdownGracePeriod: Invalid value: "1ms": must be 0s (off), or 1s or more`},
		{"shutdownGracePeriodCriticalPods: 5s", "must not exceed shutdownGracePeriod, 0s"},
		{"shutdownGracePeriod: 5s\nfeatureGates: {GracefulNodeShutdown: false}", "needs the feature gate GracefulNodeShutdown"},
		{"shutdownGracePeriod: 5s\nshutdownGracePeriodByPodPriority: [{priority: 1, shutdownGracePeriodSeconds: 1}]", "shutdownGracePeriodByPodPriority: Forbidden"},
		{"reservedSystemCPUs: some", `reservedSystemCPUs: Invalid value: "some": must be a list of CPUs`},
		{"reservedSystemCPUs: 0-1\nkubeReservedCgroup: /k", "reservedSystemCPUs: Forbidden"},
		{"memoryThrottlingFactor: 1.5", "memoryThrottlingFactor: Invalid value: 1.5"},
		{"memoryReservationPolicy: TieredReservation", "needs the feature gate MemoryQoS"},
		{"reservedMemory: [{numaNode: 0, limits: {cpu: 1}}]", "reservedMemory[0].limits[cpu]: Unsupported value"},
		{"reservedMemory: [{numaNode: 0, limits: {memory: 0}}]", "must be more than 0"},
		{"reservedMemory: [{numaNode: 0, limits: {memory: 1}}, {numaNode: 0, limits: {memory: 1}}]", "reservedMemory[1].limits[memory]: Duplicate value"},
		{"userNamespaces: {idsPerPod: 1000}", "userNamespaces.idsPerPod: Invalid value: 1000: must be a multiple of 65536"},
		{"featureGates: {Nonsense: true}", "featureGates[Nonsense]: Invalid value: true: no such feature gate"},
		{"featureGates: {NodeSwap: false}", "featureGates[NodeSwap]: Invalid value: false: this gate is locked to true"},
	} {
		t.Run(tc.yaml, func(t *testing.T) {
			_, err := load(t, tc.yaml+"\n")
			wantError(t, err, "invalid configuration", tc.want)
			if lines := strings.Count(err.Error(), "\n"); lines != 1 {
				t.Errorf("one mistake gives %d errors:\n%v", lines, err)
			}
		})
	}
}

func TestValidateFlags(t *testing.T) {
	for arg, want := range map[string]string{
		"--cloud-provider=aws":                       `--cloud-provider: Unsupported value: "aws"`,
		"--hostname-override=my_host":                `--hostname-override: Invalid value: "my_host"`,
		"--exit-on-lock-contention":                  "--lock-file: Required value",
		"--image-credential-provider-config=/c":      "must be set together",
		"--node-labels=a b=c":                        "--node-labels: Invalid value",
		"--node-labels=a=-":                          "--node-labels[a]: Invalid value",
		"--node-labels=node-role.kubernetes.io/me=x": "node.kubernetes.io",
		"--node-labels=example.k8s.io/me=x":          "of the labels in kubernetes.io and k8s.io",
		"--node-labels=k8s.io/me=x":                  "of the labels in kubernetes.io and k8s.io",
		"--file-check-frequency=0s":                  "fileCheckFrequency: Invalid value",
		"--container-runtime-endpoint=":              "containerRuntimeEndpoint: Invalid value",
	} {
		_, err := load(t, "", arg)
		wantError(t, err, want)
	}
	mustLoad(t, "", "--node-labels=node.kubernetes.io/x=y,kubelet.kubernetes.io/x=y,notk8s.io/x=y,topology.kubernetes.io/zone=z",
		"--node-ip=", "--register-with-taints=", "--address=", "--reserved-memory=")
}

func TestNodeName(t *testing.T) {
	host := func(name string) func() (string, error) { return func() (string, error) { return name, nil } }
	c := Default()
	if err := c.resolve(host(" Big.Host ")); err != nil || c.Node.Name != "big.host" {
		t.Errorf("got %q, %v", c.Node.Name, err)
	}
	wantError(t, Default().resolve(host("")), "--hostname-override")
}
