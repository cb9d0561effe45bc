package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
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
)

// access decides who may ask what (behaviour rows 1.20-1..3, 22, 23).
type access struct {
	nodeName string
	who      authenticator.Request
	may      authorizer.Authorizer
	ca       clientCA                        // nil: no certificate names anybody
	run      func(ctx context.Context) error // reads the CA again when its file changes
	look     time.Duration                   // how often it is seen whether that file can be used
	log      *slog.Logger
	unknown  seldom // told of those whom nobody knows
	unjudged seldom // and of those about whom the apiserver does not answer
}

// Nobody says why nobody could be let in with this configuration, and what to
// do; nil if somebody could. joined says that there is an apiserver to ask.
func Nobody(k *kubeletv1beta1.KubeletConfiguration, joined bool) error {
	c := &k.Authentication
	switch {
	case k.Authorization.Mode != kubeletv1beta1.KubeletAuthorizationModeAlwaysAllow && !joined:
		return errors.New("authorization.mode is Webhook, and without a kubeconfig there is no apiserver to ask who may do what; " +
			"to let in who has a certificate, set authorization.mode: AlwaysAllow and authentication.x509.clientCAFile")
	case c.X509.ClientCAFile == "" && !*c.Anonymous.Enabled && !(*c.Webhook.Enabled && joined):
		return errors.New("neither certificates nor tokens say who somebody is; to let in who has a certificate, set authentication.x509.clientCAFile")
	}
	return nil
}

// warnOfOpenDoors tells the operator what was asked for and is seldom meant.
func (s *Server) warnOfOpenDoors() {
	k := s.options.Config
	if *k.Authentication.Anonymous.Enabled && k.Authorization.Mode == kubeletv1beta1.KubeletAuthorizationModeAlwaysAllow {
		s.log.Warn("anybody who reaches the node's API may run commands in its pods: authentication.anonymous is enabled and authorization.mode is AlwaysAllow")
	}
}

// patience is how long the apiserver may take to say who somebody is and what he
// may.
const patience = 5 * time.Second

// lookAtCA is how often it is seen whether the file of CAs can be used.
const lookAtCA = 30 * time.Second

// askAgain is how often an apiserver is asked that refuses the connection: long
// enough for one that is being replaced, and no caller waits for seconds.
func askAgain() *wait.Backoff {
	return &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 3}
}

func newAccess(o Options) (*access, error) {
	a := &access{nodeName: o.NodeName, look: lookAtCA, log: o.Log, run: func(ctx context.Context) error { return nil }}
	c := &o.Config.Authentication
	config := authenticatorfactory.DelegatingAuthenticatorConfig{
		Anonymous: &apiserver.AnonymousAuthConfig{Enabled: *c.Anonymous.Enabled},
		CacheTTL:  c.Webhook.CacheTTL.Duration, TokenAccessReviewTimeout: patience,
	}
	if c.X509.ClientCAFile != "" {
		ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca-bundle", c.X509.ClientCAFile)
		if err != nil {
			return nil, fmt.Errorf("authentication.x509.clientCAFile: %w", err)
		}
		a.ca, config.ClientCertificateCAContentProvider = ca, ca
		a.run = func(ctx context.Context) error {
			var telling sync.WaitGroup
			defer telling.Wait()
			telling.Go(func() { a.tellOfCA(ctx, c.X509.ClientCAFile, ca.RunOnce) })
			ca.Run(ctx, 1)
			return nil
		}
	}
	if *c.Webhook.Enabled && o.Tokens != nil {
		config.WebhookRetryBackoff = askAgain()
		config.TokenAccessReviewClient = o.Tokens.AuthenticationV1()
	}
	var err error
	if a.who, _, err = config.New(); err != nil {
		return nil, fmt.Errorf("authentication: %w", err)
	}
	z := &o.Config.Authorization
	if z.Mode == kubeletv1beta1.KubeletAuthorizationModeAlwaysAllow {
		a.may = authorizerfactory.NewAlwaysAllowAuthorizer()
		return a, nil
	}
	a.may, err = authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: o.Rights.AuthorizationV1(),
		AllowCacheTTL:             z.Webhook.CacheAuthorizedTTL.Duration,
		DenyCacheTTL:              z.Webhook.CacheUnauthorizedTTL.Duration,
		WebhookRetryBackoff:       askAgain(),
	}.New()
	if err != nil {
		return nil, fmt.Errorf("authorization: %w", err)
	}
	return a, nil
}

// tellOfCA says, once, that the file of the CA can't be used any more, and that it
// can be again: the library keeps to what it read before, and tells nobody.
func (a *access) tellOfCA(ctx context.Context, file string, read func(context.Context) error) {
	broken := false
	tick := time.NewTicker(a.look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch err := read(ctx); {
		case err != nil && !broken:
			broken = true
			a.log.Warn("callers' certificates are still judged by the CAs read before: the file of authentication.x509.clientCAFile can't be used", "file", file, "error", err)
		case err == nil && broken:
			broken = false
			a.log.Info("callers' certificates are judged by the file again", "file", file)
		}
	}
}

// refusal is how a request is turned down; no code means that it is not.
type refusal struct {
	code int
	text string // as the kubelet's (behaviour row 1.20-3)
	why  error  // for the log
}

// judge says who asks, and whether he may.
func (a *access) judge(r *http.Request) (who string, no refusal) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	known, ok, err := a.who.AuthenticateRequest(r.WithContext(ctx))
	if err != nil || !ok {
		if err != nil && r.Context().Err() == nil {
			a.unknown.tell(func(before int) {
				a.log.Warn("a request was refused: it could not be found out who asks", "from", r.RemoteAddr, "error", err, "others since the last such line", before)
			})
		}
		return "", refusal{http.StatusUnauthorized, "Unauthorized", err}
	}
	// Nobody behind this needs it, and who hands the request on would show it.
	r.Header.Del("Authorization")
	who = known.User.GetName()
	if who != user.Anonymous {
		nowKnown(r.Context())
	}
	return who, a.judgeRight(ctx, known.User, r)
}

func (a *access) judgeRight(ctx context.Context, u user.Info, r *http.Request) refusal {
	verb, parts := verbs[r.Method], subresources(r.URL.Path)
	for _, part := range parts {
		decision, _, err := a.may.Authorize(ctx, authorizer.AttributesRecord{
			User: u, Verb: verb, APIVersion: "v1", Resource: "nodes", Subresource: part, Name: a.nodeName,
			ResourceRequest: true, Path: r.URL.Path,
		})
		if err != nil {
			if r.Context().Err() == nil {
				a.unjudged.tell(func(before int) {
					a.log.Warn("a request was refused: the apiserver does not say whether it is allowed",
						"user", u.GetName(), "path", r.URL.Path, "error", err, "others since the last such line", before)
				})
			}
			return refusal{http.StatusInternalServerError,
				fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=nodes, subresource=%s)", u.GetName(), verb, part), err}
		}
		if decision == authorizer.DecisionAllow {
			return refusal{}
		}
	}
	return refusal{code: http.StatusForbidden,
		text: fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)\n", u.GetName(), verb, parts)}
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

// seldom is told at most once a minute, with how many times it was not before:
// what any caller can cause must not fill the log.
type seldom struct {
	mu     sync.Mutex
	again  time.Time
	unsaid int
}

func (s *seldom) tell(say func(before int)) {
	s.mu.Lock()
	before, now := s.unsaid, time.Now()
	quiet := now.Before(s.again)
	if quiet {
		s.unsaid++
	} else {
		s.unsaid, s.again = 0, now.Add(time.Minute)
	}
	s.mu.Unlock()
	if !quiet {
		say(before)
	}
}
