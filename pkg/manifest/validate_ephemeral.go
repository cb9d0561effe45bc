package manifest

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateEphemeral checks debug containers as an apiserver does when they are
// added to a pod (behaviour row 1.4-7). names are those of the others.
func validateEphemeral(spec *v1.PodSpec, names sets.Set[string], volumes map[string]v1.VolumeSource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	targets := sets.New[string]()
	for _, list := range [][]v1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			targets.Insert(list[i].Name)
		}
	}
	for i := range spec.EphemeralContainers {
		e, at := &spec.EphemeralContainers[i], path.Index(i)
		c := (*v1.Container)(&e.EphemeralContainerCommon)
		errs = append(errs, validateContainer(c, names, volumes, spec, at)...)
		errs = append(errs, refuseForEphemeral(c, at)...)
		if t := e.TargetContainerName; t != "" && !targets.Has(t) {
			errs = append(errs, field.NotFound(at.Child("targetContainerName"), t))
		}
	}
	return errs
}

// refuseForEphemeral refuses what a container that nobody waits for, and for
// which nothing is set aside, cannot have.
func refuseForEphemeral(c *v1.Container, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"ports", len(c.Ports) > 0},
		{"livenessProbe", c.LivenessProbe != nil},
		{"readinessProbe", c.ReadinessProbe != nil},
		{"startupProbe", c.StartupProbe != nil},
		{"lifecycle", c.Lifecycle != nil},
		{"resources", len(c.Resources.Limits)+len(c.Resources.Requests)+len(c.Resources.Claims) > 0},
		{"resizePolicy", len(c.ResizePolicy) > 0},
		{"restartPolicy", c.RestartPolicy != nil},
		{"restartPolicyRules", len(c.RestartPolicyRules) > 0},
	} {
		if f.set {
			errs = append(errs, field.Forbidden(at.Child(f.name), "may not be set on an ephemeral container"))
		}
	}
	for i, m := range c.VolumeMounts {
		if m.SubPath != "" || m.SubPathExpr != "" {
			errs = append(errs, field.Forbidden(at.Child("volumeMounts").Index(i), "an ephemeral container may not mount a part of a volume"))
		}
	}
	return errs
}
