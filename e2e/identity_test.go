package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/api/certificates/v1beta1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// authority is a certificate authority of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// identityBed is a node of a cluster of its own, which has all sources of
// identity.
func identityBed(t *testing.T) *joined {
	p, err := lab.StartControlPlane(t, lab.ControlPlaneOptions{
		FeatureGates:  []string{"ClusterTrustBundle=true", "ClusterTrustBundleProjection=true", "PodCertificateRequest=true"},
		RuntimeConfig: []string{"certificates.k8s.io/v1beta1=true"},
	})
	if err != nil {
		t.Fatal(err)
	}
	j := joinedBed(t, p, lab.Containerd2)
	j.join()
	return j
}

// withVolume is a pod that shows the sources at /id.
func withVolume(name, more, sources string) string {
	return podOf(name, more+`
automountServiceAccountToken: false
terminationGracePeriodSeconds: 2
volumes: [{name: id, projected: {sources: [`+sources+`]}}]
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"], volumeMounts: [{name: id, mountPath: /id}]}`)
}

// shown is what the pod's container finds at a path.
func (j *joined) shown(p *v1.Pod, path string) string {
	j.t.Helper()
	return j.exec(j.instances(string(p.UID))["main"], "cat", path)
}

// review asks the apiserver whose token it is.
func (j *joined) review(token string, audiences ...string) authenticationv1.TokenReviewStatus {
	j.t.Helper()
	r, err := j.client.AuthenticationV1().TokenReviews().Create(j.t.Context(),
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}}, metav1.CreateOptions{})
	j.must(err)
	return r.Status
}

// TestPodIdentity: what proves to others which pod this is, from a real apiserver.
func TestPodIdentity(t *testing.T) {
	j := identityBed(t)
	for _, part := range []struct {
		name string
		test func(*joined)
	}{
		{"EveryPodCanAskTheApiserver", (*joined).canAsk}, {"TokenIsBoundToPod", (*joined).tokenIsBound}, {"BundleFollowsItsChange", (*joined).bundleFollows}, {"CertificateOfASigner", (*joined).certificate},
		{"NothingIsForbidden", (*joined).refusedNothing}, {"TokenOutlivesApiserverAndAgent", (*joined).tokenOutlives},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(j.in(t)) })
	}
}

// canAsk: a pod that says nothing of it finds what a client in it needs.
func (j *joined) canAsk() {
	j.create(spec("asks", ""))
	p := j.waitReady("asks")
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	if got := j.shown(p, dir+"namespace"); got != j.ns {
		j.t.Errorf("namespace %q", got)
	}
	ca, err := os.ReadFile(j.plane.CAFile())
	j.must(err)
	if got := j.shown(p, dir+"ca.crt"); got != strings.TrimSpace(string(ca)) {
		j.t.Errorf("authority %s", got)
	}
	if s := j.review(j.shown(p, dir+"token")); !s.Authenticated || s.User.Extra["authentication.kubernetes.io/pod-uid"][0] != string(p.UID) {
		j.t.Errorf("the token is of %+v", s)
	}
}

func (j *joined) tokenIsBound() {
	j.create(withVolume("token", "securityContext: {runAsUser: 1234}",
		"{serviceAccountToken: {path: api}}, {serviceAccountToken: {path: vault, audience: vault, expirationSeconds: 600}}"))
	p := j.waitReady("token")
	s := j.review(j.shown(p, "/id/api"))
	if !s.Authenticated || s.User.Username != "system:serviceaccount:"+j.ns+":default" {
		j.t.Errorf("the token is of %+v", s)
	}
	for key, want := range map[string]string{
		"authentication.kubernetes.io/pod-name": "token", "authentication.kubernetes.io/pod-uid": string(p.UID), "authentication.kubernetes.io/node-name": j.Node,
	} {
		if got := s.User.Extra[key]; len(got) != 1 || got[0] != want {
			j.t.Errorf("%s is %v, want %s", key, got, want)
		}
	}
	vault := j.shown(p, "/id/vault")
	if s := j.review(vault, "vault"); !s.Authenticated {
		j.t.Errorf("not for its audience: %+v", s)
	}
	if s := j.review(vault); s.Authenticated {
		j.t.Error("good for the apiserver too, which it is not meant for")
	}
	if got := j.exec(j.instances(string(p.UID))["main"], "stat", "-L", "-c", "%a %u", "/id/api", "/id/vault"); got != "600 1234\n600 1234" {
		j.t.Errorf("modes and owners: %s", got)
	}
	// A token of a pod that is gone is good for nothing.
	j.kubectl("delete", "pod", "token", "--wait=false")
	j.waitGone("token")
	j.eventually("the token ends with its pod", 30*time.Second, func() error { // the apiserver remembers a while
		if j.review(vault, "vault").Authenticated {
			return errors.New("it is good still")
		}
		return nil
	})
}

func (j *joined) bundleFollows() {
	one, two := newAuthority(j.t, "one"), newAuthority(j.t, "two")
	all := j.client.CertificatesV1beta1().ClusterTrustBundles()
	b, err := all.Create(j.t.Context(), &v1beta1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "ex.com:" + j.ns + ":live", Labels: map[string]string{"live": "yes"}},
		Spec: v1beta1.ClusterTrustBundleSpec{SignerName: "ex.com/" + j.ns, TrustBundle: one.pem}}, metav1.CreateOptions{})
	j.must(err)
	j.create(withVolume("bundle", "", fmt.Sprintf("{clusterTrustBundle: {path: name, name: %s}}, {clusterTrustBundle: {path: signer, signerName: ex.com/%s, labelSelector: {matchLabels: {live: 'yes'}}}}", b.Name, j.ns)))
	p := j.waitReady("bundle")
	for _, path := range []string{"/id/name", "/id/signer"} {
		if got := j.shown(p, path); got != strings.TrimSpace(one.pem) {
			j.t.Errorf("%s: %s", path, got)
		}
	}
	b.Spec.TrustBundle = two.pem
	_, err = all.Update(j.t.Context(), b, metav1.UpdateOptions{})
	j.must(err)
	j.eventually("the volume shows the new bundle", 30*time.Second, func() error {
		if got := j.shown(p, "/id/name") + j.shown(p, "/id/signer"); got != strings.TrimSpace(two.pem)+strings.TrimSpace(two.pem) {
			return fmt.Errorf("it shows %s", got)
		}
		return nil
	})
	// What is not there is waited for, and taken when it comes.
	j.create(withVolume("early", "", "{clusterTrustBundle: {path: name, name: later-"+j.ns+"}}"))
	j.awaitTold("early", "FailedMount", "there is no ClusterTrustBundle with metadata.name=later-"+j.ns)
	_, err = all.Create(j.t.Context(), &v1beta1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "later-" + j.ns},
		Spec: v1beta1.ClusterTrustBundleSpec{TrustBundle: one.pem}}, metav1.CreateOptions{})
	j.must(err)
	j.waitReady("early")
}

func (j *joined) certificate() {
	ca := newAuthority(j.t, "signer")
	ctx, stop := context.WithCancel(j.t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- j.sign(ctx, ca) }()
	j.create(withVolume("cert", "", fmt.Sprintf(
		"{podCertificate: {signerName: ex.com/%s, keyType: ED25519, credentialBundlePath: all.pem}}, {podCertificate: {signerName: ex.com/%s, keyType: ECDSAP256, keyPath: key.pem, certificateChainPath: chain.pem}}", j.ns, j.ns)))
	p := j.waitReady("cert")
	all := []byte(j.shown(p, "/id/all.pem"))
	for what, pair := range map[string][2][]byte{
		"all in one": {all, all}, "a file each": {[]byte(j.shown(p, "/id/chain.pem")), []byte(j.shown(p, "/id/key.pem"))},
	} {
		c, err := tls.X509KeyPair(pair[0], pair[1])
		if err != nil {
			j.t.Errorf("%s: %v", what, err)
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca.cert)
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		j.must(err)
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil || leaf.Subject.CommonName != string(p.UID) {
			j.t.Errorf("%s: it is of %s, %v", what, leaf.Subject, err)
		}
	}
	if bytes.Contains(all, []byte("BEGIN EC")) || !bytes.HasPrefix(all, []byte("-----BEGIN PRIVATE KEY-----")) {
		j.t.Error("the key isn't the first thing in the bundle")
	}
	stop()
	if err := <-ended; ctx.Err() == nil && err != nil {
		j.t.Error(err)
	}
}

// sign issues a certificate for every request of the namespace, named for its pod.
func (j *joined) sign(ctx context.Context, ca *authority) error {
	requests := j.client.CertificatesV1beta1().PodCertificateRequests(j.ns)
	w, err := requests.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		r, ok := e.Object.(*v1beta1.PodCertificateRequest)
		if !ok || e.Type != watch.Added {
			continue
		}
		proof, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
		if err != nil {
			return err
		}
		now := time.Now().Truncate(time.Second)
		from, to := now.Add(-time.Minute), now.Add(2*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: string(r.Spec.PodUID)},
			NotBefore: from, NotAfter: to}, ca.cert, proof.PublicKey, ca.key)
		if err != nil {
			return err
		}
		r.Status = v1beta1.PodCertificateRequestStatus{
			CertificateChain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
			NotBefore:        new(metav1.NewTime(from)), BeginRefreshAt: new(metav1.NewTime(now.Add(time.Hour))), NotAfter: new(metav1.NewTime(to)),
			Conditions: []metav1.Condition{{Type: v1beta1.PodCertificateRequestConditionTypeIssued, Status: metav1.ConditionTrue, Reason: "Test", Message: "issued", LastTransitionTime: metav1.Now()}},
		}
		if _, err := requests.UpdateStatus(ctx, r, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// tokenOutlives: while the apiserver is away the pod's container starts again, and
// so does the agent: both go on with the token that the volume has.
func (j *joined) tokenOutlives() {
	j.create(withVolume("kept", "", "{serviceAccountToken: {path: api}}"))
	p := j.waitReady("kept")
	token := j.shown(p, "/id/api")
	j.must(j.plane.StopAPIServer())
	first := j.instances(string(p.UID))["main"]
	j.exec(first, "kill", "1")
	j.eventually("the container starts again", 60*time.Second, func() error {
		if now := j.instances(string(p.UID))["main"]; now == "" || now == first {
			return fmt.Errorf("it is %q; the pod waits for %v", now, j.pod("kept").Waits)
		}
		return nil
	})
	j.restart()
	j.awaitTold("kept", "FailedMount", "fetch a token of service account "+j.ns+"/default")
	if got := j.shown(p, "/id/api"); got != token {
		j.t.Error("it has another token")
	}
	if waits := j.pod("kept").Waits; slices.Contains(waits, "volumes are being mounted") {
		j.t.Errorf("its volumes can't be used: it waits for %q", waits)
	}
	j.must(j.plane.StartAPIServer())
	j.eventually("the volume has a new token", 90*time.Second, func() error {
		if j.shown(p, "/id/api") == token {
			return fmt.Errorf("the pod waits for %v", j.pod("kept").Waits)
		}
		return nil
	})
	if s := j.review(j.shown(p, "/id/api")); !s.Authenticated {
		j.t.Errorf("the new token is no good: %+v", s)
	}
}
