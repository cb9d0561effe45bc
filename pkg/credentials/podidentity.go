package credentials

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// PodIdentity is what pods of this node show others to prove who they are, and
// what they check others by. It is kept in memory alone.
type PodIdentity struct {
	client   kubernetes.Interface
	nodeName string
	tokens   tokens
	bundles  *bundles

	certificates podCertificates
}

// NewPodIdentity asks nobody yet.
func NewPodIdentity(client kubernetes.Interface, nodeName string) *PodIdentity {
	return &PodIdentity{client: client, nodeName: nodeName, bundles: newBundles(client),
		tokens: tokens{held: map[tokenKey]token{}}, certificates: podCertificates{held: map[certKey]podCertificate{}}}
}

// Run watches what pods trust, and calls renewed for those whose volumes are to
// show something else, until ctx ends. renewed must not block.
func (i *PodIdentity) Run(ctx context.Context, renewed func(types.UID)) error {
	return i.bundles.run(ctx, renewed)
}

// Forget all that is kept for the pod.
func (i *PodIdentity) Forget(uid types.UID) {
	i.tokens.forget(func(k tokenKey, _ token) bool { return k.pod == uid })
	i.bundles.forget(uid)
	i.certificates.forget(uid)
}
