package config

import (
	"runtime"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

const (
	// AgentVersion is the version of this agent.
	AgentVersion = "0.1.0"
	// KubernetesVersion is the release whose kubelet the agent stands in for.
	KubernetesVersion = "v1.36.3"
)

// Version is the answer to `kubelet --version`. kubeadm takes the second word
// for the kubelet's version and compares it with its own.
func Version() string {
	return "Kubernetes " + GitVersion()
}

// GitVersion is KubernetesVersion with the agent's own as build metadata. It is
// what a node reports as its kubeletVersion.
func GitVersion() string {
	return KubernetesVersion + "+nodeagent." + AgentVersion
}

// Release is the major and minor number of KubernetesVersion, as in 1.36.
func Release() string {
	parts := strings.SplitN(strings.TrimPrefix(KubernetesVersion, "v"), ".", 3)
	return parts[0] + "." + parts[1]
}

// previousRelease is the one before Release.
func previousRelease() string {
	return version.MustParseMajorMinor(Release()).OffsetMinor(-1).String()
}

// RawVersion is the answer to `kubelet --version=raw`.
func RawVersion() string {
	return "nodeagent " + AgentVersion + ", Kubernetes " + KubernetesVersion + ", " +
		runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH
}
