package config

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logsapi "k8s.io/component-base/logs/api/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// evictionHardDefaults apply when a config file is read and says nothing about
// evictionHard; without a file there are none (behaviour trap T9).
var evictionHardDefaults = map[string]string{
	"memory.available":   "100Mi",
	"nodefs.available":   "10%",
	"nodefs.inodesFree":  "5%",
	"imagefs.available":  "15%",
	"imagefs.inodesFree": "5%",
}

// or sets *field to value if it is unset, that is, zero.
func or[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// orNew sets *field to a new value if it is nil: an explicit zero stays.
func orNew[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

func seconds(n int) metav1.Duration {
	return metav1.Duration{Duration: time.Duration(n) * time.Second}
}

// setDefaults fills every field that is unset with the default of
// KubeletConfiguration v1beta1 at 1.36 (behaviour row 1.22-7).
func setDefaults(k *kubeletv1beta1.KubeletConfiguration) {
	k.APIVersion, k.Kind = apiVersion, kind
	sourceDefaults(k)
	serverDefaults(k)
	runtimeDefaults(k)
	resourceDefaults(k)
	logsapi.SetRecommendedLoggingConfiguration(&k.Logging)
}

func sourceDefaults(k *kubeletv1beta1.KubeletConfiguration) {
	or(&k.SyncFrequency, seconds(60))
	or(&k.FileCheckFrequency, seconds(20))
	or(&k.HTTPCheckFrequency, seconds(20))
	orNew(&k.RegisterNode, true)
	orNew(&k.EventRecordQPS, 50)
	or(&k.EventBurst, 100)
	// Whoever sets the update frequency means the report frequency too.
	or(&k.NodeStatusReportFrequency, k.NodeStatusUpdateFrequency)
	or(&k.NodeStatusReportFrequency, seconds(300))
	or(&k.NodeStatusUpdateFrequency, seconds(10))
	or(&k.NodeLeaseDurationSeconds, 40)
	orNew(&k.NodeStatusMaxImages, 50)
	or(&k.ContentType, "application/vnd.kubernetes.protobuf")
	orNew(&k.KubeAPIQPS, 50)
	or(&k.KubeAPIBurst, 100)
	or(&k.ConfigMapAndSecretChangeDetectionStrategy, kubeletv1beta1.WatchChangeDetectionStrategy)
}

func serverDefaults(k *kubeletv1beta1.KubeletConfiguration) {
	orNew(&k.EnableServer, true)
	or(&k.Address, "0.0.0.0")
	or(&k.Port, 10250)
	orNew(&k.Authentication.Anonymous.Enabled, false)
	orNew(&k.Authentication.Webhook.Enabled, true)
	or(&k.Authentication.Webhook.CacheTTL, seconds(120))
	or(&k.Authorization.Mode, kubeletv1beta1.KubeletAuthorizationModeWebhook)
	or(&k.Authorization.Webhook.CacheAuthorizedTTL, seconds(300))
	or(&k.Authorization.Webhook.CacheUnauthorizedTTL, seconds(30))
	orNew(&k.EnableDebuggingHandlers, true)
	orNew(&k.HealthzPort, 10248)
	or(&k.HealthzBindAddress, "127.0.0.1")
	or(&k.StreamingConnectionIdleTimeout, seconds(4*3600))
	orNew(&k.EnableSystemLogHandler, true)
	orNew(&k.EnableProfilingHandler, true)
	orNew(&k.EnableDebugFlagsHandler, true)
}

func runtimeDefaults(k *kubeletv1beta1.KubeletConfiguration) {
	or(&k.ContainerRuntimeEndpoint, "unix:///run/containerd/containerd.sock")
	or(&k.RuntimeRequestTimeout, seconds(120))
	or(&k.PodLogsDir, "/var/log/pods")
	orNew(&k.RegistryPullQPS, 5)
	or(&k.RegistryBurst, 10)
	// Whoever allows several pulls at a time need not say so twice.
	orNew(&k.SerializeImagePulls, k.MaxParallelImagePulls == nil || *k.MaxParallelImagePulls < 2)
	or(&k.ImagePullCredentialsVerificationPolicy, kubeletv1beta1.NeverVerifyPreloadedImages)
	or(&k.ImageMinimumGCAge, seconds(120))
	orNew(&k.ImageGCHighThresholdPercent, 85)
	orNew(&k.ImageGCLowThresholdPercent, 80)
	or(&k.ContainerLogMaxSize, "10Mi")
	orNew(&k.ContainerLogMaxFiles, 5)
	orNew(&k.ContainerLogMaxWorkers, 1)
	orNew(&k.ContainerLogMonitorInterval, seconds(10))
	orNew(&k.CrashLoopBackOff.MaxContainerRestartPeriod, seconds(300))
	or(&k.VolumePluginDir, "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/")
	or(&k.VolumeStatsAggPeriod, seconds(60))
	orNew(&k.EnableControllerAttachDetach, true)
	orNew(&k.LocalStorageCapacityIsolation, true)
	or(&k.HairpinMode, kubeletv1beta1.PromiscuousBridge)
	orNew(&k.ResolverConfig, "/etc/resolv.conf")
	orNew(&k.MakeIPTablesUtilChains, true)
	orNew(&k.IPTablesMasqueradeBit, 14)
	orNew(&k.IPTablesDropBit, 15)
	orNew(&k.SeccompDefault, false)
}

func resourceDefaults(k *kubeletv1beta1.KubeletConfiguration) {
	orNew(&k.FailSwapOn, true)
	orNew(&k.FailCgroupV1, true)
	orNew(&k.CgroupsPerQOS, true)
	or(&k.CgroupDriver, "cgroupfs")
	orNew(&k.CPUCFSQuota, true)
	orNew(&k.CPUCFSQuotaPeriod, metav1.Duration{Duration: 100 * time.Millisecond})
	or(&k.CPUManagerPolicy, "none")
	or(&k.CPUManagerReconcilePeriod, seconds(10))
	or(&k.MemoryManagerPolicy, kubeletv1beta1.NoneMemoryManagerPolicy)
	or(&k.TopologyManagerPolicy, kubeletv1beta1.NoneTopologyManagerPolicy)
	or(&k.TopologyManagerScope, kubeletv1beta1.ContainerTopologyManagerScope)
	or(&k.MaxPods, 110)
	orNew(&k.PodPidsLimit, -1)
	*k.PodPidsLimit = max(*k.PodPidsLimit, -1)
	orNew(&k.OOMScoreAdj, -999)
	or(&k.MaxOpenFiles, 1000000)
	or(&k.EvictionPressureTransitionPeriod, seconds(300))
	orNew(&k.MergeDefaultEvictionSettings, false)
	if k.EnforceNodeAllocatable == nil { // an explicit empty list enforces nothing
		k.EnforceNodeAllocatable = []string{"pods"}
	}
	orNew(&k.MemoryThrottlingFactor, 0.9)
	or(&k.MemoryReservationPolicy, kubeletv1beta1.NoneMemoryReservationPolicy)
}
