package manifest

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Kinds that stand beside the pods when there is no apiserver.
const (
	secrets    = "secrets"
	configMaps = "configmaps"
)

// refuseReferences refuses what a static pod can't have (behaviour row 1.1-10):
// one error for each field that refers to it. Without an apiserver ConfigMaps
// and Secrets stand beside the pods, and may be referred to.
func refuseReferences(spec *v1.PodSpec, joined bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	refuse := func(at *field.Path, resource string) {
		if kind, _, _ := strings.Cut(resource, " "); !joined && (kind == secrets || kind == configMaps) {
			return
		}
		errs = append(errs, field.Forbidden(at, "static pods may not reference "+resource))
	}
	if spec.ServiceAccountName != "" {
		refuse(path.Child("serviceAccountName"), "serviceaccounts")
	}
	for i := range spec.ImagePullSecrets {
		refuse(path.Child("imagePullSecrets").Index(i), secrets)
	}
	if len(spec.ResourceClaims) > 0 {
		refuse(path.Child("resourceClaims"), "resourceclaims")
	}
	for i := range spec.Volumes {
		volumeReference(&spec.Volumes[i].VolumeSource, path.Child("volumes").Index(i), refuse)
	}
	for i := range spec.InitContainers {
		containerReferences(&spec.InitContainers[i], path.Child("initContainers").Index(i), refuse)
	}
	for i := range spec.Containers {
		containerReferences(&spec.Containers[i], path.Child("containers").Index(i), refuse)
	}
	return errs
}

func containerReferences(c *v1.Container, path *field.Path, refuse func(*field.Path, string)) {
	for i, from := range c.EnvFrom {
		at := path.Child("envFrom").Index(i)
		switch {
		case from.SecretRef != nil:
			refuse(at.Child("secretRef"), secrets)
		case from.ConfigMapRef != nil:
			refuse(at.Child("configMapRef"), configMaps)
		}
	}
	for i, env := range c.Env {
		at := path.Child("env").Index(i).Child("valueFrom")
		switch {
		case env.ValueFrom == nil:
		case env.ValueFrom.SecretKeyRef != nil:
			refuse(at.Child("secretKeyRef"), secrets)
		case env.ValueFrom.ConfigMapKeyRef != nil:
			refuse(at.Child("configMapKeyRef"), configMaps)
		}
	}
	for i := range c.Resources.Claims {
		refuse(path.Child("resources", "claims").Index(i), "resourceclaims")
	}
}

func volumeReference(v *v1.VolumeSource, path *field.Path, refuse func(*field.Path, string)) {
	switch {
	case v.Secret != nil:
		refuse(path.Child("secret"), secrets+" (via secret volumes)")
	case v.ConfigMap != nil:
		refuse(path.Child("configMap"), configMaps+" (via configmap volumes)")
	case v.PersistentVolumeClaim != nil:
		refuse(path.Child("persistentVolumeClaim"), "persistentvolumeclaims")
	case v.Ephemeral != nil:
		refuse(path.Child("ephemeral"), "persistentvolumeclaims (via ephemeral volumes)")
	case v.CSI != nil:
		refuse(path.Child("csi"), "csidrivers (via CSI volumes)")
	case v.Glusterfs != nil:
		refuse(path.Child("glusterfs"), "endpoints (via glusterFS volumes)")
	case v.AzureFile != nil:
		refuse(path.Child("azureFile"), secrets+" (via azureFile volumes)")
	case v.ISCSI != nil && v.ISCSI.SecretRef != nil:
		refuse(path.Child("iscsi", "secretRef"), secrets)
	case v.FlexVolume != nil && v.FlexVolume.SecretRef != nil:
		refuse(path.Child("flexVolume", "secretRef"), secrets)
	case v.RBD != nil && v.RBD.SecretRef != nil:
		refuse(path.Child("rbd", "secretRef"), secrets)
	case v.CephFS != nil && v.CephFS.SecretRef != nil:
		refuse(path.Child("cephfs", "secretRef"), secrets)
	case v.Cinder != nil && v.Cinder.SecretRef != nil:
		refuse(path.Child("cinder", "secretRef"), secrets)
	case v.ScaleIO != nil && v.ScaleIO.SecretRef != nil:
		refuse(path.Child("scaleIO", "secretRef"), secrets)
	case v.StorageOS != nil && v.StorageOS.SecretRef != nil:
		refuse(path.Child("storageos", "secretRef"), secrets)
	case v.Projected != nil:
		for i := range v.Projected.Sources {
			projectedReference(&v.Projected.Sources[i], path.Child("projected", "sources").Index(i), refuse)
		}
	}
}

func projectedReference(s *v1.VolumeProjection, path *field.Path, refuse func(*field.Path, string)) {
	switch {
	case s.Secret != nil:
		refuse(path.Child("secret"), secrets+" (via projected volumes)")
	case s.ConfigMap != nil:
		refuse(path.Child("configMap"), configMaps+" (via projected volumes)")
	case s.ServiceAccountToken != nil:
		refuse(path.Child("serviceAccountToken"), "serviceaccounts (via projected volumes)")
	case s.ClusterTrustBundle != nil:
		refuse(path.Child("clusterTrustBundle"), "clustertrustbundles")
	case s.PodCertificate != nil:
		refuse(path.Child("podCertificate"), "podcertificates")
	}
}
