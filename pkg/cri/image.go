package cri

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	credentialproviderv1 "k8s.io/kubelet/pkg/apis/credentialprovider/v1"

	"github.com/nodeagent/nodeagent/pkg/metrics"
)

// ImageOptions say how images are pulled.
type ImageOptions struct {
	// MaxParallel pulls at a time; 0 means 1, as serializeImagePulls does,
	// and a negative number no limit (behaviour row 1.10-7).
	MaxParallel int
	// QPS and Burst bound how many pulls begin per second; a QPS of 0 is no
	// bound. A pull beyond them waits for its turn (behaviour row 1.10-6).
	QPS   float64
	Burst int
	// Plugins know credentials besides those of pull secrets and of the node's
	// docker configs, and come after them (behaviour row 1.10-8).
	Plugins []CredentialPlugin
}

// CredentialPlugin knows credentials of some registries.
type CredentialPlugin interface {
	// Images are the patterns of the images that it is to be asked about: hosts,
	// maybe with port and path, each part of a host maybe a glob.
	Images() []string
	// Credentials are by such patterns too. It may take a minute.
	Credentials(ctx context.Context, repository string) map[string]credentialproviderv1.AuthConfig
}

// imageName is what goes to the runtime, tag ":latest" added where there is
// neither tag nor digest, and the repository in full for the choice of
// credentials (behaviour row 1.10-1).
func imageName(image string) (name, repository string, err error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", "", fmt.Errorf("image %q: %w", image, err)
	}
	if reference.IsNameOnly(named) {
		image += ":latest"
	}
	return image, named.Name(), nil
}

// PullRequest says what for and how an image is pulled.
type PullRequest struct {
	Container string
	// Secrets have credentials that are tried before the node's own.
	Secrets []*v1.Secret
	// Begun is called when the image has to be fetched, with words for people;
	// it must not block.
	Begun func(message string)
	// Queued is called when the pull waits for its turn among those of the node,
	// with what that is, and with "" when it has it; it must not block. Nil for
	// nobody.
	Queued func(what string)
}

// Pull makes the container's image present as its policy says, and after it the
// images that it mounts as volumes. ref is what to create from, message how it
// went, for people (behaviour rows 1.10-3, 1.10-4).
//
// Pods that want the same image with the same credentials share one pull, which
// ends early when the last of them gives up.
func (c *Client) Pull(ctx context.Context, p *v1.Pod, r PullRequest) (ref, message string, err error) {
	k, err := containerNamed(p, r.Container)
	if err != nil {
		return "", "", failed(ReasonConfig, "pull image", err)
	}
	if ref, message, err = c.pull(ctx, p, k, r); err != nil {
		return "", "", err
	}
	for _, v := range imageVolumes(p, k) {
		_, more, err := c.pull(ctx, p, v, r)
		if err != nil {
			return "", "", err
		}
		message += "; for a volume: " + more
	}
	return ref, message, nil
}

// pull makes one image present.
func (c *Client) pull(ctx context.Context, p *v1.Pod, k *v1.Container, r PullRequest) (ref, message string, err error) {
	name, repository, err := imageName(k.Image)
	if err != nil {
		e := failed(ReasonInvalidImage, "pull image", err)
		e.Message = fmt.Sprintf("Failed to apply default image tag %q: %v", k.Image, err)
		return "", "", e
	}
	policy, present := pullPolicy(k, name), metrics.Unknown
	count := func(pulled bool) { c.opts.Metrics.Image(string(policy), present, pulled) }
	if policy != v1.PullAlways {
		image, err := c.imageStatus(ctx, name)
		switch {
		case err != nil:
			count(false)
			e := failed(ReasonInspect, "inspect image "+name, err)
			e.Message = fmt.Sprintf("Failed to inspect image %q: %s", k.Image, e.Message)
			return "", "", e
		case image != nil:
			present = metrics.Yes
			count(false)
			return image.Id, fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", k.Image), nil
		}
		if present = metrics.No; policy == v1.PullNever {
			count(false)
			e := failed(ReasonNeverPull, "pull image "+name, errors.New("it is not present and its pull policy is Never"))
			e.Message = fmt.Sprintf("Container image %q is not present with pull policy of Never", k.Image)
			return "", "", e
		}
	}
	began := time.Now()
	count(true)
	r.Begun(fmt.Sprintf("Pulling image %q", k.Image))
	creds, err := c.credentials(ctx, repository, r.Secrets)
	if err != nil {
		return "", "", failed(ReasonPull, "pull image "+name, err)
	}
	got, err := c.pulls.do(ctx, pullKey(name, creds), r.Queued, func(ctx context.Context) (pullResult, error) {
		return c.fetch(ctx, p, name, creds)
	})
	if err != nil {
		return "", "", pullError(name, err)
	}
	c.opts.Metrics.Pulled(got.size, time.Since(began))
	message = fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %d bytes.",
		k.Image, got.took.Truncate(time.Millisecond), time.Since(began).Truncate(time.Millisecond), got.size)
	return got.ref, message, nil
}

func pullPolicy(k *v1.Container, name string) v1.PullPolicy {
	switch {
	case k.ImagePullPolicy != "":
		return k.ImagePullPolicy
	case strings.HasSuffix(name, ":latest"):
		return v1.PullAlways
	}
	return v1.PullIfNotPresent
}

// imageStatus is nil without an error when the image is not present.
func (c *Client) imageStatus(ctx context.Context, name string) (*runtimeapi.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	r, err := c.image.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
	if err != nil && !gone(err) {
		return nil, err
	}
	if image := r.GetImage(); strings.HasPrefix(image.GetId(), "sha256:") {
		c.users.Store(image.Id, userOf(image))
	}
	return r.GetImage(), nil
}

// pullResult is what a pull brought.
type pullResult struct {
	ref  string
	size uint64
	took time.Duration
}

// fetch pulls with each of the credentials in turn until one works.
func (c *Client) fetch(ctx context.Context, p *v1.Pod, name string, creds []*runtimeapi.AuthConfig) (pullResult, error) {
	began := time.Now()
	if len(creds) == 0 {
		creds = []*runtimeapi.AuthConfig{nil}
	}
	req := &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: name, Annotations: p.Annotations},
		SandboxConfig: &runtimeapi.PodSandboxConfig{
			Metadata:    &runtimeapi.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID)},
			Labels:      sandboxLabels(p),
			Annotations: p.Annotations,
		},
	}
	var errs []error
	for _, req.Auth = range creds {
		r, err := c.image.PullImage(ctx, req)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		got := pullResult{ref: r.ImageRef, took: time.Since(began)}
		// The size is for people: a failure to learn it fails nothing.
		if image, err := c.imageStatus(ctx, r.ImageRef); err == nil {
			got.size = image.GetSize()
		}
		return got, nil
	}
	return pullResult{}, errors.Join(errs...)
}

// pullError says why people's image is not there.
func pullError(name string, err error) *Error {
	e := failed(ReasonPull, "pull image "+name, err)
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []string
		for _, one := range joined.Unwrap() {
			all = append(all, message(one))
		}
		e.Message = strings.Join(all, "; ")
	}
	for reason, why := range map[string]string{
		ReasonRegistry:  "the registry is unavailable",
		ReasonSignature: "the signature validation failed",
	} {
		if rest, ok := strings.CutPrefix(e.Message, reason); ok {
			e.Reason = reason
			e.Message = fmt.Sprintf("image pull failed for %s because %s%s", name, why, rest)
		}
	}
	return e
}
