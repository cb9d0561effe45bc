package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// Identity is what proves to others which pod this is, and whom the pod may
// trust. What it gives is kept, so that asking again asks nobody until renewal
// is due. With an error it may give something too: older, but it still holds.
type Identity interface {
	// Token of the pod's service account, bound to the pod, and when to ask for
	// the next.
	Token(ctx context.Context, p *v1.Pod, from *v1.ServiceAccountTokenProjection) (token []byte, renew time.Time, err error)
	// TrustBundle is PEM. The pod is told when it changes.
	TrustBundle(ctx context.Context, p *v1.Pod, from *v1.ClusterTrustBundleProjection) ([]byte, error)
	// Certificate for the source of that index in the volume: key and chain are
	// PEM. The pod is told when a request for it is decided.
	Certificate(ctx context.Context, p *v1.Pod, volume string, index int, from *v1.PodCertificateProjection) (key, chain []byte, renew time.Time, err error)
	// Forget all that is kept for the pod.
	Forget(uid types.UID)
}

// content is what a volume is to show.
type content struct {
	files payload
	// renew is when to look again though nothing has changed, zero for never.
	renew time.Time
	// older says why something of it is older than it should be, nil if nothing is.
	older error
	// stale says that what is shown already may be newer.
	stale bool
}

// renewAt has the content looked at again at t, at the latest.
func (c *content) renewAt(t time.Time) { c.renew = earlier(c.renew, t) }

// earlier of two times of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

var errNoIdentity = errors.New("it needs an apiserver, and the agent has none")

// showToken adds the token of the pod's service account (behaviour row 1.12-10).
func (s shower) showToken(ctx context.Context, out *content, p *v1.Pod, from *v1.ServiceAccountTokenProjection, mode *int32) error {
	if s.identity == nil {
		return fmt.Errorf("serviceAccountToken: %w", errNoIdentity)
	}
	token, renew, err := s.identity.Token(ctx, p, from)
	if err != nil {
		err = fmt.Errorf("serviceAccountToken: %w", err)
	}
	if token == nil {
		return err
	}
	out.older = err
	out.renewAt(renew)
	return out.files.put(from.Path, private(p, token, mode))
}

// showBundle adds certificates of authorities (behaviour row 1.12-11).
func (s shower) showBundle(ctx context.Context, out *content, p *v1.Pod, from *v1.ClusterTrustBundleProjection, mode *int32) error {
	if s.identity == nil {
		return fmt.Errorf("clusterTrustBundle: %w", errNoIdentity)
	}
	pem, err := s.identity.TrustBundle(ctx, p, from)
	if err != nil {
		return fmt.Errorf("clusterTrustBundle: %w", err)
	}
	return out.files.put(from.Path, private(p, pem, mode))
}

// certificate is a source of that kind, and where it stands in the pod.
type certificate struct {
	volume string
	index  int
	from   *v1.PodCertificateProjection
}

// showCertificate adds the pod's certificate and its key (behaviour row 1.12-11).
func (s shower) showCertificate(ctx context.Context, out *content, p *v1.Pod, c certificate, mode *int32) error {
	if s.identity == nil {
		return fmt.Errorf("podCertificate: %w", errNoIdentity)
	}
	key, chain, renew, err := s.identity.Certificate(ctx, p, c.volume, c.index, c.from)
	if err != nil {
		err = fmt.Errorf("podCertificate: %w", err)
	}
	if key == nil {
		return err
	}
	out.older = err
	out.renewAt(renew)
	for _, f := range []struct {
		path string
		data []byte
	}{
		{c.from.CredentialBundlePath, slices.Concat(key, chain)}, {c.from.KeyPath, key}, {c.from.CertificateChainPath, chain},
	} {
		if f.path == "" {
			continue
		}
		if err := out.files.put(f.path, private(p, f.data, mode)); err != nil {
			return err
		}
	}
	return nil
}

// private is a file that is for the pod's own users: those of its fsGroup, or
// the one that all its containers run as. If it has neither, nobody knows who
// is to read it, and the volume's mode counts (behaviour row 1.12-10).
func private(p *v1.Pod, data []byte, mode *int32) file {
	f := file{data: data, mode: modeOf(nil, mode), owner: commonUser(p)}
	if f.owner != nil || p.Spec.SecurityContext != nil && p.Spec.SecurityContext.FSGroup != nil {
		f.mode = fs.FileMode(0o600)
	}
	return f
}

// commonUser is the user that all containers of the pod are told to run as, nil
// if there is no such.
func commonUser(p *v1.Pod) *int64 {
	var common *int64
	for c := range pod.Containers(p) {
		var user *int64
		if sc := p.Spec.SecurityContext; sc != nil {
			user = sc.RunAsUser
		}
		if sc := c.SecurityContext; sc != nil && sc.RunAsUser != nil {
			user = sc.RunAsUser
		}
		if user == nil || common != nil && *common != *user {
			return nil
		}
		common = user
	}
	return common
}
