package config

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/cpuset"
)

// usernsUnit is what a pod's range of user IDs must be a multiple of.
const usernsUnit = 65536

var evictionSignals = []string{
	"memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree",
	"containerfs.available", "containerfs.inodesFree", "allocatableMemory.available", "pid.available",
}

func validateImages(k *kubeletv1beta1.KubeletConfiguration) field.ErrorList {
	var errs field.ErrorList
	if low, high := *k.ImageGCLowThresholdPercent, *k.ImageGCHighThresholdPercent; low >= high {
		errs = append(errs, field.Invalid(field.NewPath("imageGCLowThresholdPercent"), low,
			fmt.Sprintf("must be less than imageGCHighThresholdPercent, %d", high)))
	}
	shortest, longest := k.ImageMinimumGCAge.Duration, k.ImageMaximumGCAge.Duration
	if shortest < 0 {
		errs = append(errs, field.Invalid(field.NewPath("imageMinimumGCAge"), shortest.String(), "must be 0s or more"))
	}
	if longest < 0 || longest > 0 && longest <= shortest {
		errs = append(errs, field.Invalid(field.NewPath("imageMaximumGCAge"), longest.String(),
			fmt.Sprintf("must be 0s (off) or more than imageMinimumGCAge, %s", shortest)))
	}
	if parallel := k.MaxParallelImagePulls; parallel != nil {
		path := field.NewPath("maxParallelImagePulls")
		if *parallel < 1 {
			errs = append(errs, field.Invalid(path, *parallel, "must be 1 or more"))
		} else if *parallel > 1 && *k.SerializeImagePulls {
			errs = append(errs, field.Invalid(path, *parallel, "must be 1 while serializeImagePulls is true"))
		}
	}
	if len(k.PreloadedImagesVerificationAllowlist) > 0 && k.ImagePullCredentialsVerificationPolicy != kubeletv1beta1.NeverVerifyAllowlistedImages {
		errs = append(errs, field.Forbidden(field.NewPath("preloadedImagesVerificationAllowlist"),
			"needs imagePullCredentialsVerificationPolicy NeverVerifyAllowlistedImages"))
	}
	return errs
}

func validateLogging(k *kubeletv1beta1.KubeletConfiguration) field.ErrorList {
	var errs field.ErrorList
	dir, path := k.PodLogsDir, field.NewPath("podLogsDir")
	if !filepath.IsAbs(dir) || strings.TrimSuffix(dir, "/") != strings.TrimSuffix(filepath.Clean(dir), "/") {
		errs = append(errs, field.Invalid(path, dir, "must be an absolute path without . or .. in it"))
	}
	if strings.ContainsFunc(dir, func(r rune) bool { return r > unicode.MaxASCII }) {
		errs = append(errs, field.Invalid(path, dir, "must be ASCII"))
	}
	if size, err := resource.ParseQuantity(k.ContainerLogMaxSize); err != nil || size.Sign() <= 0 {
		errs = append(errs, field.Invalid(field.NewPath("containerLogMaxSize"), k.ContainerLogMaxSize, "must be a positive quantity, as in 10Mi"))
	}
	logging := field.NewPath("logging")
	if v := k.Logging.Verbosity; uint32(v) > math.MaxInt32 {
		errs = append(errs, field.Invalid(logging.Child("verbosity"), uint32(v), "must be 2147483647 or less"))
	}
	if len(k.Logging.VModule) > 0 && k.Logging.Format != "text" {
		errs = append(errs, field.Forbidden(logging.Child("vmodule"), "needs logging.format text"))
	}
	if !*k.EnableSystemLogHandler && k.EnableSystemLogQuery != nil && *k.EnableSystemLogQuery {
		errs = append(errs, field.Forbidden(field.NewPath("enableSystemLogQuery"), "needs enableSystemLogHandler true"))
	}
	return errs
}

func validateAllocatable(k *kubeletv1beta1.KubeletConfiguration) field.ErrorList {
	path, enforce := field.NewPath("enforceNodeAllocatable"), k.EnforceNodeAllocatable
	cgroups := map[string]string{"system-reserved": k.SystemReservedCgroup, "kube-reserved": k.KubeReservedCgroup}
	var errs field.ErrorList
	for i, level := range enforce {
		at := path.Index(i)
		base := strings.TrimSuffix(level, "-compressible")
		cgroup, reserved := cgroups[base]
		switch {
		case slices.Index(enforce, level) < i:
			errs = append(errs, field.Duplicate(at, level))
			continue
		case level == "none" && len(enforce) > 1:
			errs = append(errs, field.Invalid(at, level, "must be the only entry"))
			continue
		case level == "none":
			continue
		case level != "pods" && !reserved:
			errs = append(errs, field.NotSupported(at, level, []string{"none", "pods", "system-reserved",
				"system-reserved-compressible", "kube-reserved", "kube-reserved-compressible"}))
			continue
		case reserved && level != base && slices.Contains(enforce, base):
			errs = append(errs, field.Invalid(at, level, "cannot be together with "+base))
		}
		if reserved && cgroup == "" {
			name := strings.TrimSuffix(base, "-reserved") + "ReservedCgroup"
			errs = append(errs, field.Required(field.NewPath(name), "enforceNodeAllocatable holds "+level))
		}
		if !*k.CgroupsPerQOS {
			errs = append(errs, field.Invalid(at, level, "needs cgroupsPerQOS true; set enforceNodeAllocatable to [none] to go without"))
		}
	}
	if k.SystemCgroups != "" && k.CgroupRoot == "" {
		errs = append(errs, field.Required(field.NewPath("cgroupRoot"), "systemCgroups is set"))
	}
	if slices.Contains(strings.Split(k.CgroupRoot, "/"), "..") {
		errs = append(errs, field.Invalid(field.NewPath("cgroupRoot"), k.CgroupRoot, "must not contain .."))
	}
	errs = append(errs, validateReserved("systemReserved", k.SystemReserved)...)
	return append(errs, validateReserved("kubeReserved", k.KubeReserved)...)
}

func validateReserved(name string, reserved map[string]string) field.ErrorList {
	names := []string{"cpu", "memory", "ephemeral-storage", "pid"}
	var errs field.ErrorList
	for key, text := range sorted(reserved) {
		path := field.NewPath(name).Key(key)
		if !slices.Contains(names, key) {
			errs = append(errs, field.NotSupported(path, key, names))
		} else if quantity, err := resource.ParseQuantity(text); err != nil || quantity.Sign() < 0 {
			errs = append(errs, field.Invalid(path, text, "must be a quantity of 0 or more, as in 500m or 1Gi"))
		}
	}
	return errs
}

// thresholdOff says whether an eviction threshold never fires: 0% and 100% are
// the kubelet's way to switch one off.
func thresholdOff(text string) bool {
	percent, ok := percentage(text)
	return ok && (percent == 0 || percent == 100)
}

func percentage(text string) (float64, bool) {
	number, ok := strings.CutSuffix(text, "%")
	value, err := strconv.ParseFloat(number, 64)
	return value, ok && err == nil
}

func validateEviction(k *kubeletv1beta1.KubeletConfiguration) field.ErrorList {
	var errs field.ErrorList
	thresholds := map[string]map[string]string{
		"evictionHard": k.EvictionHard, "evictionSoft": k.EvictionSoft, "evictionMinimumReclaim": k.EvictionMinimumReclaim,
	}
	for name, values := range sorted(thresholds) {
		for signal, text := range sorted(values) {
			path := field.NewPath(name).Key(signal)
			if !slices.Contains(evictionSignals, signal) {
				errs = append(errs, field.NotSupported(path, signal, evictionSignals))
			}
			if strings.HasSuffix(text, "%") {
				if percent, ok := percentage(text); !ok || !(percent >= 0 && percent <= 100) {
					errs = append(errs, field.Invalid(path, text, "must be between 0% and 100%"))
				}
				continue
			}
			quantity, err := resource.ParseQuantity(text)
			if err != nil || quantity.Sign() < 0 || quantity.IsZero() && name != "evictionMinimumReclaim" {
				errs = append(errs, field.Invalid(path, text, "must be a positive quantity or a percentage, as in 100Mi or 10%"))
			}
		}
	}
	for signal := range sorted(k.EvictionSoft) {
		if _, ok := k.EvictionSoftGracePeriod[signal]; !ok {
			errs = append(errs, field.Required(field.NewPath("evictionSoftGracePeriod").Key(signal), "evictionSoft has this signal"))
		}
	}
	for signal, text := range sorted(k.EvictionSoftGracePeriod) {
		if period, err := time.ParseDuration(text); err != nil || period < 0 {
			errs = append(errs, field.Invalid(field.NewPath("evictionSoftGracePeriod").Key(signal), text, "must be a duration of 0s or more, as in 1m30s"))
		}
	}
	return errs
}

func validateShutdown(k *kubeletv1beta1.KubeletConfiguration) field.ErrorList {
	total, critical := k.ShutdownGracePeriod.Duration, k.ShutdownGracePeriodCriticalPods.Duration
	var errs field.ErrorList
	for name, value := range sorted(map[string]time.Duration{"shutdownGracePeriod": total, "shutdownGracePeriodCriticalPods": critical}) {
		if value != 0 && value < time.Second {
			errs = append(errs, field.Invalid(field.NewPath(name), value.String(), "must be 0s (off), or 1s or more"))
		}
		if value > 0 && !gateEnabled(k.FeatureGates, "GracefulNodeShutdown") {
			errs = append(errs, field.Forbidden(field.NewPath(name), "needs the feature gate GracefulNodeShutdown"))
		}
	}
	if critical > total {
		errs = append(errs, field.Invalid(field.NewPath("shutdownGracePeriodCriticalPods"), critical.String(),
			fmt.Sprintf("must not exceed shutdownGracePeriod, %s", total)))
	}
	if len(k.ShutdownGracePeriodByPodPriority) > 0 {
		path := field.NewPath("shutdownGracePeriodByPodPriority")
		if total > 0 || critical > 0 {
			errs = append(errs, field.Forbidden(path, "cannot be together with shutdownGracePeriod"))
		}
		if !gateEnabled(k.FeatureGates, "GracefulNodeShutdownBasedOnPodPriority") {
			errs = append(errs, field.Forbidden(path, "needs the feature gate GracefulNodeShutdownBasedOnPodPriority"))
		}
	}
	return errs
}

// validatePlacement judges CPUs, memory and user IDs.
func validatePlacement(k *kubeletv1beta1.KubeletConfiguration) field.ErrorList {
	var errs field.ErrorList
	if cpus := k.ReservedSystemCPUs; cpus != "" {
		path := field.NewPath("reservedSystemCPUs")
		if _, err := cpuset.Parse(cpus); err != nil {
			errs = append(errs, field.Invalid(path, cpus, "must be a list of CPUs, as in 0-3,8"))
		}
		if k.SystemReservedCgroup != "" || k.KubeReservedCgroup != "" {
			errs = append(errs, field.Forbidden(path, "cannot be together with systemReservedCgroup or kubeReservedCgroup"))
		}
	}
	if factor := *k.MemoryThrottlingFactor; !(factor > 0 && factor <= 1) {
		errs = append(errs, field.Invalid(field.NewPath("memoryThrottlingFactor"), factor, "must be more than 0 and at most 1"))
	}
	if k.MemoryReservationPolicy != kubeletv1beta1.NoneMemoryReservationPolicy && !gateEnabled(k.FeatureGates, "MemoryQoS") {
		errs = append(errs, field.Forbidden(field.NewPath("memoryReservationPolicy"), "needs the feature gate MemoryQoS"))
	}
	type key struct {
		node int32
		name corev1.ResourceName
	}
	seen := map[key]bool{}
	for i, reservation := range k.ReservedMemory {
		for name, quantity := range reservation.Limits {
			path := field.NewPath("reservedMemory").Index(i).Child("limits").Key(string(name))
			if name != corev1.ResourceMemory && !strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
				errs = append(errs, field.NotSupported(path, name, []corev1.ResourceName{"memory", "hugepages-<size>"}))
			}
			if quantity.Sign() <= 0 {
				errs = append(errs, field.Invalid(path, quantity.String(), "must be more than 0"))
			}
			if seen[key{reservation.NumaNode, name}] {
				errs = append(errs, field.Duplicate(path, reservation.NumaNode))
			}
			seen[key{reservation.NumaNode, name}] = true
		}
	}
	if u := k.UserNamespaces; u != nil && u.IDsPerPod != nil {
		if ids := *u.IDsPerPod; ids < usernsUnit || ids%usernsUnit != 0 || ids > math.MaxUint32 {
			errs = append(errs, field.Invalid(field.NewPath("userNamespaces", "idsPerPod"), ids, "must be a multiple of 65536, and less than 4294967296"))
		}
	}
	return errs
}
