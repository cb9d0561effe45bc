package credentials

import (
	"context"
	"errors"
	"time"

	v1 "k8s.io/api/core/v1"
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
}

// NewPodIdentity asks nobody yet.
func NewPodIdentity(client kubernetes.Interface, nodeName string) *PodIdentity {
	return &PodIdentity{client: client, nodeName: nodeName, tokens: tokens{held: map[tokenKey]token{}}, bundles: newBundles(client)}
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
}

// Certificate is not built yet.
func (i *PodIdentity) Certificate(context.Context, *v1.Pod, string, int, *v1.PodCertificateProjection) (key, chain []byte, renew time.Time, err error) {
	return nil, nil, renew, errors.New("certificates of pods are not built yet")
}
