package manifest

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func validatePodSecurity(spec *v1.PodSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ptr.Deref(spec.ShareProcessNamespace, false) && spec.HostPID {
		errs = append(errs, field.Invalid(at.Child("shareProcessNamespace"), true, "may not be given beside hostPID"))
	}
	if !ptr.Deref(spec.HostUsers, true) {
		for name, set := range map[string]bool{"hostNetwork": spec.HostNetwork, "hostPID": spec.HostPID, "hostIPC": spec.HostIPC} {
			if set {
				errs = append(errs, field.Forbidden(at.Child(name), "when hostUsers is false"))
			}
		}
	}
	s, at := spec.SecurityContext, at.Child("securityContext")
	if s == nil {
		return errs
	}
	errs = append(errs, validateIDs(s.RunAsUser, s.RunAsGroup, at)...)
	if s.FSGroup != nil {
		for _, msg := range validation.IsValidGroupID(*s.FSGroup) {
			errs = append(errs, field.Invalid(at.Child("fsGroup"), *s.FSGroup, msg))
		}
	}
	for i, gid := range s.SupplementalGroups {
		for _, msg := range validation.IsValidGroupID(gid) {
			errs = append(errs, field.Invalid(at.Child("supplementalGroups").Index(i), gid, msg))
		}
	}
	if s.FSGroupChangePolicy != nil {
		errs = append(errs, oneOf(at.Child("fsGroupChangePolicy"), *s.FSGroupChangePolicy, v1.FSGroupChangeAlways, v1.FSGroupChangeOnRootMismatch)...)
	}
	if s.SupplementalGroupsPolicy != nil {
		errs = append(errs, oneOf(at.Child("supplementalGroupsPolicy"), *s.SupplementalGroupsPolicy,
			v1.SupplementalGroupsPolicyMerge, v1.SupplementalGroupsPolicyStrict)...)
	}
	seen := map[string]bool{}
	for i, sysctl := range s.Sysctls {
		at := at.Child("sysctls").Index(i).Child("name")
		if sysctl.Name == "" || strings.ContainsAny(sysctl.Name, " \t\n") || climbs(sysctl.Name) {
			errs = append(errs, field.Invalid(at, sysctl.Name, "must be the name of a sysctl"))
		} else if seen[sysctl.Name] {
			errs = append(errs, field.Duplicate(at, sysctl.Name))
		}
		seen[sysctl.Name] = true
	}
	errs = append(errs, validateSeccomp(s.SeccompProfile, at.Child("seccompProfile"))...)
	return append(errs, validateAppArmor(s.AppArmorProfile, at.Child("appArmorProfile"))...)
}

func validateSecurity(s *v1.SecurityContext, spec *v1.PodSpec, at *field.Path) field.ErrorList {
	if s == nil {
		return nil
	}
	errs := validateIDs(s.RunAsUser, s.RunAsGroup, at)
	if s.ProcMount != nil {
		errs = append(errs, oneOf(at.Child("procMount"), *s.ProcMount, v1.DefaultProcMount, v1.UnmaskedProcMount)...)
		if *s.ProcMount == v1.UnmaskedProcMount && ptr.Deref(spec.HostUsers, true) {
			errs = append(errs, field.Invalid(at.Child("procMount"), *s.ProcMount, "hostUsers must be false for Unmasked"))
		}
	}
	if !ptr.Deref(s.AllowPrivilegeEscalation, true) {
		if ptr.Deref(s.Privileged, false) {
			errs = append(errs, field.Invalid(at.Child("allowPrivilegeEscalation"), false, "must not be false when privileged is true"))
		}
		if s.Capabilities != nil && slices.Contains(s.Capabilities.Add, "CAP_SYS_ADMIN") {
			errs = append(errs, field.Invalid(at.Child("allowPrivilegeEscalation"), false, "must not be false when CAP_SYS_ADMIN is added"))
		}
	}
	errs = append(errs, validateSeccomp(s.SeccompProfile, at.Child("seccompProfile"))...)
	return append(errs, validateAppArmor(s.AppArmorProfile, at.Child("appArmorProfile"))...)
}

func validateIDs(user, group *int64, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if user != nil {
		for _, msg := range validation.IsValidUserID(*user) {
			errs = append(errs, field.Invalid(at.Child("runAsUser"), *user, msg))
		}
	}
	if group != nil {
		for _, msg := range validation.IsValidGroupID(*group) {
			errs = append(errs, field.Invalid(at.Child("runAsGroup"), *group, msg))
		}
	}
	return errs
}

// validateSeccomp: the profile's path is taken below the agent's seccomp folder.
func validateSeccomp(p *v1.SeccompProfile, at *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	errs := oneOf(at.Child("type"), p.Type, v1.SeccompProfileTypeLocalhost, v1.SeccompProfileTypeRuntimeDefault, v1.SeccompProfileTypeUnconfined)
	switch local := ptr.Deref(p.LocalhostProfile, ""); {
	case p.Type == v1.SeccompProfileTypeLocalhost:
		errs = append(errs, relativePath(at.Child("localhostProfile"), local, true)...)
	case p.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(at.Child("localhostProfile"), local, "may be set only when type is Localhost"))
	}
	return errs
}

func validateAppArmor(p *v1.AppArmorProfile, at *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	errs := oneOf(at.Child("type"), p.Type, v1.AppArmorProfileTypeLocalhost, v1.AppArmorProfileTypeRuntimeDefault, v1.AppArmorProfileTypeUnconfined)
	local := ptr.Deref(p.LocalhostProfile, "")
	switch {
	case p.Type == v1.AppArmorProfileTypeLocalhost && strings.TrimSpace(local) == "":
		errs = append(errs, field.Required(at.Child("localhostProfile"), "must be set when type is Localhost"))
	case p.Type != v1.AppArmorProfileTypeLocalhost && p.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(at.Child("localhostProfile"), local, "may be set only when type is Localhost"))
	}
	return errs
}
