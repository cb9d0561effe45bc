package config

import (
	"slices"

	cliflag "k8s.io/component-base/cli/flag"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// kubeletFlags are the flags that stand for a field of the config file, in the
// order of the fields. k has its defaults, so no pointer in it that a flag
// stands for is nil.
func kubeletFlags(k *kubeletv1beta1.KubeletConfiguration) []flagRow {
	return slices.Concat(sourceFlags(k), serverFlags(k), runtimeFlags(k), resourceFlags(k), clusterFlags(k), loggingFlags(&k.Logging))
}

// sourceFlags: where pods come from, and how often is looked.
func sourceFlags(k *kubeletv1beta1.KubeletConfiguration) []flagRow {
	return []flagRow{
		{"pod-manifest-path", &k.StaticPodPath, "staticPodPath", ""},
		{"manifest-url", &k.StaticPodURL, "staticPodURL", ""},
		{"manifest-url-header", cliflag.NewColonSeparatedMultimapStringString(&k.StaticPodURLHeader), "staticPodURLHeader", ""},
		{"sync-frequency", &k.SyncFrequency.Duration, "syncFrequency", ""},
		{"file-check-frequency", &k.FileCheckFrequency.Duration, "fileCheckFrequency", ""},
		{"http-check-frequency", &k.HTTPCheckFrequency.Duration, "httpCheckFrequency", ""},
		{"runonce", &k.RunOnce, "runOnce", ""},
	}
}

// serverFlags: the agent's own ports and who may use them.
func serverFlags(k *kubeletv1beta1.KubeletConfiguration) []flagRow {
	authn, authz := &k.Authentication, &k.Authorization
	return []flagRow{
		{"enable-server", k.EnableServer, "enableServer", ""},
		{"address", (*ipString)(&k.Address), "address", ""},
		{"port", &k.Port, "port", ""},
		{"read-only-port", &k.ReadOnlyPort, "readOnlyPort", ""},
		{"healthz-port", k.HealthzPort, "healthzPort", ""},
		{"healthz-bind-address", (*ipString)(&k.HealthzBindAddress), "healthzBindAddress", ""},
		{"anonymous-auth", authn.Anonymous.Enabled, "authentication.anonymous.enabled", ""},
		{"authentication-token-webhook", authn.Webhook.Enabled, "authentication.webhook.enabled", ""},
		{"authentication-token-webhook-cache-ttl", &authn.Webhook.CacheTTL.Duration, "authentication.webhook.cacheTTL", ""},
		{"client-ca-file", &authn.X509.ClientCAFile, "authentication.x509.clientCAFile", ""},
		{"authorization-mode", (*string)(&authz.Mode), "authorization.mode", ""},
		{"authorization-webhook-cache-authorized-ttl", &authz.Webhook.CacheAuthorizedTTL.Duration, "authorization.webhook.cacheAuthorizedTTL", ""},
		{"authorization-webhook-cache-unauthorized-ttl", &authz.Webhook.CacheUnauthorizedTTL.Duration, "authorization.webhook.cacheUnauthorizedTTL", ""},
		{"tls-cert-file", &k.TLSCertFile, "tlsCertFile", ""},
		{"tls-private-key-file", &k.TLSPrivateKeyFile, "tlsPrivateKeyFile", ""},
		{"tls-cipher-suites", &k.TLSCipherSuites, "tlsCipherSuites", ""},
		{"tls-min-version", &k.TLSMinVersion, "tlsMinVersion", ""},
		{"rotate-certificates", &k.RotateCertificates, "rotateCertificates", ""},
		{"rotate-server-certificates", &k.ServerTLSBootstrap, "serverTLSBootstrap", ""},
		{"enable-debugging-handlers", k.EnableDebuggingHandlers, "enableDebuggingHandlers", ""},
		{"contention-profiling", &k.EnableContentionProfiling, "enableContentionProfiling", ""},
		{"streaming-connection-idle-timeout", &k.StreamingConnectionIdleTimeout.Duration, "streamingConnectionIdleTimeout", ""},
		{"event-qps", k.EventRecordQPS, "eventRecordQPS", ""},
		{"event-burst", &k.EventBurst, "eventBurst", ""},
	}
}

// runtimeFlags: the container runtime, images, logs, volumes and pod networks.
func runtimeFlags(k *kubeletv1beta1.KubeletConfiguration) []flagRow {
	return []flagRow{
		{"container-runtime-endpoint", &k.ContainerRuntimeEndpoint, "containerRuntimeEndpoint", ""},
		{"image-service-endpoint", &k.ImageServiceEndpoint, "imageServiceEndpoint", ""},
		{"runtime-request-timeout", &k.RuntimeRequestTimeout.Duration, "runtimeRequestTimeout", ""},
		{"registry-qps", k.RegistryPullQPS, "registryPullQPS", ""},
		{"registry-burst", &k.RegistryBurst, "registryBurst", ""},
		{"serialize-image-pulls", k.SerializeImagePulls, "serializeImagePulls", ""},
		{"minimum-image-ttl-duration", &k.ImageMinimumGCAge.Duration, "imageMinimumGCAge", ""},
		{"image-gc-high-threshold", k.ImageGCHighThresholdPercent, "imageGCHighThresholdPercent", ""},
		{"image-gc-low-threshold", k.ImageGCLowThresholdPercent, "imageGCLowThresholdPercent", ""},
		{"container-log-max-size", &k.ContainerLogMaxSize, "containerLogMaxSize", ""},
		{"container-log-max-files", k.ContainerLogMaxFiles, "containerLogMaxFiles", ""},
		{"volume-plugin-dir", &k.VolumePluginDir, "volumePluginDir", ""},
		{"volume-stats-agg-period", &k.VolumeStatsAggPeriod.Duration, "volumeStatsAggPeriod", ""},
		{"enable-controller-attach-detach", k.EnableControllerAttachDetach, "enableControllerAttachDetach", ""},
		{"local-storage-capacity-isolation", k.LocalStorageCapacityIsolation, "localStorageCapacityIsolation", ""},
		{"hairpin-mode", &k.HairpinMode, "hairpinMode", ""},
		{"pod-cidr", &k.PodCIDR, "podCIDR", ""},
		{"resolv-conf", k.ResolverConfig, "resolvConf", ""},
		{"cluster-domain", &k.ClusterDomain, "clusterDomain", ""},
		{"cluster-dns", &k.ClusterDNS, "clusterDNS", ""},
		{"make-iptables-util-chains", k.MakeIPTablesUtilChains, "makeIPTablesUtilChains", ""},
		{"allowed-unsafe-sysctls", &k.AllowedUnsafeSysctls, "allowedUnsafeSysctls", ""},
		{"seccomp-default", k.SeccompDefault, "seccompDefault", ""},
	}
}

// resourceFlags: cgroups, reservations, limits, placement and eviction.
func resourceFlags(k *kubeletv1beta1.KubeletConfiguration) []flagRow {
	return []flagRow{
		{"fail-swap-on", k.FailSwapOn, "failSwapOn", ""},
		{"fail-cgroupv1", k.FailCgroupV1, "failCgroupV1", ""},
		{"kubelet-cgroups", &k.KubeletCgroups, "kubeletCgroups", ""},
		{"system-cgroups", &k.SystemCgroups, "systemCgroups", ""},
		{"cgroup-root", &k.CgroupRoot, "cgroupRoot", ""},
		{"cgroups-per-qos", k.CgroupsPerQOS, "cgroupsPerQOS", ""},
		{"cgroup-driver", &k.CgroupDriver, "cgroupDriver", ""},
		{"cpu-cfs-quota", k.CPUCFSQuota, "cpuCFSQuota", ""},
		{"cpu-cfs-quota-period", &k.CPUCFSQuotaPeriod.Duration, "cpuCFSQuotaPeriod", ""},
		{"cpu-manager-policy", &k.CPUManagerPolicy, "cpuManagerPolicy", ""},
		{"cpu-manager-policy-options", cliflag.NewMapStringStringNoSplit(&k.CPUManagerPolicyOptions), "cpuManagerPolicyOptions", ""},
		{"cpu-manager-reconcile-period", &k.CPUManagerReconcilePeriod.Duration, "cpuManagerReconcilePeriod", ""},
		{"memory-manager-policy", &k.MemoryManagerPolicy, "memoryManagerPolicy", ""},
		{"topology-manager-policy", &k.TopologyManagerPolicy, "topologyManagerPolicy", ""},
		{"topology-manager-scope", &k.TopologyManagerScope, "topologyManagerScope", ""},
		{"topology-manager-policy-options", cliflag.NewMapStringString(&k.TopologyManagerPolicyOptions), "topologyManagerPolicyOptions", ""},
		{"qos-reserved", cliflag.NewMapStringString(&k.QOSReserved), "qosReserved", ""},
		{"max-pods", &k.MaxPods, "maxPods", ""},
		{"pods-per-core", &k.PodsPerCore, "podsPerCore", ""},
		{"pod-max-pids", k.PodPidsLimit, "podPidsLimit", ""},
		{"max-open-files", &k.MaxOpenFiles, "maxOpenFiles", ""},
		{"oom-score-adj", k.OOMScoreAdj, "oomScoreAdj", ""},
		{"eviction-hard", cliflag.NewLangleSeparatedMapStringString(&k.EvictionHard), "evictionHard", ""},
		{"eviction-soft", cliflag.NewLangleSeparatedMapStringString(&k.EvictionSoft), "evictionSoft", ""},
		{"eviction-soft-grace-period", cliflag.NewMapStringString(&k.EvictionSoftGracePeriod), "evictionSoftGracePeriod", ""},
		{"eviction-pressure-transition-period", &k.EvictionPressureTransitionPeriod.Duration, "evictionPressureTransitionPeriod", ""},
		{"eviction-max-pod-grace-period", &k.EvictionMaxPodGracePeriod, "evictionMaxPodGracePeriod", ""},
		{"eviction-minimum-reclaim", cliflag.NewMapStringString(&k.EvictionMinimumReclaim), "evictionMinimumReclaim", ""},
		{"kernel-memcg-notification", &k.KernelMemcgNotification, "kernelMemcgNotification", ""},
		{"protect-kernel-defaults", &k.ProtectKernelDefaults, "protectKernelDefaults", ""},
		{"system-reserved", cliflag.NewMapStringString(&k.SystemReserved), "systemReserved", ""},
		{"kube-reserved", cliflag.NewMapStringString(&k.KubeReserved), "kubeReserved", ""},
		{"system-reserved-cgroup", &k.SystemReservedCgroup, "systemReservedCgroup", ""},
		{"kube-reserved-cgroup", &k.KubeReservedCgroup, "kubeReservedCgroup", ""},
		{"enforce-node-allocatable", &k.EnforceNodeAllocatable, "enforceNodeAllocatable", ""},
		{"reserved-cpus", &k.ReservedSystemCPUs, "reservedSystemCPUs", ""},
		{"reserved-memory", &memoryReservations{list: &k.ReservedMemory}, "reservedMemory", ""},
	}
}

// clusterFlags: what concerns the apiserver.
func clusterFlags(k *kubeletv1beta1.KubeletConfiguration) []flagRow {
	return []flagRow{
		{"register-node", k.RegisterNode, "registerNode", ""},
		{"register-with-taints", (*taintList)(&k.RegisterWithTaints), "registerWithTaints", ""},
		{"provider-id", &k.ProviderID, "providerID", ""},
		{"node-status-update-frequency", &k.NodeStatusUpdateFrequency.Duration, "nodeStatusUpdateFrequency", ""},
		{"node-status-max-images", k.NodeStatusMaxImages, "nodeStatusMaxImages", ""},
		{"kube-api-content-type", &k.ContentType, "contentType", ""},
		{"kube-api-qps", k.KubeAPIQPS, "kubeAPIQPS", ""},
		{"kube-api-burst", &k.KubeAPIBurst, "kubeAPIBurst", ""},
		{"feature-gates", cliflag.NewMapStringBool(&k.FeatureGates), "featureGates", ""},
	}
}
