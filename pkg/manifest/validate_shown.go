package manifest

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateShown covers the volumes whose files the agent writes (behaviour rows
// 1.12-6, 1.12-7, 1.12-12).
func validateShown(v *v1.VolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	paths := shownPaths{}
	if c := v.ConfigMap; c != nil {
		at := at.Child("configMap")
		errs = append(errs, required(at.Child("name"), c.Name)...)
		errs = append(errs, validateMode(c.DefaultMode, at.Child("defaultMode"))...)
		errs = append(errs, validateItems(c.Items, at.Child("items"))...)
	}
	if s := v.Secret; s != nil {
		at := at.Child("secret")
		errs = append(errs, required(at.Child("secretName"), s.SecretName)...)
		errs = append(errs, validateMode(s.DefaultMode, at.Child("defaultMode"))...)
		errs = append(errs, validateItems(s.Items, at.Child("items"))...)
	}
	if d := v.DownwardAPI; d != nil {
		at := at.Child("downwardAPI")
		errs = append(errs, validateMode(d.DefaultMode, at.Child("defaultMode"))...)
		errs = append(errs, validateDownwardItems(d.Items, at.Child("items"))...)
	}
	if p := v.Projected; p != nil {
		at := at.Child("projected")
		errs = append(errs, validateMode(p.DefaultMode, at.Child("defaultMode"))...)
		for i := range p.Sources {
			errs = append(errs, paths.validate(&p.Sources[i], at.Child("sources").Index(i))...)
		}
	}
	return errs
}

// shownPaths are those that the sources of a projected volume name: two of them
// at one path would hide one another.
type shownPaths sets.Set[string]

func (s shownPaths) validate(p *v1.VolumeProjection, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if countSet(p) != 1 {
		return field.ErrorList{field.Invalid(at, "", "must have exactly one source")}
	}
	switch {
	case p.ConfigMap != nil:
		at := at.Child("configMap")
		errs = append(errs, required(at.Child("name"), p.ConfigMap.Name)...)
		errs = append(errs, validateItems(p.ConfigMap.Items, at.Child("items"))...)
		errs = append(errs, s.addItems(p.ConfigMap.Items, at.Child("items"))...)
	case p.Secret != nil:
		at := at.Child("secret")
		errs = append(errs, required(at.Child("name"), p.Secret.Name)...)
		errs = append(errs, validateItems(p.Secret.Items, at.Child("items"))...)
		errs = append(errs, s.addItems(p.Secret.Items, at.Child("items"))...)
	case p.DownwardAPI != nil:
		at := at.Child("downwardAPI", "items")
		errs = append(errs, validateDownwardItems(p.DownwardAPI.Items, at)...)
		for i, item := range p.DownwardAPI.Items {
			errs = append(errs, s.add(item.Path, at.Index(i).Child("path"))...)
		}
	}
	return errs
}

func (s shownPaths) addItems(items []v1.KeyToPath, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, item := range items {
		errs = append(errs, s.add(item.Path, at.Index(i).Child("path"))...)
	}
	return errs
}

func (s shownPaths) add(path string, at *field.Path) field.ErrorList {
	all := sets.Set[string](s)
	if path != "" && all.Has(path) {
		return field.ErrorList{field.Duplicate(at, path)}
	}
	all.Insert(path)
	return nil
}

func validateItems(items []v1.KeyToPath, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, item := range items {
		at := at.Index(i)
		errs = append(errs, required(at.Child("key"), item.Key)...)
		errs = append(errs, shownPath(at.Child("path"), item.Path)...)
		errs = append(errs, validateMode(item.Mode, at.Child("mode"))...)
	}
	return errs
}

// shownPath refuses what could leave the volume, and what its writer has for
// itself.
func shownPath(at *field.Path, path string) field.ErrorList {
	errs := relativePath(at, path, true)
	if len(errs) == 0 && strings.HasPrefix(path, "..") {
		errs = append(errs, field.Invalid(at, path, "must not start with '..'"))
	}
	return errs
}

func required(at *field.Path, value string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return nil
}
