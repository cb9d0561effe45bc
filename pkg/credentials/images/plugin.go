package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1 "k8s.io/kubelet/config/v1"
	credentialproviderv1 "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
)

const (
	// timeout is for one run of a plugin.
	timeout = time.Minute
	// maxSaid bounds what of a plugin's complaint is shown.
	maxSaid = 1 << 10
)

// Plugin is one program that knows credentials of registries.
type Plugin struct {
	config  kubeletv1.CredentialProvider
	program string
	log     *slog.Logger
	flights singleflight.Group // one run for those who ask the same at once

	mu     sync.Mutex
	cache  map[string]answer
	failed string // the newest failure that was logged
}

// Auth are user names and passwords by the images that they are for: hosts,
// maybe with port and path, as in a docker config.
type Auth = map[string]credentialproviderv1.AuthConfig

// answer is what a plugin said, for as long as it may be kept.
type answer struct {
	auth  Auth
	until time.Time
}

func newPlugin(config kubeletv1.CredentialProvider, program string, log *slog.Logger) *Plugin {
	return &Plugin{config: config, program: program, log: log.With("plugin", config.Name), cache: map[string]answer{}}
}

// Images are the patterns of those that the plugin is for.
func (p *Plugin) Images() []string { return p.config.MatchImages }

// Credentials asks the plugin for those of an image, which is named without tag
// and digest, or remembers what it said. A plugin that fails is told and has
// none: others may do.
func (p *Plugin) Credentials(ctx context.Context, image string) Auth {
	if auth, ok := p.recall(image); ok {
		return auth
	}
	// The run is shared, so that it doesn't end with the first who asked.
	shared := context.WithoutCancel(ctx)
	result := p.flights.DoChan(image, func() (any, error) { return p.ask(shared, image) })
	select {
	case <-ctx.Done():
		return nil
	case r := <-result:
		p.tell(image, r.Err)
		auth, _ := r.Val.(Auth)
		return auth
	}
}

// tell logs a failure once for all who meet it.
func (p *Plugin) tell(image string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	p.mu.Lock()
	news := text != p.failed
	p.failed = text
	p.mu.Unlock()
	if news && err != nil {
		p.log.Warn("no credentials from the image credential plugin, going on without", "image", image, "error", err)
	}
}

// keys are what an answer for the image may be kept by.
func keys(image string) map[credentialproviderv1.PluginCacheKeyType]string {
	registry, _, _ := strings.Cut(image, "/")
	return map[credentialproviderv1.PluginCacheKeyType]string{
		credentialproviderv1.ImagePluginCacheKeyType:    "image " + image,
		credentialproviderv1.RegistryPluginCacheKeyType: "registry " + registry,
		credentialproviderv1.GlobalPluginCacheKeyType:   "all",
	}
}

func (p *Plugin) recall(image string) (Auth, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	by := keys(image)
	for _, kind := range []credentialproviderv1.PluginCacheKeyType{
		credentialproviderv1.ImagePluginCacheKeyType, credentialproviderv1.RegistryPluginCacheKeyType, credentialproviderv1.GlobalPluginCacheKeyType,
	} {
		if a, ok := p.cache[by[kind]]; ok && time.Now().Before(a.until) {
			return a.auth, true
		}
	}
	return nil, false
}

func (p *Plugin) ask(ctx context.Context, image string) (Auth, error) {
	response, err := p.run(ctx, image)
	if err != nil {
		return nil, err
	}
	key, ok := keys(image)[response.CacheKeyType]
	if !ok {
		return nil, fmt.Errorf("its answer has cacheKeyType %q, which is none of Image, Registry and Global", response.CacheKeyType)
	}
	keep := p.config.DefaultCacheDuration.Duration
	if response.CacheDuration != nil {
		keep = response.CacheDuration.Duration
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for key, a := range p.cache {
		if now.After(a.until) {
			delete(p.cache, key)
		}
	}
	if keep > 0 {
		p.cache[key] = answer{response.Auth, now.Add(keep)}
	}
	return response.Auth, nil
}

// run asks by stdin and reads the answer from stdout.
func (p *Plugin) run(ctx context.Context, image string) (*credentialproviderv1.CredentialProviderResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := json.Marshal(credentialproviderv1.CredentialProviderRequest{
		TypeMeta: metav1.TypeMeta{Kind: "CredentialProviderRequest", APIVersion: p.config.APIVersion}, Image: image})
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, p.program, p.config.Args...)
	cmd.WaitDelay = time.Second // for children of it that hold its pipes
	var said, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), &said, &complaint
	cmd.Env = os.Environ()
	for _, e := range p.config.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %s", timeout)
		}
		if text := strings.TrimSpace(complaint.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text[:min(len(text), maxSaid)])
		}
		return nil, fmt.Errorf("run %s: %w", p.program, err)
	}
	response := &credentialproviderv1.CredentialProviderResponse{}
	if err := json.Unmarshal(said.Bytes(), response); err != nil {
		return nil, errors.New("its answer is no CredentialProviderResponse in JSON") // the cause would show what is in it
	}
	if response.Kind != "CredentialProviderResponse" || response.APIVersion != p.config.APIVersion {
		return nil, fmt.Errorf("its answer is a %q of %q, not a CredentialProviderResponse of %s", response.Kind, response.APIVersion, p.config.APIVersion)
	}
	return response, nil
}

// checkPattern says what is wrong with a pattern of images.
func checkPattern(pattern string) error {
	u, err := url.Parse("https://" + pattern)
	if err != nil || u.Host == "" || strings.Contains(pattern, "://") {
		return fmt.Errorf("%q is no registry's host, with port and path perhaps", pattern)
	}
	return nil
}
