package manifest

import (
	"path"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateVolumes also gives the volumes that have a name, for mounts to refer
// to: a mount of a volume that is wrong otherwise is no second error.
func validateVolumes(volumes []v1.Volume, at *field.Path) (map[string]v1.VolumeSource, field.ErrorList) {
	var errs field.ErrorList
	named := make(map[string]v1.VolumeSource, len(volumes))
	for i := range volumes {
		v, at := &volumes[i], at.Index(i)
		errs = append(errs, checkName(at.Child("name"), v.Name, validation.IsDNS1123Label)...)
		if _, ok := named[v.Name]; ok && v.Name != "" {
			errs = append(errs, field.Duplicate(at.Child("name"), v.Name))
		}
		named[v.Name] = v.VolumeSource
		if countSet(&v.VolumeSource) > 1 {
			errs = append(errs, field.Forbidden(at, "may not have more than one type of volume"))
		}
		errs = append(errs, validateVolume(&v.VolumeSource, at)...)
	}
	return named, errs
}

func validateVolume(v *v1.VolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if v.EmptyDir != nil && v.EmptyDir.SizeLimit != nil && v.EmptyDir.SizeLimit.Sign() < 0 {
		errs = append(errs, field.Invalid(at.Child("emptyDir", "sizeLimit"), v.EmptyDir.SizeLimit.String(), "must be 0 or more"))
	}
	if v.HostPath != nil {
		errs = append(errs, validateHostPath(v.HostPath, at.Child("hostPath"))...)
	}
	if v.Image != nil {
		if v.Image.Reference == "" {
			errs = append(errs, field.Required(at.Child("image", "reference"), ""))
		}
		errs = append(errs, oneOf(at.Child("image", "pullPolicy"), v.Image.PullPolicy, v1.PullAlways, v1.PullIfNotPresent, v1.PullNever)...)
	}
	if v.NFS != nil {
		if v.NFS.Server == "" {
			errs = append(errs, field.Required(at.Child("nfs", "server"), ""))
		}
		if !path.IsAbs(v.NFS.Path) {
			errs = append(errs, field.Invalid(at.Child("nfs", "path"), v.NFS.Path, "must be an absolute path"))
		}
	}
	return append(errs, validateShown(v, at)...)
}

func validateHostPath(h *v1.HostPathVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case h.Path == "":
		errs = append(errs, field.Required(at.Child("path"), ""))
	case !path.IsAbs(h.Path):
		errs = append(errs, field.Invalid(at.Child("path"), h.Path, "must be an absolute path"))
	case climbs(h.Path):
		errs = append(errs, field.Invalid(at.Child("path"), h.Path, "must not contain '..'"))
	}
	if h.Type != nil && *h.Type != v1.HostPathUnset {
		errs = append(errs, oneOf(at.Child("type"), *h.Type, v1.HostPathDirectoryOrCreate, v1.HostPathDirectory,
			v1.HostPathFileOrCreate, v1.HostPathFile, v1.HostPathSocket, v1.HostPathCharDev, v1.HostPathBlockDev)...)
	}
	return errs
}

// volumeFieldPaths are what fieldRef of a downward API file may name.
var volumeFieldPaths = sets.New("metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations")

func validateDownwardItems(items []v1.DownwardAPIVolumeFile, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, item := range items {
		at := at.Index(i)
		errs = append(errs, shownPath(at.Child("path"), item.Path)...)
		errs = append(errs, validateMode(item.Mode, at.Child("mode"))...)
		if (item.FieldRef == nil) == (item.ResourceFieldRef == nil) {
			errs = append(errs, field.Invalid(at, "", "must have either fieldRef or resourceFieldRef"))
		}
		errs = append(errs, validateFieldRef(item.FieldRef, volumeFieldPaths, at.Child("fieldRef"))...)
		if item.ResourceFieldRef != nil {
			errs = append(errs, validateResourceFieldRef(item.ResourceFieldRef, true, at.Child("resourceFieldRef"))...)
		}
	}
	return errs
}

func validateFieldRef(ref *v1.ObjectFieldSelector, allowed sets.Set[string], at *field.Path) field.ErrorList {
	if ref == nil {
		return nil
	}
	errs := oneOf(at.Child("apiVersion"), ref.APIVersion, "v1")
	name := ref.FieldPath
	if base, key, ok := strings.Cut(strings.TrimSuffix(name, "']"), "['"); ok && strings.HasSuffix(name, "']") {
		if base != "metadata.labels" && base != "metadata.annotations" {
			return append(errs, field.Invalid(at.Child("fieldPath"), name, "only labels and annotations have keys"))
		}
		if base == "metadata.annotations" {
			key = strings.ToLower(key)
		}
		return append(errs, checkName(at.Child("fieldPath"), key, validation.IsQualifiedName)...)
	}
	return append(errs, oneOf(at.Child("fieldPath"), name, sets.List(allowed)...)...)
}

// containerResources are what resourceFieldRef may name, after limits. or
// requests.
var containerResources = sets.New("cpu", "memory", "ephemeral-storage")

func validateResourceFieldRef(ref *v1.ResourceFieldSelector, needsContainer bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if needsContainer && ref.ContainerName == "" {
		errs = append(errs, field.Required(at.Child("containerName"), ""))
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	if kind != "limits" && kind != "requests" || !containerResources.Has(name) && !isHugePage(v1.ResourceName(name)) {
		errs = append(errs, field.Invalid(at.Child("resource"), ref.Resource, "must be limits. or requests. of cpu, memory, ephemeral-storage or hugepages"))
	}
	divisors := byteDivisors
	if name == "cpu" {
		divisors = cpuDivisors
	}
	if d := ref.Divisor; !d.IsZero() && !divisors.Has(d.String()) {
		errs = append(errs, field.NotSupported(at.Child("divisor"), d.String(), sets.List(divisors)))
	}
	return errs
}

// What resourceFieldRef may divide by.
var (
	cpuDivisors  = sets.New("1m", "1")
	byteDivisors = sets.New("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
)

func validateMode(mode *int32, at *field.Path) field.ErrorList {
	if mode == nil || *mode >= 0 && *mode <= 0o777 {
		return nil
	}
	return field.ErrorList{field.Invalid(at, *mode, "must be between 0 and 0777 (octal)")}
}

// relativePath refuses a path that could leave the folder it is taken in.
func relativePath(at *field.Path, p string, required bool) field.ErrorList {
	switch {
	case p == "" && required:
		return field.ErrorList{field.Required(at, "")}
	case path.IsAbs(p):
		return field.ErrorList{field.Invalid(at, p, "must be a relative path")}
	case climbs(p):
		return field.ErrorList{field.Invalid(at, p, "must not contain '..'")}
	}
	return nil
}

func climbs(p string) bool { return slices.Contains(strings.Split(p, "/"), "..") }
