package volumes

import v1 "k8s.io/api/core/v1"

// plugins are the kinds of volumes by the names that metrics know them by, those
// of the kubelet's plugins.
var plugins = map[string]string{
	"emptyDir": "kubernetes.io/empty-dir", "hostPath": "kubernetes.io/host-path", "configMap": "kubernetes.io/configmap",
	"secret": "kubernetes.io/secret", "downwardAPI": "kubernetes.io/downward-api", "projected": "kubernetes.io/projected",
	"image": "kubernetes.io/image", "csi": "kubernetes.io/csi", "nfs": "kubernetes.io/nfs", "iscsi": "kubernetes.io/iscsi",
	"fc": "kubernetes.io/fc",
}

// Plugin is the volume's kind in metrics; N/A for one that isn't there.
func Plugin(vol *v1.Volume) string { return pluginOf(source(vol)) }

func pluginOf(source string) string {
	if name, ok := plugins[source]; ok {
		return name
	}
	return "N/A"
}
