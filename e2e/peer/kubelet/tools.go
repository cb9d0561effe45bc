//go:build tools

// Package kubelet pins the peer's program in this module, so that
// `go build k8s.io/kubernetes/cmd/kubelet` works here with this module's
// versions and nothing else has to be fetched.
package kubelet

import (
	_ "k8s.io/kubernetes/cmd/kubelet"
)
