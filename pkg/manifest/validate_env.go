package manifest

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateEnv(env []v1.EnvVar, volumes map[string]v1.VolumeSource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, e := range env {
		at := path.Index(i)
		errs = append(errs, checkName(at.Child("name"), e.Name, validation.IsRelaxedEnvVarName)...)
		if e.ValueFrom == nil {
			continue
		}
		at = at.Child("valueFrom")
		if e.Value != "" {
			errs = append(errs, field.Forbidden(at, "may not be given beside value"))
		}
		switch countSet(e.ValueFrom) {
		case 1:
		case 0:
			errs = append(errs, field.Required(at, "must name a source"))
		default:
			errs = append(errs, field.Forbidden(at, "may not name more than one source"))
		}
		errs = append(errs, validateFieldRef(e.ValueFrom.FieldRef, envFieldPaths, at.Child("fieldRef"))...)
		if ref := e.ValueFrom.ResourceFieldRef; ref != nil {
			errs = append(errs, validateResourceFieldRef(ref, false, at.Child("resourceFieldRef"))...)
		}
		if ref := e.ValueFrom.ConfigMapKeyRef; ref != nil {
			errs = append(errs, validateKeyRef(ref.Name, ref.Key, at.Child("configMapKeyRef"))...)
		}
		if ref := e.ValueFrom.SecretKeyRef; ref != nil {
			errs = append(errs, validateKeyRef(ref.Name, ref.Key, at.Child("secretKeyRef"))...)
		}
		if ref := e.ValueFrom.FileKeyRef; ref != nil {
			errs = append(errs, validateFileKeyRef(ref, volumes, at.Child("fileKeyRef"))...)
		}
	}
	return errs
}

// validateKeyRef checks a reference to a key of a ConfigMap or Secret.
func validateKeyRef(name, key string, path *field.Path) field.ErrorList {
	errs := checkName(path.Child("name"), name, validation.IsDNS1123Subdomain)
	return append(errs, checkName(path.Child("key"), key, validation.IsConfigMapKey)...)
}

func validateEnvFrom(from *v1.EnvFromSource, path *field.Path) field.ErrorList {
	errs := optionalName(path.Child("prefix"), from.Prefix, validation.IsRelaxedEnvVarName)
	switch {
	case from.ConfigMapRef == nil && from.SecretRef == nil:
		errs = append(errs, field.Required(path, "must name a source"))
	case from.ConfigMapRef != nil && from.SecretRef != nil:
		errs = append(errs, field.Forbidden(path, "may not name more than one source"))
	case from.ConfigMapRef != nil:
		errs = append(errs, checkName(path.Child("configMapRef", "name"), from.ConfigMapRef.Name, validation.IsDNS1123Subdomain)...)
	default:
		errs = append(errs, checkName(path.Child("secretRef", "name"), from.SecretRef.Name, validation.IsDNS1123Subdomain)...)
	}
	return errs
}

func validateFileKeyRef(ref *v1.FileKeySelector, volumes map[string]v1.VolumeSource, path *field.Path) field.ErrorList {
	errs := checkName(path.Child("key"), ref.Key, validation.IsRelaxedEnvVarName)
	if volume, ok := volumes[ref.VolumeName]; !ok {
		errs = append(errs, field.NotFound(path.Child("volumeName"), ref.VolumeName))
	} else if volume.EmptyDir == nil {
		errs = append(errs, field.Invalid(path.Child("volumeName"), ref.VolumeName, "must name a volume of type emptyDir"))
	}
	return append(errs, relativePath(path.Child("path"), ref.Path, true)...)
}
