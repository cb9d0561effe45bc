package manifest

import (
	"math"
	"regexp"
	"strings"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// annotationMirror marks the copy of a static pod in an apiserver.
const annotationMirror = v1.MirrorPodAnnotationKey

// safeUID is what may become an element of a path.
var safeUID = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?$`)

// Validate says what keeps a defaulted static pod from running here. It checks
// what an apiserver would have refused, as far as it bears on running the pod,
// and references to objects that only an apiserver has (behaviour row 1.1-10):
// joined to one these are all objects, else those that no source has beside pods.
func Validate(pod *v1.Pod, joined bool) field.ErrorList {
	errs := validateMeta(pod, field.NewPath("metadata"))
	spec := field.NewPath("spec")
	errs = append(errs, validateSpec(&pod.Spec, spec)...)
	volumes, volumeErrs := validateVolumes(pod.Spec.Volumes, spec.Child("volumes"))
	errs = append(errs, volumeErrs...)
	errs = append(errs, validateContainers(&pod.Spec, volumes, spec)...)
	errs = append(errs, validatePodResources(&pod.Spec, spec.Child("resources"))...)
	return append(errs, refuseReferences(&pod.Spec, joined, spec)...)
}

func validateMeta(pod *v1.Pod, path *field.Path) field.ErrorList {
	errs := apivalidation.ValidateObjectMeta(&pod.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, path)
	if !safeUID.MatchString(string(pod.UID)) {
		errs = append(errs, field.Invalid(path.Child("uid"), pod.UID, "must be at most 64 letters, digits and dashes: it names folders and cgroups"))
	}
	if pod.DeletionTimestamp != nil {
		errs = append(errs, field.Forbidden(path.Child("deletionTimestamp"), "may not be set in a manifest: remove the file to delete the pod"))
	}
	if _, ok := pod.Annotations[annotationMirror]; ok {
		errs = append(errs, field.Forbidden(path.Child("annotations").Key(annotationMirror), "marks the apiserver's copy of a static pod and may not be set in a manifest"))
	}
	return errs
}

func validateSpec(spec *v1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, oneOf(path.Child("restartPolicy"), spec.RestartPolicy,
		v1.RestartPolicyAlways, v1.RestartPolicyOnFailure, v1.RestartPolicyNever)...)
	errs = append(errs, oneOf(path.Child("dnsPolicy"), spec.DNSPolicy,
		v1.DNSClusterFirst, v1.DNSClusterFirstWithHostNet, v1.DNSDefault, v1.DNSNone)...)
	errs = append(errs, notNegative(path.Child("terminationGracePeriodSeconds"), spec.TerminationGracePeriodSeconds)...)
	if d := spec.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > math.MaxInt32) {
		errs = append(errs, field.Invalid(path.Child("activeDeadlineSeconds"), *d, validation.InclusiveRangeError(1, math.MaxInt32)))
	}
	errs = append(errs, optionalName(path.Child("hostname"), spec.Hostname, validation.IsDNS1123Label)...)
	errs = append(errs, optionalName(path.Child("subdomain"), spec.Subdomain, validation.IsDNS1123Label)...)
	errs = append(errs, validateHostnameOverride(spec, path.Child("hostnameOverride"))...)
	errs = append(errs, optionalName(path.Child("nodeName"), spec.NodeName, validation.IsDNS1123Subdomain)...)
	errs = append(errs, optionalName(path.Child("priorityClassName"), spec.PriorityClassName, validation.IsDNS1123Subdomain)...)
	if spec.RuntimeClassName != nil {
		for _, msg := range validation.IsDNS1123Subdomain(*spec.RuntimeClassName) {
			errs = append(errs, field.Invalid(path.Child("runtimeClassName"), *spec.RuntimeClassName, msg))
		}
	}
	if spec.OS != nil {
		errs = append(errs, oneOf(path.Child("os", "name"), spec.OS.Name, v1.Linux)...)
	}
	if len(spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(path.Child("ephemeralContainers"), "may not be set when a pod is created"))
	}
	if len(spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(path.Child("schedulingGates"), "may not be set on a pod that has its node"))
	}
	errs = append(errs, metavalidation.ValidateLabels(spec.NodeSelector, path.Child("nodeSelector"))...)
	errs = append(errs, validateDNSConfig(spec, path.Child("dnsConfig"))...)
	errs = append(errs, validateHostAliases(spec.HostAliases, path.Child("hostAliases"))...)
	errs = append(errs, validateTolerations(spec.Tolerations, path.Child("tolerations"))...)
	return append(errs, validatePodSecurity(spec, path)...)
}

// Limits of a resolver configuration (behaviour §1.8).
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

func validateDNSConfig(spec *v1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	c := spec.DNSConfig
	if spec.DNSPolicy == v1.DNSNone && (c == nil || len(c.Nameservers) == 0) {
		errs = append(errs, field.Required(path.Child("nameservers"), "must name a server when dnsPolicy is None"))
	}
	if c == nil {
		return errs
	}
	if n := len(c.Nameservers); n > maxNameservers {
		errs = append(errs, field.TooMany(path.Child("nameservers"), n, maxNameservers))
	}
	for i, server := range c.Nameservers {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Child("nameservers").Index(i), server, false, nil)...)
	}
	if n := len(c.Searches); n > maxSearches {
		errs = append(errs, field.TooMany(path.Child("searches"), n, maxSearches))
	}
	if n := len(strings.Join(c.Searches, " ")); n > maxSearchChars {
		errs = append(errs, field.TooLong(path.Child("searches"), "", maxSearchChars))
	}
	for i, search := range c.Searches {
		if search == "." {
			continue
		}
		for _, msg := range validation.IsDNS1123SubdomainWithUnderscore(strings.TrimSuffix(search, ".")) {
			errs = append(errs, field.Invalid(path.Child("searches").Index(i), search, msg))
		}
	}
	for i, option := range c.Options {
		if option.Name == "" {
			errs = append(errs, field.Required(path.Child("options").Index(i).Child("name"), ""))
		}
	}
	return errs
}

// maxHostname is how long a machine's name may be for the kernel.
const maxHostname = 64

// validateHostnameOverride: the name is the pod's alone, and whole.
func validateHostnameOverride(spec *v1.PodSpec, path *field.Path) field.ErrorList {
	if spec.HostnameOverride == nil {
		return nil
	}
	var errs field.ErrorList
	if spec.HostNetwork {
		errs = append(errs, field.Forbidden(path, "when hostNetwork is true"))
	}
	if ptr.Deref(spec.SetHostnameAsFQDN, false) {
		errs = append(errs, field.Forbidden(path, "when setHostnameAsFQDN is true"))
	}
	if len(*spec.HostnameOverride) > maxHostname {
		errs = append(errs, field.TooLong(path, "", maxHostname))
	}
	for _, msg := range validation.IsDNS1123Subdomain(*spec.HostnameOverride) {
		errs = append(errs, field.Invalid(path, *spec.HostnameOverride, msg))
	}
	return errs
}

func validateHostAliases(aliases []v1.HostAlias, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, alias := range aliases {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Index(i).Child("ip"), alias.IP, false, nil)...)
		for j, name := range alias.Hostnames {
			for _, msg := range validation.IsDNS1123Subdomain(name) {
				errs = append(errs, field.Invalid(path.Index(i).Child("hostnames").Index(j), name, msg))
			}
		}
	}
	return errs
}

func validateTolerations(tolerations []v1.Toleration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, t := range tolerations {
		at := path.Index(i)
		if t.Key == "" && t.Operator != v1.TolerationOpExists {
			errs = append(errs, field.Invalid(at.Child("operator"), t.Operator, "must be Exists when key is empty"))
		}
		if t.Key != "" {
			errs = append(errs, metavalidation.ValidateLabelName(t.Key, at.Child("key"))...)
		}
		if t.Operator == v1.TolerationOpExists && t.Value != "" {
			errs = append(errs, field.Invalid(at.Child("value"), t.Value, "must be empty when operator is Exists"))
		}
		if t.Operator != "" {
			errs = append(errs, oneOf(at.Child("operator"), t.Operator, v1.TolerationOpExists, v1.TolerationOpEqual)...)
		}
		if t.Effect != "" {
			errs = append(errs, oneOf(at.Child("effect"), t.Effect, v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute)...)
		}
		if t.TolerationSeconds != nil && t.Effect != v1.TaintEffectNoExecute {
			errs = append(errs, field.Invalid(at.Child("effect"), t.Effect, "must be NoExecute when tolerationSeconds is set"))
		}
	}
	return errs
}

// oneOf refuses a value that isn't among those supported.
func oneOf[T ~string](path *field.Path, value T, supported ...T) field.ErrorList {
	if sets.New(supported...).Has(value) {
		return nil
	}
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return field.ErrorList{field.NotSupported(path, value, supported)}
}

func optionalName(path *field.Path, name string, check func(string) []string) field.ErrorList {
	if name == "" {
		return nil
	}
	return checkName(path, name, check)
}

// checkName refuses an absent name, or one that check has something against.
func checkName(path *field.Path, name string, check func(string) []string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	for _, msg := range check(name) {
		errs = append(errs, field.Invalid(path, name, msg))
	}
	return errs
}

func notNegative[T int32 | int64](path *field.Path, value *T) field.ErrorList {
	if value == nil || *value >= 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, *value, "must be 0 or more")}
}
