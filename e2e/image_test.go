package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	containerimage "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// push puts the lab's busybox under a name of its own into the registry.
func (b *bed) push(r *lab.Registry, repositoryTag string) (ref string, digest containerimage.Hash) {
	b.t.Helper()
	tag, err := name.NewTag(lab.BusyboxImage)
	b.must(err)
	image, err := tarball.ImageFromPath(b.Images.Tarball, &tag)
	b.must(err)
	ref, err = r.Push(context.Background(), repositoryTag, image)
	b.must(err)
	digest, err = image.Digest()
	b.must(err)
	return ref, digest
}

func (b *bed) registry(o lab.RegistryOptions) *lab.Registry {
	b.t.Helper()
	r, err := b.Lab.Registry(o)
	b.must(err)
	return r
}

func imagePod(name, image, policy string) string {
	return podOf(name, fmt.Sprintf(`
containers:
- {name: main, image: '%s', imagePullPolicy: %s, command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]}`, image, policy))
}

// TestRegistryWithCredentials: the node's docker config opens the registry, a
// wrong one gives the registry's own answer.
func TestRegistryWithCredentials(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	r := b.registry(lab.RegistryOptions{User: "lab", Password: "right"})
	ref, _ := b.push(r, "private:1")
	config := func(password string) {
		auth := base64.StdEncoding.EncodeToString([]byte("lab:" + password))
		b.must(os.WriteFile(filepath.Join(b.Root, "config.json"), []byte(fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.Host, auth)), 0o600))
	}
	config("wrong")
	b.start()
	b.apply("private", imagePod("private", ref, "Always"))
	_, s := b.await("private", "main", "has no image", waitsFor("ErrImagePull"))
	if !strings.Contains(s.State.Waiting.Message, "401") {
		t.Errorf("message %q doesn't have the registry's answer", s.State.Waiting.Message)
	}
	if strings.Contains(b.agentLog(), "wrong") {
		t.Error("the password is in the log")
	}
	config("right")
	b.ready("private") // at its next try, without a restart
	if r.Pulls("private") == 0 {
		t.Error("nothing was pulled")
	}
}

// TestPulls is what is fetched, by policy and reference.
func TestPulls(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	r := b.registry(lab.RegistryOptions{Delay: 50 * time.Millisecond})
	b.start()
	b.share(map[string]func(*bed){
		"ByDigest": func(b *bed) {
			_, digest := b.push(r, "pinned:1")
			b.apply("pinned", imagePod("pinned", r.Host+"/pinned@"+digest.String(), "IfNotPresent"))
			p := b.ready("pinned")
			if s := container(p, "main"); !strings.HasSuffix(s.ImageID, "@"+digest.String()) {
				b.t.Errorf("image ID %s, want digest %s", s.ImageID, digest)
			}
		},
		"WrongDigest": func(b *bed) {
			b.push(r, "pinned2:1")
			b.apply("wrongdigest", imagePod("wrongdigest", r.Host+"/pinned2@sha256:"+strings.Repeat("0", 64), "IfNotPresent"))
			b.await("wrongdigest", "main", "has no image", waitsFor("ErrImagePull"))
		},
		"Never": func(b *bed) {
			ref, _ := b.push(r, "never:1")
			b.apply("never", imagePod("never", ref, "Never"))
			b.await("never", "main", "has no image", waitsFor("ErrImageNeverPull"))
			if n := r.Pulls("never"); n != 0 {
				b.t.Errorf("%d pulls", n)
			}
		},
		"IfNotPresentOnce": func(b *bed) {
			ref, _ := b.push(r, "once:1")
			b.apply("once", imagePod("once", ref, "IfNotPresent"))
			b.ready("once")
			b.apply("once-more", imagePod("once-more", ref, "IfNotPresent"))
			b.ready("once-more")
			if n := r.Pulls("once"); n != 1 {
				b.t.Errorf("%d pulls, want 1", n)
			}
		},
		"AlwaysAgain": func(b *bed) {
			ref, _ := b.push(r, "always:1")
			b.apply("always", imagePod("always", ref, "Always"))
			b.ready("always")
			b.apply("always-more", imagePod("always-more", ref, "Always"))
			b.ready("always-more")
			if n := r.Pulls("always"); n != 2 {
				b.t.Errorf("%d pulls, want 2", n)
			}
		},
		"MissingTag": func(b *bed) {
			b.push(r, "tagged:1")
			b.apply("missing", imagePod("missing", r.Host+"/tagged:2", "IfNotPresent"))
			_, s := b.await("missing", "main", "has no image", waitsFor("ErrImagePull"))
			if !strings.Contains(s.State.Waiting.Message, "not found") {
				b.t.Errorf("message %q", s.State.Waiting.Message)
			}
			b.push(r, "tagged:2")
			p := b.ready("missing") // after its back-off
			if n := container(p, "main").RestartCount; n != 0 {
				b.t.Errorf("%d restarts", n)
			}
		},
	})
}

// TestOnePullForTwoPods: pods that want one image at once share one pull.
func TestOnePullForTwoPods(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	r := b.registry(lab.RegistryOptions{Delay: 500 * time.Millisecond})
	ref, _ := b.push(r, "shared:1")
	for i := range 4 {
		name := fmt.Sprintf("share%d", i)
		b.apply(name, imagePod(name, ref, "Always"))
	}
	b.start()
	for i := range 4 {
		b.ready(fmt.Sprintf("share%d", i))
	}
	if n := r.Pulls("shared"); n != 1 {
		t.Errorf("%d pulls, want 1", n)
	}
}

// TestPullIsGivenUp: a pod that goes while its image is pulled doesn't wait
// for the registry.
func TestPullIsGivenUp(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	r := b.registry(lab.RegistryOptions{Delay: time.Minute})
	b.start()
	b.apply("slow", imagePod("slow", r.Host+"/slow:1", "Always"))
	b.await("slow", "main", "is being made", func(s v1.ContainerStatus) bool { return s.State.Waiting != nil })
	b.eventually("it pulls", 30*time.Second, func() error {
		p := b.pod("slow")
		for _, d := range p.Doing {
			if strings.HasPrefix(d.Step, "pull/") {
				return nil
			}
		}
		return fmt.Errorf("it does %v", p.Doing)
	})
	began := time.Now()
	uid := string(b.pod("slow").UID)
	b.remove("slow")
	b.gone("slow", uid)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}
