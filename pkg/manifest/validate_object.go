package manifest

import (
	"encoding/json"
	"slices"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxObject is the size in bytes of all values of a ConfigMap or Secret.
const maxObject = v1.MaxSecretSize

// hidden stands for what a secret holds, in errors.
const hidden = "(not shown)"

// DefaultSecret does what an apiserver does when a Secret is written: stringData
// goes into data and wins there.
func DefaultSecret(s *v1.Secret) {
	setIfZero(&s.Type, v1.SecretTypeOpaque)
	for key, value := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
}

// ValidateConfigMap says what an apiserver would have refused.
func ValidateConfigMap(c *v1.ConfigMap) field.ErrorList {
	errs := validateObjectMeta(&c.ObjectMeta, true)
	size := 0
	for key, value := range c.Data {
		size += len(value)
		errs = append(errs, checkName(field.NewPath("data").Key(key), key, validation.IsConfigMapKey)...)
		if _, again := c.BinaryData[key]; again {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(key), key, "is in binaryData too"))
		}
	}
	for key, value := range c.BinaryData {
		size += len(value)
		errs = append(errs, checkName(field.NewPath("binaryData").Key(key), key, validation.IsConfigMapKey)...)
	}
	return append(errs, boundedSize(size)...)
}

// ValidateSecret says what an apiserver would have refused of a Secret that
// DefaultSecret has seen. No error shows a value.
func ValidateSecret(s *v1.Secret) field.ErrorList {
	errs := validateObjectMeta(&s.ObjectMeta, true)
	size := 0
	for key, value := range s.Data {
		size += len(value)
		errs = append(errs, checkName(field.NewPath("data").Key(key), key, validation.IsConfigMapKey)...)
	}
	return append(append(errs, boundedSize(size)...), validateSecretType(s)...)
}

// validateSecretType checks that what the type promises is there.
func validateSecretType(s *v1.Secret) field.ErrorList {
	var errs field.ErrorList
	need := func(keys ...string) {
		for _, key := range keys {
			if _, ok := s.Data[key]; !ok {
				errs = append(errs, field.Required(field.NewPath("data").Key(key), "belongs to a secret of type "+string(s.Type)))
			}
		}
	}
	needJSON := func(key string) {
		need(key)
		if raw, ok := s.Data[key]; ok && json.Unmarshal(raw, &map[string]any{}) != nil {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(key), hidden, "must be a JSON object"))
		}
	}
	switch s.Type {
	case v1.SecretTypeDockercfg:
		needJSON(v1.DockerConfigKey)
	case v1.SecretTypeDockerConfigJson:
		needJSON(v1.DockerConfigJsonKey)
	case v1.SecretTypeSSHAuth:
		if len(s.Data[v1.SSHAuthPrivateKey]) == 0 {
			errs = append(errs, field.Required(field.NewPath("data").Key(v1.SSHAuthPrivateKey), "belongs to a secret of type "+string(s.Type)))
		}
	case v1.SecretTypeTLS:
		need(v1.TLSCertKey, v1.TLSPrivateKeyKey)
	case v1.SecretTypeBasicAuth:
		_, name := s.Data[v1.BasicAuthUsernameKey]
		if _, password := s.Data[v1.BasicAuthPasswordKey]; !name && !password {
			need(v1.BasicAuthUsernameKey, v1.BasicAuthPasswordKey)
		}
	case v1.SecretTypeServiceAccountToken:
		if s.Annotations[v1.ServiceAccountNameKey] == "" {
			errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(v1.ServiceAccountNameKey), ""))
		}
	}
	return errs
}

// ValidateRuntimeClass says what an apiserver would have refused.
func ValidateRuntimeClass(c *nodev1.RuntimeClass) field.ErrorList {
	errs := validateObjectMeta(&c.ObjectMeta, false)
	errs = append(errs, checkName(field.NewPath("handler"), c.Handler, validation.IsDNS1123Label)...)
	if c.Overhead != nil {
		errs = append(errs, validateResources(&v1.ResourceRequirements{Limits: c.Overhead.PodFixed}, field.NewPath("overhead"))...)
	}
	if s := c.Scheduling; s != nil {
		at := field.NewPath("scheduling")
		errs = append(errs, metavalidation.ValidateLabels(s.NodeSelector, at.Child("nodeSelector"))...)
		errs = append(errs, validateTolerations(s.Tolerations, at.Child("tolerations"))...)
	}
	return errs
}

func validateObjectMeta(meta *metav1.ObjectMeta, namespaced bool) field.ErrorList {
	path := field.NewPath("metadata")
	errs := apivalidation.ValidateObjectMeta(meta, namespaced, apivalidation.NameIsDNSSubdomain, path)
	// It speaks of generateName, which only an apiserver can follow.
	return slices.DeleteFunc(errs, func(e *field.Error) bool { return e.Field == "metadata.generateName" })
}

func boundedSize(size int) field.ErrorList {
	if size <= maxObject {
		return nil
	}
	return field.ErrorList{field.TooLong(field.NewPath("data"), "", maxObject)}
}
