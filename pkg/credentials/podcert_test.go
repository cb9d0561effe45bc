package credentials

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/api/certificates/v1beta1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// podSigner is an apiserver with somebody who decides requests; they are named
// req-1, req-2 and so on.
type podSigner struct {
	*fake.Clientset
	t     *testing.T
	count int
}

func newPodSigner(t *testing.T) *podSigner {
	s := &podSigner{t: t, Clientset: fake.NewClientset(
		&v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "builder", UID: "account"}},
		&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "node"}})}
	s.PrependReactor("create", "podcertificaterequests", func(a clienttesting.Action) (bool, runtime.Object, error) {
		s.count++
		a.(clienttesting.CreateActionImpl).Object.(*v1beta1.PodCertificateRequest).Name = fmt.Sprint("req-", s.count)
		return false, nil, nil
	})
	return s
}

func (s *podSigner) request(n int) *v1beta1.PodCertificateRequest {
	s.t.Helper()
	r, err := s.CertificatesV1beta1().PodCertificateRequests("ns").Get(s.t.Context(), fmt.Sprint("req-", n), metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *podSigner) decide(n int, verdict, reason string) {
	s.t.Helper()
	r := s.request(n)
	r.Status.Conditions = []metav1.Condition{{Type: verdict, Status: metav1.ConditionTrue, Reason: reason, Message: "so be it"}}
	if verdict == v1beta1.PodCertificateRequestConditionTypeIssued {
		r.Status.CertificateChain = anchor(fmt.Sprint("leaf ", n)) + anchor("root")
		r.Status.BeginRefreshAt = new(metav1.NewTime(time.Now().Add(time.Hour)))
		r.Status.NotAfter = new(metav1.NewTime(time.Now().Add(2 * time.Hour)))
	}
	if _, err := s.CertificatesV1beta1().PodCertificateRequests("ns").UpdateStatus(s.t.Context(), r, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// answer is what one call for a certificate gives.
type answer struct {
	key, chain string
	renew      time.Duration // from its end; 0 for never
	took       time.Duration
	err        error
}

func (a answer) says(words string) bool {
	return a.err != nil && strings.Contains(a.err.Error(), words)
}

// event is the reason of the event that the answer's error makes, or "".
func (a answer) event() string {
	var told *Told
	if errors.As(a.err, &told) {
		return told.EventReason()
	}
	return ""
}

// begin asks for a certificate; what it returns waits for the answer.
func begin(t *testing.T, i *PodIdentity) func() answer {
	done := make(chan answer, 1)
	go func() {
		began := time.Now()
		key, chain, renew, err := i.Certificate(t.Context(), podOf("web"), "id", 2, &v1.PodCertificateProjection{
			SignerName: "ex.com/s", KeyType: "ECDSAP256", MaxExpirationSeconds: new(int32(7200)), UserAnnotations: map[string]string{"a": "b"}})
		a := answer{key: string(key), took: time.Since(began), err: err}
		if chain != nil {
			a.chain = ders(t, chain)
		}
		if !renew.IsZero() {
			a.renew = time.Until(renew)
		}
		done <- a
	}()
	synctest.Wait()
	return func() answer { return <-done }
}

func TestCertificateIsRequestedAndAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPodSigner(t)
		i := NewPodIdentity(s, "n1")
		wait := begin(t, i)
		r := s.request(1)
		spec := r.Spec
		proof, err := x509.ParseCertificateRequest(spec.StubPKCS10Request)
		if err != nil || proof.CheckSignature() != nil {
			t.Fatalf("proof: %v", err)
		}
		spec.StubPKCS10Request = nil
		if got, want := fmt.Sprint(spec, *spec.MaxExpirationSeconds), "{ex.com/s web uid-of-web builder account n1 node "; !strings.HasPrefix(got, want) || *spec.MaxExpirationSeconds != 7200 || spec.UnverifiedUserAnnotations["a"] != "b" {
			t.Errorf("asked for %s", got)
		}
		if o := r.OwnerReferences; len(o) != 1 || o[0].Kind != "Pod" || o[0].UID != "uid-of-web" {
			t.Errorf("owned by %v", o)
		}
		time.Sleep(3 * time.Second)
		s.decide(1, "Issued", "")
		a := wait()
		if a.err != nil || a.chain != "leaf 1 root" || a.took != 3*time.Second || a.renew < time.Hour || a.renew > time.Hour+refreshJitter {
			t.Errorf("got %+v", a)
		}
		block, _ := pem.Decode([]byte(a.key))
		private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil || !private.(*ecdsa.PrivateKey).PublicKey.Equal(proof.PublicKey) {
			t.Errorf("the key isn't the one of the request: %v", err)
		}
		if again := begin(t, i)(); again.key != a.key || again.chain != a.chain || s.count != 1 {
			t.Errorf("asked again: %+v", again)
		}
	})
}

// A signer that takes long is waited for without a second request.
func TestSlowSigner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPodSigner(t)
		i := NewPodIdentity(s, "n1")
		if a := begin(t, i)(); !a.says("PodCertificateRequest ns/req-1 is not decided yet by ex.com/s") || a.took != issuePatience || a.key != "" || a.event() != "" {
			t.Errorf("got %+v", a)
		}
		s.decide(1, "Issued", "")
		if a := begin(t, i)(); a.err != nil || a.chain != "leaf 1 root" || a.took > time.Second || s.count != 1 {
			t.Errorf("then %+v", a)
		}
	})
}

// A request that somebody deletes is made again.
func TestDeletedRequestIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPodSigner(t)
		i := NewPodIdentity(s, "n1")
		wait := begin(t, i)
		requests := s.CertificatesV1beta1().PodCertificateRequests("ns")
		if err := requests.Delete(t.Context(), "req-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if a := wait(); !a.says("somebody has deleted it; there will be another") || a.took > time.Second {
			t.Errorf("got %+v", a)
		}
		begin(t, i)() // this one is not decided in time
		if err := requests.Delete(t.Context(), "req-2", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if a := begin(t, i)(); !a.says("somebody has deleted it") {
			t.Errorf("got %+v", a)
		}
		wait = begin(t, i)
		s.decide(3, "Issued", "")
		if a := wait(); a.err != nil || a.chain != "leaf 3 root" {
			t.Errorf("got %+v", a)
		}
	})
}

// A no is for good, and told once.
func TestRefusedCertificate(t *testing.T) {
	for verdict, want := range map[string]string{
		"Denied": `PodCertificateRequest ns/req-1 was denied, reason="Why", message="so be it"`,
		"Failed": `PodCertificateRequest ns/req-1 failed, reason="Why", message="so be it"`,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newPodSigner(t)
			i := NewPodIdentity(s, "n1")
			wait := begin(t, i)
			s.decide(1, verdict, "Why")
			if a := wait(); !a.says(want) || a.event() != verdict || a.key != "" {
				t.Errorf("got %+v", a)
			}
			time.Sleep(time.Hour)
			if a := begin(t, i)(); !a.says(want) || a.event() != "" || a.renew != 0 || s.count != 1 {
				t.Errorf("later %+v", a)
			}
		})
	}
}

// A refresh begins when the signer says, and the old certificate stays until it
// is there.
func TestCertificateIsRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPodSigner(t)
		i := NewPodIdentity(s, "n1")
		wait := begin(t, i)
		s.decide(1, "Issued", "")
		first := wait()
		time.Sleep(first.renew - time.Second)
		if a := begin(t, i)(); a.chain != "leaf 1 root" || s.count != 1 {
			t.Errorf("too early: %+v", a)
		}
		time.Sleep(time.Second)
		if a := begin(t, i)(); a.err != nil || a.chain != "leaf 1 root" || a.key != first.key || a.renew != refreshPause || s.count != 2 {
			t.Errorf("while the signer thinks: %+v", a)
		}
		s.decide(2, "Issued", "")
		if a := begin(t, i)(); a.err != nil || a.chain != "leaf 2 root" || a.key == first.key || a.renew < time.Hour {
			t.Errorf("once it is issued: %+v", a)
		}
	})
}

// What is late is told once each; the old certificate stays all the same.
func TestOverdueAndExpiredCertificatesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPodSigner(t)
		i := NewPodIdentity(s, "n1")
		wait := begin(t, i)
		s.decide(1, "Issued", "")
		time.Sleep(wait().renew)
		var events []string
		for range 75 {
			a := begin(t, i)()
			if a.chain != "leaf 1 root" {
				t.Fatalf("got %+v", a)
			}
			if e := a.event(); e != "" {
				events = append(events, e+": "+a.err.Error())
			}
			time.Sleep(time.Minute)
		}
		if got := strings.Join(events, "\n"); got != "CertificateOverdueForRefresh: PodCertificate refresh overdue\nCertificateExpired: PodCertificate expired" {
			t.Errorf("told: %s", got)
		}
		s.decide(2, "Denied", "Why")
		if a := begin(t, i)(); a.chain != "leaf 1 root" || a.event() != "Denied" {
			t.Errorf("after a no: %+v", a)
		}
	})
}

func TestCertificateSaysWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPodSigner(t)
		s.PrependReactor("create", "podcertificaterequests", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewNotFound(schema.GroupResource{}, "")
		})
		if a := begin(t, NewPodIdentity(s, "n1"))(); !a.says("request a certificate of ex.com/s: the apiserver has no PodCertificateRequests in certificates.k8s.io/v1beta1") {
			t.Errorf("got %+v", a)
		}
		if a := begin(t, NewPodIdentity(fake.NewClientset(), "n1"))(); !a.says(`serviceaccounts "builder" not found`) {
			t.Errorf("got %+v", a)
		}
		if a := begin(t, NewPodIdentity(newPodSigner(t), "n2"))(); !a.says(`nodes "n2" not found`) {
			t.Errorf("got %+v", a)
		}
	})
}

func TestForgottenCertificateIsRequestedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPodSigner(t)
		i := NewPodIdentity(s, "n1")
		wait := begin(t, i)
		s.decide(1, "Issued", "")
		wait()
		i.Forget("uid-of-web")
		wait = begin(t, i)
		s.decide(2, "Issued", "")
		if a := wait(); a.chain != "leaf 2 root" || len(i.certificates.held) != 1 {
			t.Errorf("got %+v", a)
		}
	})
}

func TestKeyTypes(t *testing.T) {
	for name, want := range map[string]string{
		"RSA3072": "RSA 3072", "RSA4096": "RSA 4096", "ECDSAP256": "P-256", "ECDSAP384": "P-384", "ECDSAP521": "P-521", "ED25519": "Ed25519",
	} {
		key, proof, err := newKey(name)
		if err != nil {
			t.Fatal(err)
		}
		request, err := x509.ParseCertificateRequest(proof)
		if err != nil || request.CheckSignature() != nil || request.Subject.String() != "" {
			t.Errorf("%s: %v, %v", name, request, err)
		}
		block, rest := pem.Decode(key)
		if block.Type != "PRIVATE KEY" || len(rest) > 0 {
			t.Errorf("%s: a %s", name, block.Type)
		}
		private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		switch k := private.(type) {
		case *rsa.PrivateKey:
			got = fmt.Sprint("RSA ", k.N.BitLen())
		case *ecdsa.PrivateKey:
			got = k.Curve.Params().Name
		case ed25519.PrivateKey:
			got = "Ed25519"
		}
		if got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
	if _, _, err := newKey("DSA"); err == nil || !strings.Contains(err.Error(), "type DSA: want RSA3072") {
		t.Errorf("DSA: %v", err)
	}
}

func TestWaitForSignerEndsWithThePod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, _, err := NewPodIdentity(newPodSigner(t), "n1").Certificate(ctx, podOf("web"), "id", 0, &v1.PodCertificateProjection{SignerName: "s", KeyType: "ED25519"})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
