package objects

import (
	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Mentions says whether the pod refers to any of the objects.
func Mentions(p *v1.Pod, changed map[Key]bool) bool {
	if len(changed) == 0 {
		return false
	}
	found := false
	Visit(p, func(k Key) { found = found || changed[k] })
	return found
}

// Visit calls seen for every object that the pod refers to, for some more than
// once: those that it names, and the services that its variables tell of.
func Visit(p *v1.Pod, seen func(Key)) {
	named := func(kind, name string) {
		if name != "" {
			seen(Key{kind, p.Namespace, name})
		}
	}
	if c := p.Spec.RuntimeClassName; c != nil {
		seen(Key{Kind: RuntimeClass, Name: *c})
	}
	for _, s := range p.Spec.ImagePullSecrets {
		named(Secret, s.Name)
	}
	for i := range p.Spec.Volumes {
		visitVolume(&p.Spec.Volumes[i], named)
	}
	for c := range pod.Containers(p) {
		visitEnv(c.Env, c.EnvFrom, named)
	}
	for _, k := range servicesOf(p) {
		seen(k)
	}
}

func visitVolume(v *v1.Volume, named func(kind, name string)) {
	switch {
	case v.ConfigMap != nil:
		named(ConfigMap, v.ConfigMap.Name)
	case v.Secret != nil:
		named(Secret, v.Secret.SecretName)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				named(ConfigMap, s.ConfigMap.Name)
			}
			if s.Secret != nil {
				named(Secret, s.Secret.Name)
			}
		}
	}
}

func visitEnv(env []v1.EnvVar, from []v1.EnvFromSource, named func(kind, name string)) {
	for _, f := range from {
		if f.ConfigMapRef != nil {
			named(ConfigMap, f.ConfigMapRef.Name)
		}
		if f.SecretRef != nil {
			named(Secret, f.SecretRef.Name)
		}
	}
	for _, e := range env {
		switch {
		case e.ValueFrom == nil:
		case e.ValueFrom.ConfigMapKeyRef != nil:
			named(ConfigMap, e.ValueFrom.ConfigMapKeyRef.Name)
		case e.ValueFrom.SecretKeyRef != nil:
			named(Secret, e.ValueFrom.SecretKeyRef.Name)
		}
	}
}
