package config

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	tracingv1 "k8s.io/component-base/tracing/api/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	kubeletapis "k8s.io/kubelet/pkg/apis"
	netutils "k8s.io/utils/net"
)

// validate judges all values and returns every error, a line each, named by the
// field in the config file or by the flag.
func validate(c *Config) error {
	k := &c.Kubelet
	errs := slices.Concat(
		validateNode(c),
		validateGates(k.FeatureGates, field.NewPath("featureGates")),
		validateRanges(k),
		validateChoices(k),
		validateSources(k),
		validateImages(k),
		validateLogging(k),
		validateAllocatable(k),
		validateEviction(k),
		validateShutdown(k),
		validatePlacement(k),
		tracingv1.ValidateTracingConfiguration(k.Tracing, nil, field.NewPath("tracing")),
	)
	if len(errs) == 0 {
		return nil
	}
	lines := []error{errors.New("invalid configuration")}
	for _, err := range errs {
		lines = append(lines, err)
	}
	return errors.Join(lines...)
}

func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if !yield(key, m[key]) {
				return
			}
		}
	}
}

// validateNode judges what is given by flag alone.
func validateNode(c *Config) field.ErrorList {
	var errs field.ErrorList
	if problems := validation.IsDNS1123Subdomain(c.Node.Name); len(problems) > 0 {
		errs = append(errs, field.Invalid(field.NewPath("--hostname-override"), c.Node.Name, strings.Join(problems, "; ")))
	}
	if c.Node.CloudProvider != "" && c.Node.CloudProvider != "external" {
		errs = append(errs, field.NotSupported(field.NewPath("--cloud-provider"), c.Node.CloudProvider, []string{"", "external"}))
	}
	if c.Node.ExitOnLockContention && c.Paths.LockFile == "" {
		errs = append(errs, field.Required(field.NewPath("--lock-file"), "--exit-on-lock-contention needs it"))
	}
	if (c.Paths.ImageCredentialConfig == "") != (c.Paths.ImageCredentialBinDir == "") {
		errs = append(errs, field.Required(field.NewPath("--image-credential-provider-config"),
			"it and --image-credential-provider-bin-dir must be set together"))
	}
	path := field.NewPath("--node-labels")
	for key, value := range sorted(c.Node.Labels) {
		for _, problem := range validation.IsQualifiedName(key) {
			errs = append(errs, field.Invalid(path, key, problem))
		}
		for _, problem := range validation.IsValidLabelValue(value) {
			errs = append(errs, field.Invalid(path.Key(key), value, problem))
		}
		if reservedLabel(key) && !kubeletapis.IsKubeletLabel(key) {
			errs = append(errs, field.Invalid(path, key, fmt.Sprintf(
				"of the labels in kubernetes.io and k8s.io a node may only set those in %s, and %s",
				strings.Join(kubeletapis.KubeletLabelNamespaces(), ", "), strings.Join(kubeletapis.KubeletLabels(), ", "))))
		}
	}
	return errs
}

func reservedLabel(key string) bool {
	namespace, _, ok := strings.Cut(key, "/")
	return ok && (strings.HasSuffix("."+namespace, ".kubernetes.io") || strings.HasSuffix("."+namespace, ".k8s.io"))
}

// shown keeps durations from being printed in nanoseconds.
func shown(value any) any {
	if s, ok := value.(fmt.Stringer); ok {
		return s.String()
	}
	return value
}

// within is a number that must lie in a range.
func within[T cmp.Ordered](name string, value, low, high T) *field.Error {
	if value < low || value > high {
		return field.Invalid(field.NewPath(name), shown(value), fmt.Sprintf("must be between %v and %v, inclusive", low, high))
	}
	return nil
}

func atLeast[T cmp.Ordered](name string, value, low T) *field.Error {
	if value < low {
		return field.Invalid(field.NewPath(name), shown(value), fmt.Sprintf("must be %v or more", low))
	}
	return nil
}

// period is a duration that must be positive.
func period(name string, value metav1.Duration) *field.Error {
	if value.Duration <= 0 {
		return field.Invalid(field.NewPath(name), value.Duration.String(), "must be longer than 0s")
	}
	return nil
}

func validateRanges(k *kubeletv1beta1.KubeletConfiguration) field.ErrorList {
	errs := []*field.Error{
		within("port", k.Port, 1, 65535),
		within("readOnlyPort", k.ReadOnlyPort, 0, 65535),
		within("healthzPort", *k.HealthzPort, 0, 65535),
		within("oomScoreAdj", *k.OOMScoreAdj, -1000, 1000),
		within("cpuCFSQuotaPeriod", k.CPUCFSQuotaPeriod.Duration, time.Millisecond, time.Second),
		within("crashLoopBackOff.maxContainerRestartPeriod", k.CrashLoopBackOff.MaxContainerRestartPeriod.Duration, time.Second, 300*time.Second),
		within("imageGCHighThresholdPercent", *k.ImageGCHighThresholdPercent, 0, 100),
		within("imageGCLowThresholdPercent", *k.ImageGCLowThresholdPercent, 0, 100),
		within("iptablesMasqueradeBit", *k.IPTablesMasqueradeBit, 0, 31),
		within("iptablesDropBit", *k.IPTablesDropBit, 0, 31),
		atLeast("maxPods", k.MaxPods, 0),
		atLeast("podsPerCore", k.PodsPerCore, 0),
		atLeast("maxOpenFiles", k.MaxOpenFiles, 0),
		atLeast("registryPullQPS", *k.RegistryPullQPS, 0),
		atLeast("registryBurst", k.RegistryBurst, 0),
		atLeast("eventRecordQPS", *k.EventRecordQPS, 0),
		atLeast("eventBurst", k.EventBurst, 0),
		atLeast("kubeAPIQPS", *k.KubeAPIQPS, 0),
		atLeast("kubeAPIBurst", k.KubeAPIBurst, 0),
		atLeast("nodeStatusMaxImages", *k.NodeStatusMaxImages, -1),
		atLeast("nodeLeaseDurationSeconds", k.NodeLeaseDurationSeconds, 1),
		atLeast("containerLogMaxFiles", *k.ContainerLogMaxFiles, 2),
		atLeast("containerLogMaxWorkers", *k.ContainerLogMaxWorkers, 1),
		atLeast("containerLogMonitorInterval", k.ContainerLogMonitorInterval.Duration, 3*time.Second),
		period("syncFrequency", k.SyncFrequency),
		period("fileCheckFrequency", k.FileCheckFrequency),
		period("httpCheckFrequency", k.HTTPCheckFrequency),
		period("runtimeRequestTimeout", k.RuntimeRequestTimeout),
	}
	return slices.DeleteFunc(errs, func(err *field.Error) bool { return err == nil })
}

func oneOf[T ~string](name string, value T, choices ...T) *field.Error {
	if slices.Contains(choices, value) {
		return nil
	}
	return field.NotSupported(field.NewPath(name), value, choices)
}

func validateChoices(k *kubeletv1beta1.KubeletConfiguration) field.ErrorList {
	errs := []*field.Error{
		oneOf("authorization.mode", k.Authorization.Mode, kubeletv1beta1.KubeletAuthorizationModeAlwaysAllow, kubeletv1beta1.KubeletAuthorizationModeWebhook),
		oneOf("cgroupDriver", k.CgroupDriver, "cgroupfs", "systemd"),
		oneOf("cpuManagerPolicy", k.CPUManagerPolicy, "none", "static"),
		oneOf("memoryManagerPolicy", k.MemoryManagerPolicy, kubeletv1beta1.NoneMemoryManagerPolicy, kubeletv1beta1.StaticMemoryManagerPolicy),
		oneOf("topologyManagerPolicy", k.TopologyManagerPolicy, kubeletv1beta1.NoneTopologyManagerPolicy, kubeletv1beta1.BestEffortTopologyManagerPolicy,
			kubeletv1beta1.RestrictedTopologyManagerPolicy, kubeletv1beta1.SingleNumaNodeTopologyManagerPolicy),
		oneOf("topologyManagerScope", k.TopologyManagerScope, kubeletv1beta1.ContainerTopologyManagerScope, kubeletv1beta1.PodTopologyManagerScope),
		oneOf("hairpinMode", k.HairpinMode, kubeletv1beta1.PromiscuousBridge, kubeletv1beta1.HairpinVeth, kubeletv1beta1.HairpinNone),
		oneOf("memorySwap.swapBehavior", k.MemorySwap.SwapBehavior, "", "NoSwap", "LimitedSwap"),
		oneOf("memoryReservationPolicy", k.MemoryReservationPolicy, kubeletv1beta1.NoneMemoryReservationPolicy, kubeletv1beta1.TieredReservationMemoryReservationPolicy),
		oneOf("configMapAndSecretChangeDetectionStrategy", k.ConfigMapAndSecretChangeDetectionStrategy, kubeletv1beta1.GetChangeDetectionStrategy,
			kubeletv1beta1.TTLCacheChangeDetectionStrategy, kubeletv1beta1.WatchChangeDetectionStrategy),
		oneOf("imagePullCredentialsVerificationPolicy", k.ImagePullCredentialsVerificationPolicy, kubeletv1beta1.NeverVerify,
			kubeletv1beta1.NeverVerifyPreloadedImages, kubeletv1beta1.NeverVerifyAllowlistedImages, kubeletv1beta1.AlwaysVerify),
		oneOf("logging.format", k.Logging.Format, "text", "json"),
		oneOf("showHiddenMetricsForVersion", k.ShowHiddenMetricsForVersion, "", previousRelease()),
	}
	if k.RunOnce {
		errs = append(errs, field.Forbidden(field.NewPath("runOnce"), "this mode no longer exists; remove the setting"))
	}
	return slices.DeleteFunc(errs, func(err *field.Error) bool { return err == nil })
}

func validateSources(k *kubeletv1beta1.KubeletConfiguration) field.ErrorList {
	var errs field.ErrorList
	if k.StaticPodURL != "" {
		if u, err := url.Parse(k.StaticPodURL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, field.Invalid(field.NewPath("staticPodURL"), k.StaticPodURL, "must be an http or https URL"))
		}
	}
	for name, endpoint := range sorted(map[string]string{
		"containerRuntimeEndpoint": k.ContainerRuntimeEndpoint, "imageServiceEndpoint": k.ImageServiceEndpoint,
	}) {
		if socket, ok := strings.CutPrefix(endpoint, "unix://"); (!ok || !filepath.IsAbs(socket)) && (endpoint != "" || name == "containerRuntimeEndpoint") {
			errs = append(errs, field.Invalid(field.NewPath(name), endpoint, "must be a unix socket, as in unix:///run/containerd/containerd.sock"))
		}
	}
	for name, address := range sorted(map[string]string{"address": k.Address, "healthzBindAddress": k.HealthzBindAddress}) {
		if netutils.ParseIPSloppy(address) == nil {
			errs = append(errs, field.Invalid(field.NewPath(name), address, "must be an IP address"))
		}
	}
	for i, server := range k.ClusterDNS {
		if netutils.ParseIPSloppy(server) == nil {
			errs = append(errs, field.Invalid(field.NewPath("clusterDNS").Index(i), server, "must be an IP address"))
		}
	}
	for i, taint := range k.RegisterWithTaints {
		if err := checkTaint(taint); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("registerWithTaints").Index(i), taint.ToString(), err.Error()))
		}
	}
	return errs
}
