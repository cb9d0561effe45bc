package credentials

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
)

const (
	// A token is renewed after 80 % of its life, or this age, less a little that
	// keeps those of one burst of pods from coming together (behaviour row 1.12-10).
	tokenAge    = 24 * time.Hour
	tokenJitter = 10 * time.Second
	// tokenPause is the least time between two tokens of one kind: where the
	// node's clock is far ahead each new one seems to be old.
	tokenPause = time.Minute
	// requestLimit bounds what is asked of the apiserver for a pod's volumes.
	requestLimit = 30 * time.Second
)

// tokenKey is what a token is for.
type tokenKey struct {
	pod      types.UID
	account  string
	audience string
	seconds  int64
}

type token struct {
	text           []byte
	renew, expires time.Time
}

// tokens are those that pods have now.
type tokens struct {
	mu   sync.Mutex
	held map[tokenKey]token
}

func (t *tokens) get(k tokenKey) token {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held[k]
}

// put keeps the token, and forgets those that have expired: their pods are gone.
func (t *tokens) put(k tokenKey, next token) {
	now := time.Now()
	t.forget(func(_ tokenKey, old token) bool { return now.After(old.expires) })
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held[k] = next
}

func (t *tokens) forget(which func(tokenKey, token) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.held, which)
}

// Token of the pod's service account, bound to the pod, and when to ask for the
// next (behaviour row 1.12-10). Asking again before that asks nobody. If the
// apiserver doesn't give another, the old one is returned with the error until it
// expires.
func (i *PodIdentity) Token(ctx context.Context, p *v1.Pod, from *v1.ServiceAccountTokenProjection) ([]byte, time.Time, error) {
	key := tokenKey{p.UID, p.Spec.ServiceAccountName, from.Audience, ptr.Deref(from.ExpirationSeconds, 0)}
	old := i.tokens.get(key)
	if time.Now().Before(old.renew) {
		return old.text, old.renew, nil
	}
	next, err := i.requestToken(ctx, p, from)
	if err == nil {
		i.tokens.put(key, next)
		return next.text, next.renew, nil
	}
	err = fmt.Errorf("fetch a token of service account %s/%s: %w", p.Namespace, p.Spec.ServiceAccountName, err)
	if time.Now().Before(old.expires) {
		return old.text, time.Time{}, fmt.Errorf("%w; the one before holds until %s", err, old.expires.UTC().Format(time.RFC3339))
	}
	return nil, time.Time{}, err
}

// requestToken asks the apiserver for a token.
func (i *PodIdentity) requestToken(ctx context.Context, p *v1.Pod, from *v1.ServiceAccountTokenProjection) (token, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: from.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID},
	}}
	if from.Audience != "" {
		request.Spec.Audiences = []string{from.Audience} // else that of the apiserver
	}
	var got *authenticationv1.TokenRequest
	var err error
	// An apiserver may learn later than its node that the pod is bound to it.
	_ = wait.ExponentialBackoffWithContext(ctx, wait.Backoff{Duration: 20 * time.Millisecond, Factor: 2, Steps: 6}, func(ctx context.Context) (bool, error) {
		got, err = i.client.CoreV1().ServiceAccounts(p.Namespace).CreateToken(ctx, p.Spec.ServiceAccountName, request, metav1.CreateOptions{})
		return !apierrors.IsForbidden(err), nil
	})
	if err != nil {
		return token{}, err
	}
	if got.Status.Token == "" {
		return token{}, fmt.Errorf("the apiserver answered without a token")
	}
	expires := got.Status.ExpirationTimestamp.Time
	return token{text: []byte(got.Status.Token), expires: expires, renew: tokenRenewal(time.Now(), expires, got.Spec.ExpirationSeconds)}, nil
}

// tokenRenewal is when to ask for the token after one that expires then, and lives
// for those seconds.
func tokenRenewal(now, expires time.Time, seconds *int64) time.Time {
	life := expires.Sub(now)
	if seconds != nil {
		life = time.Duration(*seconds) * time.Second
	}
	issued := expires.Add(-life)
	renew := issued.Add(min(life*8/10, tokenAge) - rand.N(tokenJitter))
	if earliest := now.Add(tokenPause); renew.Before(earliest) {
		return earliest
	}
	return renew
}
