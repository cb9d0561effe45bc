package credentials

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"k8s.io/api/certificates/v1beta1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	certificates "k8s.io/client-go/kubernetes/typed/certificates/v1beta1"
)

const (
	// issuePatience is how long a pod's volumes wait for a signer at a time.
	issuePatience = 10 * time.Second
	// refreshPause is the time between two looks at the request for a certificate
	// that is to replace one.
	refreshPause = time.Minute
	// refreshJitter keeps the refreshes of many pods apart, and refreshOverdue is
	// when people are told that one is late (behaviour row 1.12-11).
	refreshJitter  = 5 * time.Minute
	refreshOverdue = 10 * time.Minute
)

// certKey is the source that a certificate is for.
type certKey struct {
	pod    types.UID
	volume string
	index  int
}

// podCertificate is what is known of one source. It is a value: only the pod's own
// mount changes it, and there is one at a time.
type podCertificate struct {
	key, chain       []byte // PEM; nil before the first is issued
	refresh, expires time.Time
	// asked is the request that is not decided yet, and its key.
	asked    string
	askedKey []byte
	// refused is for good: a signer has said no.
	refused error
	// What people were told already.
	overdue, expired bool
}

// podCertificates are those that pods have now.
type podCertificates struct {
	mu   sync.Mutex
	held map[certKey]podCertificate
}

func (c *podCertificates) get(k certKey) podCertificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held[k]
}

func (c *podCertificates) put(k certKey, now podCertificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[k] = now
}

func (c *podCertificates) forget(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.held {
		if k.pod == uid {
			delete(c.held, k)
		}
	}
}

// Told is an error that people are told of as an event of its own.
type Told struct {
	Reason string
	Err    error
}

func (e *Told) Error() string { return e.Err.Error() }

func (e *Told) Unwrap() error { return e.Err }

// EventReason is the reason of the event.
func (e *Told) EventReason() string { return e.Reason }

// Certificate for the source of that index in the pod's volume, with its key, and
// when to ask for the next (behaviour row 1.12-11). A new one is requested when
// there is none, and when the signer says that it is time; until it is there the
// old one is what the pod has.
func (i *PodIdentity) Certificate(ctx context.Context, p *v1.Pod, volume string, index int, from *v1.PodCertificateProjection) (key, chain []byte, renew time.Time, err error) {
	k := certKey{p.UID, volume, index}
	c := i.certificates.get(k)
	if c.refused == nil && !time.Now().Before(c.refresh) {
		err = i.advance(ctx, p, from, &c)
	}
	if c.refused != nil && err == nil {
		err = c.refused
	}
	if told := new(Told); !errors.As(err, &told) { // one event at a time
		err = errors.Join(c.late(time.Now()), err)
	}
	i.certificates.put(k, c)
	switch {
	case err != nil:
	case c.asked != "":
		renew = time.Now().Add(refreshPause)
	default:
		renew = c.refresh
	}
	return c.key, c.chain, renew, err
}

// late says once that the certificate is overdue for its refresh, and once that
// it has expired.
func (c *podCertificate) late(now time.Time) error {
	switch {
	case c.key == nil:
	case now.After(c.expires) && !c.expired:
		c.overdue, c.expired = true, true
		return &Told{"CertificateExpired", errors.New("PodCertificate expired")}
	case now.After(c.refresh.Add(refreshOverdue)) && !c.overdue:
		c.overdue = true
		return &Told{"CertificateOverdueForRefresh", errors.New("PodCertificate refresh overdue")}
	}
	return nil
}

// advance requests a certificate, unless that was done, and waits a moment for the
// signer. A refresh that isn't decided yet is no error.
func (i *PodIdentity) advance(ctx context.Context, p *v1.Pod, from *v1.PodCertificateProjection, c *podCertificate) error {
	if c.asked == "" {
		if err := i.requestCertificate(ctx, p, from, c); err != nil {
			return fmt.Errorf("request a certificate of %s: %w", from.SignerName, err)
		}
	}
	r, err := i.decided(ctx, p.Namespace, c.asked)
	name := p.Namespace + "/" + c.asked
	switch {
	case errors.Is(err, errRequestGone):
		c.asked, c.askedKey = "", nil
		return fmt.Errorf("PodCertificateRequest %s: %w; there will be another", name, err)
	case err != nil:
		return fmt.Errorf("wait for PodCertificateRequest %s: %w", name, err)
	case r == nil && ctx.Err() != nil:
		return ctx.Err()
	case r == nil && c.key != nil:
		return nil
	case r == nil:
		return fmt.Errorf("PodCertificateRequest %s is not decided yet by %s", name, from.SignerName)
	}
	return c.take(r)
}

// take takes in what the signer has decided.
func (c *podCertificate) take(r *v1beta1.PodCertificateRequest) error {
	key := c.askedKey
	c.asked, c.askedKey = "", nil
	d := decision(r)
	if d.Type == v1beta1.PodCertificateRequestConditionTypeIssued {
		if r.Status.BeginRefreshAt == nil || r.Status.NotAfter == nil {
			return fmt.Errorf("PodCertificateRequest %s/%s was issued without beginRefreshAt or notAfter", r.Namespace, r.Name)
		}
		refresh := r.Status.BeginRefreshAt.Add(mathrand.N(refreshJitter))
		if earliest := time.Now().Add(refreshPause); refresh.Before(earliest) {
			refresh = earliest // where the node's clock is ahead
		}
		*c = podCertificate{key: key, chain: onlyCertificates(r.Status.CertificateChain), refresh: refresh, expires: r.Status.NotAfter.Time}
		return nil
	}
	verb := map[string]string{v1beta1.PodCertificateRequestConditionTypeDenied: "was denied"}[d.Type]
	if verb == "" {
		verb = "failed"
	}
	c.refused = fmt.Errorf("PodCertificateRequest %s/%s %s, reason=%q, message=%q", r.Namespace, r.Name, verb, d.Reason, d.Message)
	return &Told{d.Type, c.refused}
}

// decision is the condition that decides the request, nil while none does.
func decision(r *v1beta1.PodCertificateRequest) *metav1.Condition {
	for n, c := range r.Status.Conditions {
		switch c.Type {
		case v1beta1.PodCertificateRequestConditionTypeIssued, v1beta1.PodCertificateRequestConditionTypeDenied, v1beta1.PodCertificateRequestConditionTypeFailed:
			return &r.Status.Conditions[n]
		}
	}
	return nil
}

// requestCertificate makes a key, and a request for a certificate of it.
func (i *PodIdentity) requestCertificate(ctx context.Context, p *v1.Pod, from *v1.PodCertificateProjection, c *podCertificate) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	account, err := i.client.CoreV1().ServiceAccounts(p.Namespace).Get(ctx, p.Spec.ServiceAccountName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	node, err := i.client.CoreV1().Nodes().Get(ctx, i.nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	key, proof, err := newKey(from.KeyType)
	if err != nil {
		return err
	}
	r, err := i.client.CertificatesV1beta1().PodCertificateRequests(p.Namespace).Create(ctx, &v1beta1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, GenerateName: "req-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID}}},
		Spec: v1beta1.PodCertificateRequestSpec{
			SignerName: from.SignerName, PodName: p.Name, PodUID: p.UID,
			ServiceAccountName: account.Name, ServiceAccountUID: account.UID,
			NodeName: types.NodeName(node.Name), NodeUID: node.UID,
			MaxExpirationSeconds: from.MaxExpirationSeconds, StubPKCS10Request: proof,
			UnverifiedUserAnnotations: from.UserAnnotations,
		},
	}, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("the apiserver has no PodCertificateRequests in certificates.k8s.io/v1beta1; are they enabled there? (%w)", err)
	}
	if err != nil {
		return err
	}
	c.asked, c.askedKey = r.Name, key
	return nil
}

var errRequestGone = errors.New("somebody has deleted it")

// decided is the request once it is decided; nil if that takes longer than
// issuePatience. A node may only list and watch requests that name it.
func (i *PodIdentity) decided(ctx context.Context, namespace, name string) (*v1beta1.PodCertificateRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, issuePatience)
	defer cancel()
	selector := fields.SelectorFromSet(fields.Set{"spec.nodeName": i.nodeName, "metadata.name": name}).String()
	requests := i.client.CertificatesV1beta1().PodCertificateRequests(namespace)
	list, err := requests.List(ctx, metav1.ListOptions{FieldSelector: selector})
	if err != nil {
		return nil, err
	}
	for n := range list.Items {
		if r := &list.Items[n]; r.Name == name {
			if decision(r) != nil {
				return r, nil
			}
			return i.awaited(ctx, requests, metav1.ListOptions{FieldSelector: selector, ResourceVersion: list.ResourceVersion}, name)
		}
	}
	return nil, errRequestGone
}

// awaited is the request once it is decided; nil if the watch ends before.
func (i *PodIdentity) awaited(ctx context.Context, requests certificates.PodCertificateRequestInterface, o metav1.ListOptions, name string) (*v1beta1.PodCertificateRequest, error) {
	w, err := requests.Watch(ctx, o)
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case e := <-w.ResultChan():
			r, ok := e.Object.(*v1beta1.PodCertificateRequest)
			switch {
			case !ok:
				return nil, nil // the end, or an error that ends it
			case r.Name != name:
			case e.Type == apiwatch.Deleted:
				return nil, errRequestGone
			case decision(r) != nil:
				return r, nil
			}
		}
	}
}

// newKey makes a key of the type, in PEM, and a certificate request that says
// nothing but proves that we have it.
func newKey(keyType string) (key, proof []byte, err error) {
	private, err := generate(keyType)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key of type %s: %w", keyType, err)
	}
	if proof, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private); err != nil {
		return nil, nil, fmt.Errorf("prove to have a key of type %s: %w", keyType, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key of type %s: %w", keyType, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), proof, nil
}

func generate(keyType string) (crypto.Signer, error) {
	switch keyType {
	case "RSA3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, errors.New("want RSA3072, RSA4096, ECDSAP256, ECDSAP384, ECDSAP521 or ED25519")
}

// onlyCertificates is the chain without what else PEM may hold.
func onlyCertificates(chain string) []byte {
	var out bytes.Buffer
	for block, rest := pem.Decode([]byte(chain)); block != nil; block, rest = pem.Decode(rest) {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}))
	}
	return out.Bytes()
}
