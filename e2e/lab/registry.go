package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"

	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// RegistryOptions says what kind of registry is wanted; the zero value is an
// open one.
type RegistryOptions struct {
	User, Password string        // asks for these by basic authentication
	Delay          time.Duration // before each answer
	Alias          string        // also known to the runtime by this name, such as registry.test
}

// Registry is an image registry on the lab's loopback, in this process.
type Registry struct {
	Host string // 127.0.0.1:port; images are Host/repository:tag

	options RegistryOptions
	server  *http.Server
	store   http.Handler
	mu      sync.Mutex
	pulls   map[string]int // by repository
}

// Registry starts a registry that the runtime trusts. The test's clean-up ends it.
func (l *Lab) Registry(o RegistryOptions) (*Registry, error) {
	listener, err := l.Network.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	r := &Registry{
		Host: listener.Addr().String(), options: o, pulls: map[string]int{},
		store: registry.New(registry.Logger(log.New(io.Discard, "", 0))),
	}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- r.server.Serve(listener) }()
	l.tb.Cleanup(func() {
		if err := r.server.Close(); err != nil {
			l.tb.Errorf("lab: close registry: %v", err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			l.tb.Errorf("lab: registry ended: %v", err)
		}
	})
	for _, host := range []string{r.Host, o.Alias} {
		if host == "" {
			continue
		}
		if err := l.Runtime.TrustRegistry(host, r.Host); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// ServeHTTP answers as the options say, and counts pulls.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	select {
	case <-time.After(r.options.Delay):
	case <-req.Context().Done():
		return
	}
	user, password, _ := req.BasicAuth()
	if r.options.User != "" && (user != r.options.User || password != r.options.Password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"credentials wanted"}]}`, http.StatusUnauthorized)
		return
	}
	if repository, ok := manifestOf(req.URL.Path); ok && req.Method == http.MethodHead {
		r.mu.Lock()
		r.pulls[repository]++
		r.mu.Unlock()
	}
	r.store.ServeHTTP(w, req)
}

// manifestOf takes the repository from /v2/REPOSITORY/manifests/REFERENCE.
func manifestOf(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return "", false
	}
	repository, _, ok := strings.Cut(rest, "/manifests/")
	return repository, ok
}

// Pulls counts the authorized pulls of a repository: the runtime asks once
// per pull which manifest a reference stands for, also when it has the image.
func (r *Registry) Pulls(repository string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pulls[repository]
}

// Push puts an image at repository:tag and returns the full reference by
// which pods name it. It isn't slowed by the registry's delay, nor counted.
func (r *Registry) Push(ctx context.Context, repositoryTag string, image v1.Image) (string, error) {
	full := r.Host + "/" + repositoryTag
	ref, err := name.ParseReference(full, name.Insecure)
	if err != nil {
		return "", fmt.Errorf("push image: %w", err)
	}
	err = remote.Write(ref, image, remote.WithContext(ctx), remote.WithTransport(direct{r.store}))
	if err != nil {
		return "", fmt.Errorf("push image %s: %w", full, err)
	}
	return full, nil
}

// direct hands requests to the store itself, past network and options.
type direct struct{ store http.Handler }

func (d direct) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil {
		req.Body = http.NoBody // a server's request always has a body
	}
	w := httptest.NewRecorder()
	d.store.ServeHTTP(w, req)
	response := w.Result()
	response.Request = req
	return response, nil
}
