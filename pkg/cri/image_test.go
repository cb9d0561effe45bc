package cri

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	credentialproviderv1 "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
)

func TestImageName(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for _, c := range []struct{ image, name, repository string }{
		{"busybox", "busybox:latest", "docker.io/library/busybox"},
		{"busybox:1", "busybox:1", "docker.io/library/busybox"},
		{"me/app", "me/app:latest", "docker.io/me/app"},
		{"localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app"},
		{"example.com/a/b:1" + digest, "example.com/a/b:1" + digest, "example.com/a/b"},
		{"example.com/a/b" + digest, "example.com/a/b" + digest, "example.com/a/b"},
	} {
		name, repository, err := imageName(c.image)
		if err != nil || name != c.name || repository != c.repository {
			t.Errorf("%s: %q, %q, %v", c.image, name, repository, err)
		}
	}
	for _, image := range []string{"", "UPPER", "a b", "example.com/a:", "a@sha256:1", strings.Repeat("a", 64)} {
		if image == strings.Repeat("a", 64) {
			image = strings.Repeat("0", 64) // an ID is no name
		}
		if name, _, err := imageName(image); err == nil {
			t.Errorf("%q is taken as %q", image, name)
		}
	}
}

func TestLookup(t *testing.T) {
	cfg := map[string]dockerEntry{
		"example.com":                 {Username: "host"},
		"https://example.com/team/":   {Username: "team"},
		"example.com/team/app":        {Username: "app"},
		"*.glob.io":                   {Username: "glob"},
		"port.io:5000":                {Username: "port"},
		"https://index.docker.io/v1/": {Username: "hub"},
		"http://v2.io/v2/":            {Username: "v2"},
	}
	for _, c := range []struct{ repository, users string }{
		{"example.com/other", "host"},
		{"example.com/team/app", "app team host"},
		{"example.com/team/b", "team host"},
		{"a.glob.io/x", "glob"},
		{"glob.io/x", ""},
		{"a.b.glob.io/x", ""},
		{"port.io:5000/x", "port"},
		{"port.io/x", ""},
		{"docker.io/library/busybox", "hub"},
		{"v2.io/x", "v2"},
		{"unknown.io/x", ""},
	} {
		var users []string
		for _, a := range lookup(cfg, c.repository) {
			users = append(users, a.Username)
		}
		if got := strings.Join(users, " "); got != c.users {
			t.Errorf("%s: credentials of %q, want %q", c.repository, got, c.users)
		}
	}
}

func TestDecodeConfig(t *testing.T) {
	auth := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, c := range []struct {
		raw        string
		user, word string
	}{
		{`{"auths":{"r":{"username":"u","password":"p"}}}`, "u", "p"},
		{`{"auths":{"r":{"auth":"` + auth("u:p:q") + `"}}}`, "u", "p:q"},
		{`{"auths":{"r":{"auth":"` + strings.TrimRight(auth("u:p"), "=") + `","username":"other"}}}`, "u", "p"},
		{`{"auths":{"r":{"auth":"` + auth("u:pp") + `","extra":1}},"HttpHeaders":{}}`, "u", "pp"},
	} {
		cfg, err := decodeConfigJSON([]byte(c.raw))
		if err != nil || cfg["r"].Username != c.user || cfg["r"].Password != c.word {
			t.Errorf("%s: %+v, %v", c.raw, cfg, err)
		}
	}
	for _, raw := range []string{"", "[]", `{"auths":{"r":{"auth":"secret!"}}}`, `{"auths":{"r":{"auth":"` + auth("secret") + `"}}}`, `{"auths":{"r":"secret"}}`} {
		_, err := decodeConfigJSON([]byte(raw))
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v", raw, err)
		}
	}
}

// The first file that can be read counts, the older form only without one.
func TestNodeConfig(t *testing.T) {
	root, home := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Chdir(t.TempDir())
	write := func(path, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	user := func() string { return nodeConfig(root)["r"].Username }
	write(filepath.Join(home, ".dockercfg"), `{"r":{"username":"old"}}`)
	if got := user(); got != "old" {
		t.Errorf("old form alone: user %q", got)
	}
	write(filepath.Join(home, ".docker/config.json"), `{"auths":{"r":{"username":"home"}}}`)
	write(filepath.Join(root, "config.json"), `broken`)
	if got := user(); got != "home" {
		t.Errorf("a broken file before a good one: user %q", got)
	}
	write(filepath.Join(root, "config.json"), `{"auths":{"r":{"username":"root"}}}`)
	if got := user(); got != "root" {
		t.Errorf("all files: user %q", got)
	}
}

func TestPull(t *testing.T) {
	f := &fake{images: map[string]*runtimeapi.Image{"example.com/here:1": {Id: "id"}}, password: "p"}
	c := serve(t, f)
	if err := os.MkdirAll(c.opts.Pods.RootDir, 0o700); err != nil {
		t.Fatal(err)
	}
	config := `{"auths":{"example.com":{"username":"a","password":"wrong"},"example.com/app":{"username":"b","password":"p"},"example.com/ap":{"username":"c","password":"wrong"}}}`
	if err := os.WriteFile(filepath.Join(c.opts.Pods.RootDir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		image  string
		policy v1.PullPolicy
		ref    string
		reason string
		words  string
		fail   map[string]error
	}{
		{image: "example.com/here:1", policy: v1.PullIfNotPresent, ref: "id", words: "already present on machine"},
		{image: "example.com/here:1", policy: v1.PullNever, ref: "id", words: "already present"},
		{image: "example.com/app:1", policy: v1.PullNever, reason: ReasonNeverPull, words: "not present with pull policy of Never"},
		{image: "example.com/app:1", policy: v1.PullIfNotPresent, ref: "sha256:example.com/app:1", words: "Image size: 42 bytes."},
		{image: "example.com/app:1", policy: v1.PullIfNotPresent, ref: "sha256:example.com/app:1", words: "already present"},
		{image: "example.com/app", ref: "sha256:example.com/app:latest", words: "Successfully pulled image \"example.com/app\""},
		{image: "example.com/other:1", policy: v1.PullAlways, reason: ReasonPull, words: "denied to a"},
		{image: "Not A Name", policy: v1.PullAlways, reason: ReasonInvalidImage, words: "Not A Name"},
		{image: "example.com/app:1", policy: v1.PullIfNotPresent, reason: ReasonInspect, words: "sick", fail: map[string]error{"ImageStatus": status.Error(codes.Unknown, "sick")}},
		{image: "example.com/app:1", policy: v1.PullAlways, reason: ReasonRegistry, words: "because the registry is unavailable: no route", fail: map[string]error{"PullImage": status.Error(codes.Unknown, "RegistryUnavailable: no route")}},
		{image: "example.com/app:1", policy: v1.PullAlways, reason: ReasonSignature, words: "the signature validation failed", fail: map[string]error{"PullImage": status.Error(codes.Unknown, "SignatureValidationFailed")}},
	} {
		f.fail = test.fail
		p := web()
		p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = test.image, test.policy
		var begun []string
		ref, message, err := c.Pull(t.Context(), p, PullRequest{Container: "main", Begun: func(message string) { begun = append(begun, message) }})
		if err != nil {
			message = Failure(err).Message
		}
		if got := Failure(err); test.reason == "" && got != nil || test.reason != "" && (got == nil || got.Reason != test.reason) {
			t.Errorf("%s %s: failure %+v, want reason %q", test.policy, test.image, got, test.reason)
		}
		if ref != test.ref || !strings.Contains(message, test.words) {
			t.Errorf("%s %s: %q, %q; want %q, %q", test.policy, test.image, ref, message, test.ref, test.words)
		}
		fetched := test.reason == ReasonPull || test.reason == ReasonRegistry || test.reason == ReasonSignature || strings.Contains(message, "Successfully")
		if want := fmt.Sprintf("Pulling image %q", test.image); fetched != slices.Equal(begun, []string{want}) || !fetched && len(begun) > 0 {
			t.Errorf("%s %s: when it began to be fetched people were told %q", test.policy, test.image, begun)
		}
	}
}

// slow is a pull of a minute that counts how often and how many at once.
type slow struct{ began, now, most atomic.Int32 }

func (s *slow) pull(ctx context.Context) (pullResult, error) {
	s.began.Add(1)
	if n := s.now.Add(1); n > s.most.Load() {
		s.most.Store(n)
	}
	defer s.now.Add(-1)
	select {
	case <-time.After(time.Minute):
		return pullResult{ref: "done"}, nil
	case <-ctx.Done():
		return pullResult{}, ctx.Err()
	}
}

func TestPullIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slow
		pulls := newPulls(ImageOptions{})
		results := make(chan error, 10)
		want := func(ctx context.Context) {
			got, err := pulls.do(ctx, "key", nil, s.pull)
			if err == nil && got.ref != "done" {
				err = errors.New("nothing pulled")
			}
			results <- err
		}
		first, leave := context.WithCancel(t.Context())
		go want(first)
		for range 3 {
			go want(t.Context())
		}
		synctest.Wait()
		leave()
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("who leaves gets %v", err)
		}
		for range 3 {
			if err := <-results; err != nil {
				t.Errorf("who stays gets %v", err)
			}
		}
		if n := s.began.Load(); n != 1 || len(pulls.flying) != 0 {
			t.Errorf("%d pulls for four pods, %d flights left", n, len(pulls.flying))
		}
	})
}

func TestPullEndsWithItsLastUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slow
		pulls := newPulls(ImageOptions{})
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		results := make(chan error)
		for range 2 {
			go func() {
				_, err := pulls.do(ctx, "key", nil, s.pull)
				results <- err
			}()
		}
		for range 2 {
			if err := <-results; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
		synctest.Wait()
		if s.now.Load() != 0 || time.Since(began) != time.Second || len(pulls.flying) != 0 {
			t.Errorf("%d pulls go on after %v, %d flights left", s.now.Load(), time.Since(began), len(pulls.flying))
		}
		// The next who wants it begins anew.
		if _, err := pulls.do(t.Context(), "key", nil, s.pull); err != nil || s.began.Load() != 2 {
			t.Errorf("second pull: %v, %d began", err, s.began.Load())
		}
	})
}

func TestPullLimits(t *testing.T) {
	for _, c := range []struct {
		name string
		o    ImageOptions
		most int32
		took time.Duration
	}{
		{"one by one", ImageOptions{}, 1, 6 * time.Minute},
		{"three at a time", ImageOptions{MaxParallel: 3}, 3, 2 * time.Minute},
		{"no limit", ImageOptions{MaxParallel: -1}, 6, time.Minute},
		{"slow to begin", ImageOptions{MaxParallel: -1, QPS: 0.1, Burst: 2}, 6, time.Minute + 40*time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s slow
				pulls := newPulls(c.o)
				began := time.Now()
				results := make(chan error)
				for i := range 6 {
					go func() {
						_, err := pulls.do(t.Context(), string(rune('a'+i)), nil, s.pull)
						results <- err
					}()
				}
				for range 6 {
					if err := <-results; err != nil {
						t.Error(err)
					}
				}
				took := time.Since(began).Round(time.Second)
				if took != c.took || c.o.QPS == 0 && s.most.Load() != c.most {
					t.Errorf("took %v with %d at once, want %v with %d", took, s.most.Load(), c.took, c.most)
				}
			})
		})
	}
}

// Other credentials make another pull: none is served what another's opened.
func TestPullKey(t *testing.T) {
	a := []*runtimeapi.AuthConfig{{Username: "u", Password: "p"}}
	b := []*runtimeapi.AuthConfig{{Username: "u", Password: "q"}}
	if pullKey("x", a) == pullKey("x", b) || pullKey("x", a) == pullKey("x", nil) || pullKey("x", a) == pullKey("y", a) || pullKey("x", a) != pullKey("x", slices.Clone(a)) {
		t.Error("keys do not tell pulls apart")
	}
}

// TestPullSecrets: what the pod's secrets say comes before the node's own, and
// a secret that can't be read fails the pull without being shown.
func TestPullSecrets(t *testing.T) {
	c := &Client{opts: Options{Pods: PodOptions{RootDir: t.TempDir()}}}
	node := `{"auths":{"example.com":{"username":"node","password":"p"}}}`
	if err := os.WriteFile(filepath.Join(c.opts.Pods.RootDir, "config.json"), []byte(node), 0o600); err != nil {
		t.Fatal(err)
	}
	secret := func(kind v1.SecretType, key, text string) *v1.Secret {
		return &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Type: kind, Data: map[string][]byte{key: []byte(text)}}
	}
	json := secret(v1.SecretTypeDockerConfigJson, v1.DockerConfigJsonKey, `{"auths":{"example.com":{"auth":"anNvbjpw"}}}`)
	old := secret(v1.SecretTypeDockercfg, v1.DockerConfigKey, `{"example.com":{"username":"old","password":"p"},"else.com":{"username":"other"}}`)
	opaque := secret(v1.SecretTypeOpaque, v1.DockerConfigJsonKey, `{"auths":{"example.com":{"username":"opaque"}}}`)
	got, err := c.credentials(t.Context(), "example.com/app", []*v1.Secret{json, old, opaque})
	var users []string
	for _, a := range got {
		users = append(users, a.Username)
	}
	if err != nil || strings.Join(users, " ") != "json old node" {
		t.Errorf("credentials of %v, %v", users, err)
	}
	bad := secret(v1.SecretTypeDockerConfigJson, v1.DockerConfigJsonKey, `{"auths":{"example.com":{"auth":"hunter2!"}}}`)
	if _, err := c.credentials(t.Context(), "example.com/app", []*v1.Secret{bad}); err == nil || !strings.Contains(err.Error(), "ns/s") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a bad secret gives %v", err)
	}
}

// askedPlugin is a plugin that remembers what it was asked.
type askedPlugin struct {
	images []string
	auth   map[string]credentialproviderv1.AuthConfig
	asked  []string
}

func (p *askedPlugin) Images() []string { return p.images }

func (p *askedPlugin) Credentials(_ context.Context, repository string) map[string]credentialproviderv1.AuthConfig {
	p.asked = append(p.asked, repository)
	return p.auth
}

// TestPluginCredentials: plugins are asked about the images that are theirs, and
// come last.
func TestPluginCredentials(t *testing.T) {
	mine := &askedPlugin{images: []string{"*.example.com", "example.com/app"}, auth: map[string]credentialproviderv1.AuthConfig{
		"example.com": {Username: "host"}, "example.com/app": {Username: "app"}, "else.com": {Username: "else"}}}
	other := &askedPlugin{images: []string{"*.example.com", "else.com"}, auth: mine.auth}
	c := &Client{opts: Options{Pods: PodOptions{RootDir: t.TempDir()}, Images: ImageOptions{Plugins: []CredentialPlugin{other, mine}}}}
	node := `{"auths":{"example.com":{"username":"node","password":"p"}}}`
	if err := os.WriteFile(filepath.Join(c.opts.Pods.RootDir, "config.json"), []byte(node), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := c.credentials(t.Context(), "example.com/app", nil)
	var users []string
	for _, a := range got {
		users = append(users, a.Username)
	}
	if err != nil || strings.Join(users, " ") != "node app host" {
		t.Errorf("credentials of %v, %v", users, err)
	}
	if len(other.asked) > 0 || !slices.Equal(mine.asked, []string{"example.com/app"}) {
		t.Errorf("asked: %q, %q", other.asked, mine.asked)
	}
}

func FuzzImageName(f *testing.F) {
	for _, s := range []string{"busybox", "localhost:5000/a/b:c", "example.com/a@sha256:" + strings.Repeat("a", 64), "a:b:c", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, image string) {
		name, repository, err := imageName(image)
		if err != nil {
			return
		}
		again, same, err := imageName(name)
		if err != nil || again != name || same != repository || !strings.HasPrefix(name, image) {
			t.Errorf("%q is %q in %q, which is %q in %q, %v", image, name, repository, again, same, err)
		}
		if !strings.ContainsAny(name[strings.LastIndexByte(name, '/')+1:], ":@") {
			t.Errorf("%q has neither tag nor digest", name)
		}
	})
}

func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths":{"*.io:5000/a":{"auth":"dTpw"},"https://index.docker.io/v1/":{"username":"u"}}}`), "r.io:5000/a/b")
	f.Add([]byte(`{"r":{"auth":"dTpw"}}`), "docker.io/library/busybox")
	f.Fuzz(func(t *testing.T, raw []byte, repository string) {
		for _, decode := range []func([]byte) (map[string]dockerEntry, error){decodeConfigJSON, decodeDockercfg} {
			cfg, err := decode(raw)
			if err != nil {
				continue
			}
			if got := lookup(cfg, repository); len(got) > len(cfg) {
				t.Errorf("%d credentials from %d entries", len(got), len(cfg))
			}
		}
	})
}

// All images with all names, digests first.
func TestImages(t *testing.T) {
	c := serve(t, &fake{version: "v2.1.0", images: map[string]*runtimeapi.Image{
		"a": {Id: "sha256:a", RepoTags: []string{"a:1", "a:2"}, RepoDigests: []string{"a@sha256:1"}, Size: 7}}})
	got, err := c.Images(t.Context())
	if err != nil || len(got) != 1 || got[0].SizeBytes != 7 || !slices.Equal(got[0].Names, []string{"a@sha256:1", "a:1", "a:2"}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestSetPodCIDR(t *testing.T) {
	f := &fake{version: "v2.1.0"}
	if err := serve(t, f).SetPodCIDR(t.Context(), "10.1.0.0/24"); err != nil || f.podCIDR != "10.1.0.0/24" {
		t.Errorf("the runtime knows %q, %v", f.podCIDR, err)
	}
}

// Who waits for other pulls is told so, and when its turn has come; who has it at
// once, or joins a pull that goes on, is told nothing.
func TestPullSaysThatItWaits(t *testing.T) {
	for name, o := range map[string]ImageOptions{"slots": {}, "rate": {MaxParallel: -1, QPS: 1. / 60, Burst: 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s slow
				pulls := newPulls(o)
				began := time.Now()
				var mu sync.Mutex
				told := map[string]string{}
				var work sync.WaitGroup
				for _, who := range []string{"first", "joins", "waits"} {
					image := strings.Replace(who, "joins", "first", 1)
					work.Go(func() {
						if _, err := pulls.do(t.Context(), image, func(what string) {
							mu.Lock()
							defer mu.Unlock()
							told[who] += fmt.Sprintf("%v %q;", time.Since(began), what)
						}, s.pull); err != nil {
							t.Error(err)
						}
					})
					synctest.Wait()
				}
				work.Wait()
				if want := `0s "a turn to pull";1m0s "";`; told["waits"] != want || len(told) != 1 {
					t.Errorf("told are %v, want who waits %q", told, want)
				}
			})
		})
	}
}
