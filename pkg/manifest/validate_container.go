package manifest

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// validateContainers checks main and init containers. volumes are those that
// are sound themselves.
func validateContainers(spec *v1.PodSpec, volumes map[string]v1.VolumeSource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(spec.Containers) == 0 {
		errs = append(errs, field.Required(path.Child("containers"), "a pod must have a container"))
	}
	names := sets.New[string]()
	ports := sets.New[string]() // main containers and sidecars run side by side
	for i := range spec.Containers {
		c, at := &spec.Containers[i], path.Child("containers").Index(i)
		errs = append(errs, validateContainer(c, names, volumes, spec, at)...)
		errs = append(errs, validateHooksAndProbes(c, spec.TerminationGracePeriodSeconds, at)...)
		errs = append(errs, validateHostPorts(c.Ports, ports, spec.HostNetwork, at.Child("ports"))...)
	}
	for i := range spec.InitContainers {
		c, at := &spec.InitContainers[i], path.Child("initContainers").Index(i)
		errs = append(errs, validateContainer(c, names, volumes, spec, at)...)
		if ptr.Deref(c.RestartPolicy, "") == v1.ContainerRestartPolicyAlways {
			errs = append(errs, validateHooksAndProbes(c, spec.TerminationGracePeriodSeconds, at)...)
		} else {
			errs = append(errs, refuseHooksAndProbes(c, at)...)
		}
		// An apiserver lets an init container share a host port with a main
		// container, even a sidecar; it isn't stricter here.
		errs = append(errs, validateHostPorts(c.Ports, sets.New[string](), false, at.Child("ports"))...)
	}
	return errs
}

// validateContainer checks what main and init containers have in common, and
// notes the name in names.
func validateContainer(c *v1.Container, names sets.Set[string], volumes map[string]v1.VolumeSource, spec *v1.PodSpec, path *field.Path) field.ErrorList {
	errs := checkName(path.Child("name"), c.Name, validation.IsDNS1123Label)
	if c.Name != "" && names.Has(c.Name) {
		errs = append(errs, field.Duplicate(path.Child("name"), c.Name))
	}
	names.Insert(c.Name)
	if c.Image == "" {
		errs = append(errs, field.Required(path.Child("image"), ""))
	} else if strings.TrimSpace(c.Image) != c.Image {
		errs = append(errs, field.Invalid(path.Child("image"), c.Image, "must not begin or end with white space"))
	}
	errs = append(errs, oneOf(path.Child("imagePullPolicy"), c.ImagePullPolicy, v1.PullAlways, v1.PullIfNotPresent, v1.PullNever)...)
	errs = append(errs, oneOf(path.Child("terminationMessagePolicy"), c.TerminationMessagePolicy,
		v1.TerminationMessageReadFile, v1.TerminationMessageFallbackToLogsOnError)...)
	errs = append(errs, validateRestartRules(c, path)...)
	errs = append(errs, validatePorts(c.Ports, path.Child("ports"))...)
	errs = append(errs, validateEnv(c.Env, volumes, path.Child("env"))...)
	for i := range c.EnvFrom {
		errs = append(errs, validateEnvFrom(&c.EnvFrom[i], path.Child("envFrom").Index(i))...)
	}
	errs = append(errs, validateMounts(c, volumes, path)...)
	errs = append(errs, validateResources(&c.Resources, path.Child("resources"))...)
	return append(errs, validateSecurity(c.SecurityContext, spec, path.Child("securityContext"))...)
}

// Bounds of restart rules (behaviour §1.4).
const (
	maxRestartRules = 20
	maxExitCodes    = 255
)

func validateRestartRules(c *v1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case c.RestartPolicy != nil:
		errs = append(errs, oneOf(path.Child("restartPolicy"), *c.RestartPolicy,
			v1.ContainerRestartPolicyAlways, v1.ContainerRestartPolicyOnFailure, v1.ContainerRestartPolicyNever)...)
	case len(c.RestartPolicyRules) > 0:
		errs = append(errs, field.Required(path.Child("restartPolicy"), "must be given beside restartPolicyRules"))
	}
	rules := path.Child("restartPolicyRules")
	if n := len(c.RestartPolicyRules); n > maxRestartRules {
		errs = append(errs, field.TooMany(rules, n, maxRestartRules))
	}
	for i, rule := range c.RestartPolicyRules {
		errs = append(errs, oneOf(rules.Index(i).Child("action"), rule.Action,
			v1.ContainerRestartRuleActionRestart, v1.ContainerRestartRuleActionRestartAllContainers)...)
		codes := rules.Index(i).Child("exitCodes")
		if rule.ExitCodes == nil {
			errs = append(errs, field.Required(codes, ""))
			continue
		}
		errs = append(errs, oneOf(codes.Child("operator"), rule.ExitCodes.Operator,
			v1.ContainerRestartRuleOnExitCodesOpIn, v1.ContainerRestartRuleOnExitCodesOpNotIn)...)
		if n := len(rule.ExitCodes.Values); n > maxExitCodes {
			errs = append(errs, field.TooMany(codes.Child("values"), n, maxExitCodes))
		}
	}
	return errs
}

func validatePorts(ports []v1.ContainerPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i, p := range ports {
		at := path.Index(i)
		errs = append(errs, optionalName(at.Child("name"), p.Name, validation.IsValidPortName)...)
		if p.Name != "" && names.Has(p.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
		}
		names.Insert(p.Name)
		for _, msg := range validation.IsValidPortNum(int(p.ContainerPort)) {
			errs = append(errs, field.Invalid(at.Child("containerPort"), p.ContainerPort, msg))
		}
		if p.HostPort != 0 {
			for _, msg := range validation.IsValidPortNum(int(p.HostPort)) {
				errs = append(errs, field.Invalid(at.Child("hostPort"), p.HostPort, msg))
			}
		}
		if p.HostIP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(at.Child("hostIP"), p.HostIP, false, nil)...)
		}
		errs = append(errs, oneOf(at.Child("protocol"), p.Protocol, v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolSCTP)...)
	}
	return errs
}

// validateHostPorts refuses two claims of one port of the host, noting each in
// taken, and on the host's network a host port other than the container's.
func validateHostPorts(ports []v1.ContainerPort, taken sets.Set[string], hostNetwork bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, p := range ports {
		at := path.Index(i).Child("hostPort")
		if hostNetwork && p.HostPort != p.ContainerPort {
			errs = append(errs, field.Invalid(at, p.HostPort, "must match containerPort when hostNetwork is true"))
		}
		if p.HostPort == 0 {
			continue
		}
		claim := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
		if taken.Has(claim) {
			errs = append(errs, field.Duplicate(at, claim))
		}
		taken.Insert(claim)
	}
	return errs
}

// envFieldPaths are what fieldRef of an environment variable may name.
var envFieldPaths = sets.New("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
	"spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs")

func validateMounts(c *v1.Container, volumes map[string]v1.VolumeSource, container *field.Path) field.ErrorList {
	var errs field.ErrorList
	paths := sets.New[string]()
	for i, m := range c.VolumeMounts {
		at := container.Child("volumeMounts").Index(i)
		if _, ok := volumes[m.Name]; !ok {
			errs = append(errs, field.NotFound(at.Child("name"), m.Name))
		}
		if m.MountPath == "" {
			errs = append(errs, field.Required(at.Child("mountPath"), ""))
		} else if paths.Has(m.MountPath) {
			errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must be unique"))
		}
		paths.Insert(m.MountPath)
		errs = append(errs, relativePath(at.Child("subPath"), m.SubPath, false)...)
		errs = append(errs, relativePath(at.Child("subPathExpr"), m.SubPathExpr, false)...)
		if m.SubPath != "" && m.SubPathExpr != "" {
			errs = append(errs, field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "may not be given beside subPath"))
		}
		errs = append(errs, validatePropagation(m, c.SecurityContext, at)...)
	}
	// Block devices come from claims alone, which a static pod can't have.
	for i, d := range c.VolumeDevices {
		errs = append(errs, field.Invalid(container.Child("volumeDevices").Index(i).Child("name"), d.Name, "must name a persistent volume claim of mode Block"))
	}
	return errs
}

func validatePropagation(m v1.VolumeMount, security *v1.SecurityContext, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	mode := ptr.Deref(m.MountPropagation, v1.MountPropagationNone)
	errs = append(errs, oneOf(path.Child("mountPropagation"), mode,
		v1.MountPropagationNone, v1.MountPropagationHostToContainer, v1.MountPropagationBidirectional)...)
	if mode == v1.MountPropagationBidirectional && (security == nil || !ptr.Deref(security.Privileged, false)) {
		errs = append(errs, field.Forbidden(path.Child("mountPropagation"), "Bidirectional is for privileged containers only"))
	}
	recursive := ptr.Deref(m.RecursiveReadOnly, v1.RecursiveReadOnlyDisabled)
	at := path.Child("recursiveReadOnly")
	errs = append(errs, oneOf(at, recursive, v1.RecursiveReadOnlyDisabled, v1.RecursiveReadOnlyIfPossible, v1.RecursiveReadOnlyEnabled)...)
	if recursive != v1.RecursiveReadOnlyDisabled && !m.ReadOnly {
		errs = append(errs, field.Forbidden(at, "may be given only when readOnly is true"))
	}
	if recursive != v1.RecursiveReadOnlyDisabled && mode != v1.MountPropagationNone {
		errs = append(errs, field.Forbidden(at, "may be given only when mountPropagation is None"))
	}
	return errs
}
