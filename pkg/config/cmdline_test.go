package config

import (
	"slices"
	"strings"
	"testing"
)

// kubeadmConfig is what kubeadm 1.36 writes to /var/lib/kubelet/config.yaml.
const kubeadmConfig = `authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///var/run/containerd/containerd.sock
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
resolvConf: /run/systemd/resolve/resolv.conf
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
`

const kindConfig = kubeadmConfig + `cgroupRoot: /kubelet
evictionHard:
  imagefs.available: 0%
  nodefs.available: 0%
  nodefs.inodesFree: 0%
failSwapOn: false
failCgroupV1: false
imageGCHighThresholdPercent: 100
`

func TestKubeadm(t *testing.T) {
	args := []string{
		"--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf", "--kubeconfig=/etc/kubernetes/kubelet.conf",
		"--container-runtime-endpoint=unix:///run/containerd/containerd.sock", "--hostname-override=cp-1",
		"--node-ip=192.168.0.7,fd00::7", "--register-with-taints=node-role.kubernetes.io/control-plane:NoSchedule",
	}
	c := mustLoad(t, kubeadmConfig, args...)
	if c.Node.Name != "cp-1" || len(c.Node.IPs) != 2 || c.Kubelet.CgroupDriver != "systemd" {
		t.Errorf("got %+v, driver %s", c.Node, c.Kubelet.CgroupDriver)
	}
	if len(c.Kubelet.RegisterWithTaints) != 1 || c.Kubelet.RegisterWithTaints[0].ToString() != "node-role.kubernetes.io/control-plane:NoSchedule" {
		t.Errorf("taints: %v", c.Kubelet.RegisterWithTaints)
	}
	// Standalone on the same file, all that is left is one warning.
	c = mustLoad(t, kubeadmConfig)
	if len(c.Warnings) != 1 {
		t.Fatalf("want one warning, got %q", c.Warnings)
	}
	if !strings.Contains(c.Warnings[0], "evictionHard") {
		t.Errorf("the warning lacks evictionHard: %s", c.Warnings[0])
	}
	for _, name := range []string{"rotateCertificates", "shutdown", "logging", "staticPodPath", "authentication", "authorization", "clusterDNS", "resolvConf"} {
		if strings.Contains(c.Warnings[0], name) {
			t.Errorf("the warning names %s, which is built or as by default: %s", name, c.Warnings[0])
		}
	}
}

func TestKind(t *testing.T) {
	c := mustLoad(t, kindConfig,
		"--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf", "--kubeconfig=/etc/kubernetes/kubelet.conf",
		"--config=/dev/null", "--config="+write(t, t.TempDir(), "config.yaml", header+kindConfig),
		"--node-ip=172.18.0.2", "--node-labels=", "--provider-id=kind://docker/kind/kind-control-plane",
		"--runtime-cgroups=/system.slice/containerd.service", "--fail-swap-on=false", "--cgroup-root=/kubelet")
	if *c.Kubelet.FailSwapOn || c.Kubelet.CgroupRoot != "/kubelet" || c.Node.RuntimeCgroups != "/system.slice/containerd.service" {
		t.Errorf("got %v %s %s", *c.Kubelet.FailSwapOn, c.Kubelet.CgroupRoot, c.Node.RuntimeCgroups)
	}
	if len(c.Warnings) != 2 || !strings.Contains(c.Warnings[0], "--cgroup-root (cgroupRoot), --fail-swap-on (failSwapOn)") {
		t.Errorf("warnings: %q", c.Warnings)
	}
	if strings.Contains(c.Warnings[0], "provider-id") {
		t.Errorf("--provider-id isn't deprecated: %s", c.Warnings[0])
	}
}

func TestK3s(t *testing.T) {
	args := []string{
		"--address=0.0.0.0", "--allowed-unsafe-sysctls=net.ipv4.ip_forward,net.ipv6.conf.all.forwarding", "--anonymous-auth=false",
		"--authentication-token-webhook=true", "--authorization-mode=Webhook", "--cgroup-driver=systemd",
		"--client-ca-file=/var/lib/rancher/k3s/agent/client-ca.crt", "--cloud-provider=external", "--cluster-dns=10.43.0.10",
		"--cluster-domain=cluster.local", "--config-dir=" + t.TempDir(),
		"--container-runtime-endpoint=unix:///run/k3s/containerd/containerd.sock", "--containerd=/run/k3s/containerd/containerd.sock",
		"--eviction-hard=imagefs.available<5%,nodefs.available<5%",
		"--eviction-minimum-reclaim=imagefs.available=10%,nodefs.available=10%", "--fail-swap-on=false",
		"--feature-gates=KubeletInUserNamespace=true", "--healthz-bind-address=127.0.0.1", "--kubelet-cgroups=/k3s",
		"--kubeconfig=/var/lib/rancher/k3s/agent/kubelet.kubeconfig", "--node-ip=10.0.0.5", "--node-labels=a=b,topology.kubernetes.io/zone=z",
		"--pod-manifest-path=/var/lib/rancher/k3s/agent/pod-manifests", "--read-only-port=0", "--resolv-conf=/etc/resolv.conf",
		"--serialize-image-pulls=false", "--tls-cert-file=/a.crt", "--tls-private-key-file=/a.key",
	}
	_, err := load(t, "", args...)
	wantError(t, err, "evictionHard is set", "--allow-unbuilt=evictionHard")
	c := mustLoad(t, "", append(args, "--allow-unbuilt=evictionHard")...)
	if c.Kubelet.EvictionHard["nodefs.available"] != "5%" || *c.Kubelet.SerializeImagePulls || c.Node.Labels["a"] != "b" {
		t.Errorf("got %v %v %v", c.Kubelet.EvictionHard, *c.Kubelet.SerializeImagePulls, c.Node.Labels)
	}
	if all := strings.Join(c.Warnings, "\n"); !strings.Contains(all, "KubeletInUserNamespace (feature gates are ignored)") {
		t.Errorf("the feature gate isn't warned of: %s", all)
	}
	_, err = load(t, "", "--feature-gates=CloudDualStackNodeIPs=true")
	wantError(t, err, "featureGates[CloudDualStackNodeIPs]", "may have been removed")
}

func TestUnknownFlags(t *testing.T) {
	for arg, want := range map[string]string{
		"--container-runtime=remote":          "only CRI runtimes exist",
		"--pod-infra-container-image=pause:3": "container runtime's own configuration",
		"--pod_infra_container_image=pause:3": "container runtime's own configuration",
		"--network-plugin=cni":                "/etc/cni/net.d",
		"--no-such-flag":                      "unknown flag: --no-such-flag",
		"--max-pods=many":                     `invalid argument "many" for "--max-pods"`,
		"--node-ip=10.0.0.1,10.0.0.2":         "one IPv4 and one IPv6",
		"--address=host":                      "not an IP address",
		"--register-with-taints=a:Sometimes":  "NoSchedule, PreferNoSchedule or NoExecute",
		"run":                                 `"run" is neither a flag nor a command`,
	} {
		_, err := Load([]string{arg})
		wantError(t, err, want)
	}
}

func TestFlagValues(t *testing.T) {
	c := mustLoad(t, "", "-v=4", "--logging-format=json", "--log-flush-frequency=9s",
		"--manifest-url=https://h/pods", "--manifest-url-header=A:b,A:c", "--manifest-url-header=D:e",
		"--kube-reserved=cpu=100m,memory=1Gi", "--maximum-dead-containers-per-container=3",
		"--container-runtime-endpoint=/run/x.sock", "--root-dir=/tmp/../srv", "--node-labels=a=b", "--node-labels=c=d")
	if c.Kubelet.Logging.Verbosity != 4 || c.Kubelet.Logging.Format != "json" || c.Kubelet.Logging.FlushFrequency.Duration.Duration.Seconds() != 9 {
		t.Errorf("logging: %+v", c.Kubelet.Logging)
	}
	if h := c.Kubelet.StaticPodURLHeader; !slices.Equal(h["A"], []string{"b", "c"}) || len(h["D"]) != 1 {
		t.Errorf("headers: %v", h)
	}
	if c.Kubelet.ContainerRuntimeEndpoint != "unix:///run/x.sock" || c.Paths.RootDir != "/srv" || len(c.Node.Labels) != 2 || c.DeadContainers.PerContainer != 3 {
		t.Errorf("got %s %s %v %+v", c.Kubelet.ContainerRuntimeEndpoint, c.Paths.RootDir, c.Node.Labels, c.DeadContainers)
	}
}

func TestRefusedUntilBuilt(t *testing.T) {
	for name, yaml := range map[string]string{
		"cpuManagerPolicy":                       "cpuManagerPolicy: static\n",
		"memoryManagerPolicy":                    "memoryManagerPolicy: Static\n",
		"topologyManagerPolicy":                  "topologyManagerPolicy: restricted\n",
		"shutdownGracePeriod":                    "shutdownGracePeriod: 30s\n",
		"shutdownGracePeriodByPodPriority":       "shutdownGracePeriodByPodPriority: [{priority: 0, shutdownGracePeriodSeconds: 5}]\n",
		"qosReserved":                            "qosReserved: {memory: 50%}\n",
		"reservedSystemCPUs":                     "reservedSystemCPUs: 0-1\n",
		"protectKernelDefaults":                  "protectKernelDefaults: true\n",
		"enforceNodeAllocatable":                 "enforceNodeAllocatable: [pods, kube-reserved]\nkubeReservedCgroup: /k\n",
		"imagePullCredentialsVerificationPolicy": "imagePullCredentialsVerificationPolicy: AlwaysVerify\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, yaml)
			wantError(t, err, name+" is set", "--allow-unbuilt="+name)
			c := mustLoad(t, yaml, "--allow-unbuilt="+name)
			if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], name) {
				t.Errorf("allowed, but not warned of: %q", c.Warnings)
			}
		})
	}
	mustLoad(t, "memorySwap: {swapBehavior: LimitedSwap}\nenforceNodeAllocatable: [none]\nshutdownGracePeriod: 0s\n")
	if c := mustLoad(t, "", "--kubeconfig=", "--port=10250", "--node-labels="); len(c.Warnings) != 1 || strings.Contains(c.Warnings[0], "not built") {
		t.Errorf("settings that ask for nothing are warned of: %q", c.Warnings)
	}
	_, err := load(t, "", "--allow-unbuilt=cpuManager")
	wantError(t, err, "no such field or flag", "cpuManagerPolicy")
}
