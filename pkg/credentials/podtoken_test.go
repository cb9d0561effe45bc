package credentials

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// issuer is an apiserver that gives tokens, numbered as they come.
type issuer struct {
	*fake.Clientset
	asked  []string
	down   error
	back   time.Time     // when it is down no more; zero: never
	ahead  time.Duration // of our clock
	silent bool          // about how long tokens live
}

func newIssuer() *issuer {
	i := &issuer{Clientset: fake.NewClientset()}
	i.PrependReactor("create", "serviceaccounts", func(a clienttesting.Action) (bool, runtime.Object, error) {
		create := a.(clienttesting.CreateActionImpl)
		r := create.GetObject().(*authenticationv1.TokenRequest).DeepCopy()
		ref := r.Spec.BoundObjectRef
		i.asked = append(i.asked, fmt.Sprintf("%s of %s/%s for %v: %s %s %s %s", create.GetSubresource(), a.GetNamespace(), create.Name, r.Spec.Audiences,
			ref.APIVersion, ref.Kind, ref.Name, ref.UID))
		if i.down != nil && (i.back.IsZero() || time.Now().Before(i.back)) {
			return true, nil, i.down
		}
		life := time.Hour
		if r.Spec.ExpirationSeconds != nil {
			life = time.Duration(*r.Spec.ExpirationSeconds) * time.Second
		}
		seconds := int64(life / time.Second)
		if r.Spec.ExpirationSeconds = &seconds; i.silent {
			r.Spec.ExpirationSeconds = nil
		}
		r.Status = authenticationv1.TokenRequestStatus{Token: fmt.Sprint("token ", len(i.asked)), ExpirationTimestamp: metav1.NewTime(time.Now().Add(life - i.ahead))}
		return true, r, nil
	})
	return i
}

func podOf(name string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-of-" + name)}, Spec: v1.PodSpec{ServiceAccountName: "builder"}}
}

func source(audience string, seconds int64) *v1.ServiceAccountTokenProjection {
	s := &v1.ServiceAccountTokenProjection{Audience: audience, Path: "token"}
	if seconds > 0 {
		s.ExpirationSeconds = &seconds
	}
	return s
}

// ask asks for a token and says how long it is good for.
func ask(t *testing.T, i *PodIdentity, p *v1.Pod, from *v1.ServiceAccountTokenProjection) (string, time.Duration) {
	t.Helper()
	token, renew, err := i.Token(t.Context(), p, from)
	if err != nil {
		t.Fatal(err)
	}
	return string(token), time.Until(renew)
}

func TestTokenIsBoundToThePod(t *testing.T) {
	api := newIssuer()
	i := NewPodIdentity(api, "n1")
	ask(t, i, podOf("web"), source("", 0))
	ask(t, i, podOf("web"), source("vault", 0))
	want := []string{"token of ns/builder for []: v1 Pod web uid-of-web", "token of ns/builder for [vault]: v1 Pod web uid-of-web"}
	if !slices.Equal(api.asked, want) {
		t.Errorf("asked: %q", api.asked)
	}
}

// TestTokenOfAPodJustBound: an apiserver that does not know yet whose the pod is
// says Forbidden, and is asked again soon; one that means it is believed.
func TestTokenOfAPodJustBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newIssuer()
		api.down = apierrors.NewForbidden(v1.Resource("serviceaccounts"), "builder", errors.New("bound to a pod scheduled on a different node"))
		i := NewPodIdentity(api, "n1")
		began := time.Now()
		if _, _, err := i.Token(t.Context(), podOf("web"), source("", 0)); !apierrors.IsForbidden(err) || time.Since(began) > time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		began = time.Now()
		api.back = began.Add(50 * time.Millisecond)
		ask(t, i, podOf("web"), source("", 0))
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

// Renewal comes at 80 % of a token's life, or after a day, a little earlier for
// some than for others.
func TestTokenIsRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seconds, at := range map[int64]time.Duration{600: 8 * time.Minute, 3600: 48 * time.Minute, 0: 48 * time.Minute, 100 * 3600: 24 * time.Hour} {
			api := newIssuer()
			i, p := NewPodIdentity(api, "n1"), podOf("web")
			token, life := ask(t, i, p, source("", seconds))
			if token != "token 1" || life > at || life < at-10*time.Second {
				t.Errorf("%d s: %s is renewed after %s, want %s", seconds, token, life, at)
			}
			time.Sleep(life - time.Second)
			if token, left := ask(t, i, p, source("", seconds)); token != "token 1" || left != time.Second {
				t.Errorf("%d s: before its renewal it is %s, %s", seconds, token, left)
			}
			time.Sleep(time.Second)
			if token, _ := ask(t, i, p, source("", seconds)); token != "token 2" || len(api.asked) != 2 {
				t.Errorf("%d s: then it is %s, asked %d times", seconds, token, len(api.asked))
			}
		}
	})
}

func TestRenewalsOfABurstAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := NewPodIdentity(newIssuer(), "n1")
		seen := map[time.Duration]bool{}
		for n := range 20 {
			_, life := ask(t, i, podOf(fmt.Sprint(n)), source("", 0))
			seen[life] = true
		}
		if len(seen) < 10 {
			t.Errorf("20 tokens are renewed at %d moments", len(seen))
		}
	})
}

// While the apiserver doesn't answer a token is good until it expires.
func TestTokenOutlivesTheApiserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newIssuer()
		i, p := NewPodIdentity(api, "n1"), podOf("web")
		ask(t, i, p, source("", 600))
		api.down = errors.New("connection refused")
		time.Sleep(9*time.Minute + 59*time.Second)
		token, _, err := i.Token(t.Context(), p, source("", 600))
		if string(token) != "token 1" || err == nil || !strings.Contains(err.Error(), "fetch a token of service account ns/builder: connection refused; the one before holds until 2000-01-01T00:10:00Z") {
			t.Errorf("%q, %v", token, err)
		}
		time.Sleep(2 * time.Second)
		if token, _, err = i.Token(t.Context(), p, source("", 600)); token != nil || err == nil || strings.Contains(err.Error(), "holds") {
			t.Errorf("after it expired: %q, %v", token, err)
		}
		api.down = nil
		if token, _ := ask(t, i, p, source("", 600)); !strings.HasPrefix(token, "token ") {
			t.Errorf("once the apiserver is back: %q", token)
		}
	})
}

// Where the node's clock is far ahead every token looks old: they are not asked
// for all the time.
func TestClockAheadAsksInPeace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newIssuer()
		api.ahead = 2 * time.Hour
		i, p := NewPodIdentity(api, "n1"), podOf("web")
		if token, life := ask(t, i, p, source("", 0)); token != "token 1" || life != time.Minute {
			t.Errorf("%s is renewed after %s", token, life)
		}
		if token, _ := ask(t, i, p, source("", 0)); token != "token 1" {
			t.Errorf("at once again: %s", token)
		}
	})
}

// An apiserver that doesn't say how long a token lives says when it expires.
func TestTokenOfUnknownAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newIssuer()
		api.silent = true
		if _, life := ask(t, NewPodIdentity(api, "n1"), podOf("web"), source("", 600)); life > 8*time.Minute || life < 470*time.Second {
			t.Errorf("renewed after %s", life)
		}
	})
}

func TestTokensOfGonePodsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newIssuer()
		i := NewPodIdentity(api, "n1")
		ask(t, i, podOf("web"), source("", 0))
		ask(t, i, podOf("db"), source("", 0))
		i.Forget("uid-of-web")
		if len(i.tokens.held) != 1 {
			t.Errorf("held: %v", i.tokens.held)
		}
		if token, _ := ask(t, i, podOf("web"), source("", 0)); token != "token 3" {
			t.Errorf("the forgotten one is still there: %s", token)
		}
		time.Sleep(2 * time.Hour)
		ask(t, i, podOf("new"), source("", 0))
		if len(i.tokens.held) != 1 {
			t.Errorf("expired ones are held: %v", i.tokens.held)
		}
	})
}
