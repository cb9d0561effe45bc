package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"
)

// access decides who may ask what (behaviour rows 1.20-1..3, 22, 23).
type access struct {
	nodeName string
	who      authenticator.Request
	may      authorizer.Authorizer
	ca       *dynamiccertificates.DynamicFileCAContent // nil: no certificate names anybody
}

// ErrNoCluster says that the configuration asks the apiserver who may do what,
// and there is none: nobody could be let in.
var ErrNoCluster = errors.New("authorization.mode is Webhook and there is no kubeconfig to ask an apiserver with")

// askAgain is how often an apiserver is asked that does not answer, some 4
// seconds in all.
func askAgain() *wait.Backoff {
	return &wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 5}
}

func newAccess(o Options) (*access, error) {
	a := &access{nodeName: o.NodeName}
	c := &o.Config.Authentication
	config := authenticatorfactory.DelegatingAuthenticatorConfig{
		Anonymous: &apiserver.AnonymousAuthConfig{Enabled: ptr.Deref(c.Anonymous.Enabled, false)},
		CacheTTL:  c.Webhook.CacheTTL.Duration,
	}
	if c.X509.ClientCAFile != "" {
		ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca-bundle", c.X509.ClientCAFile)
		if err != nil {
			return nil, fmt.Errorf("authentication.x509.clientCAFile: %w", err)
		}
		a.ca, config.ClientCertificateCAContentProvider = ca, ca
	}
	if ptr.Deref(c.Webhook.Enabled, true) && o.Client != nil {
		config.WebhookRetryBackoff = askAgain()
		config.TokenAccessReviewClient = o.Client.AuthenticationV1()
	}
	var err error
	if a.who, _, err = config.New(); err != nil {
		return nil, fmt.Errorf("authentication: %w", err)
	}
	switch z := &o.Config.Authorization; {
	case z.Mode == kubeletv1beta1.KubeletAuthorizationModeAlwaysAllow:
		a.may = authorizerfactory.NewAlwaysAllowAuthorizer()
	case o.Client == nil:
		return nil, ErrNoCluster
	default:
		a.may, err = authorizerfactory.DelegatingAuthorizerConfig{
			SubjectAccessReviewClient: o.Client.AuthorizationV1(),
			AllowCacheTTL:             z.Webhook.CacheAuthorizedTTL.Duration,
			DenyCacheTTL:              z.Webhook.CacheUnauthorizedTTL.Duration,
			WebhookRetryBackoff:       askAgain(),
		}.New()
		if err != nil {
			return nil, fmt.Errorf("authorization: %w", err)
		}
	}
	return a, nil
}

// run reads the client CA again when its file changes, until ctx ends.
func (a *access) run(ctx context.Context) {
	if a.ca != nil {
		a.ca.Run(ctx, 1)
	}
}

// guard lets through to h who may ask what he asks.
func (a *access) guard(log *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok, err := a.who.AuthenticateRequest(r)
		if err != nil || !ok {
			log.Debug("request without a known user", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "error", err)
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		verb, parts := verbs[r.Method], subresources(r.URL.Path)
		for _, part := range parts {
			decision, _, err := a.may.Authorize(r.Context(), a.attributes(who.User, r, part))
			if err != nil {
				log.Warn("authorization failed", "user", who.User.GetName(), "path", r.URL.Path, "error", err)
				http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=nodes, subresource=%s)", who.User.GetName(), verb, part),
					http.StatusInternalServerError)
				return
			}
			if decision == authorizer.DecisionAllow {
				log.Debug("request", "user", who.User.GetName(), "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr)
				h.ServeHTTP(w, r)
				return
			}
		}
		log.Debug("request refused", "user", who.User.GetName(), "verb", verb, "subresources", parts, "from", r.RemoteAddr)
		http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", who.User.GetName(), verb, parts), http.StatusForbidden)
	})
}

func (a *access) attributes(u user.Info, r *http.Request, subresource string) authorizer.Attributes {
	return authorizer.AttributesRecord{
		User: u, Verb: verbs[r.Method], APIVersion: "v1", Resource: "nodes", Subresource: subresource, Name: a.nodeName,
		ResourceRequest: true, Path: r.URL.Path,
	}
}

// verbs are those of the API by HTTP method; other methods have none (row 1.20-1).
var verbs = map[string]string{
	http.MethodPost: "create", http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete",
}

// subresources are those of which one is needed for a path (row 1.20-2).
func subresources(path string) []string {
	for _, s := range []struct {
		under string
		need  []string
	}{
		{"/pods", []string{"pods", "proxy"}},
		{"/runningpods", []string{"pods", "proxy"}},
		{"/healthz", []string{"healthz", "proxy"}},
		{"/configz", []string{"configz", "proxy"}},
		{"/stats", []string{"stats"}},
		{"/metrics", []string{"metrics"}},
		{"/logs", []string{"log"}},
		{"/checkpoint", []string{"checkpoint"}},
		{"/statusz", []string{"statusz"}},
		{"/flagz", []string{"configz"}},
	} {
		if path == s.under || strings.HasPrefix(path, s.under+"/") {
			return s.need
		}
	}
	return []string{"proxy"}
}
