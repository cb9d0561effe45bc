package credentials

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/certificate"
	"k8s.io/client-go/util/certificate/csr"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/klog/v2"

	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/record"
)

const (
	// every is how often files and the clock are looked at though nothing is
	// noticed: inotify can lose events, and clocks jump.
	every = time.Minute
	// quiet is how long after a change the files are left to their writer.
	quiet = 100 * time.Millisecond
	// approval is how long one request is waited for before it is looked at anew.
	approval = 15 * time.Minute
)

// kind is what a certificate is for.
type kind struct {
	name   string // of files: kubelet-<name>.key.tmp
	signer string
	usage  certificatesv1.KeyUsage
}

// order is what a certificate should be, as far as is known now.
type order struct {
	at       time.Time // when it is to be asked for; zero: not at all
	template *x509.CertificateRequest
	as       string // tells one requester from another
	connect  func() (client kubernetes.Interface, closed func(), err error)
	files    []string // whose change is to be seen at once
}

// same says that an answer to the one is an answer to the other.
func (o order) same(p order) bool {
	return o.as == p.as && requestName(nil, o.template, "") == requestName(nil, p.template, "")
}

// keeper keeps one certificate fresh: it looks when something has changed, and
// asks when it is time to.
type keeper struct {
	kind
	dir     string
	store   certificate.Store
	log     *slog.Logger
	look    func(now time.Time) order
	poke    chan struct{} // ask look again
	issued  bool          // a certificate was issued to this process
	failed  told
	metrics *metrics.Certificate // nil for nobody
	blind   bool                 // watches no files: for tests in virtual time
}

func newKeeper(k kind, dir string, store certificate.Store, log *slog.Logger, look func(time.Time) order) *keeper {
	return &keeper{kind: k, dir: dir, store: store, log: log.With("certificate", k.name), look: look, poke: make(chan struct{}, 1)}
}

// again makes Run look again.
func (k *keeper) again() {
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// request is one that runs.
type request struct {
	order
	cancel context.CancelFunc
	result chan error
}

// asking is what has become of asking so far.
type asking struct {
	running *request // nil while none runs
	pause   *wait.Backoff
	notNow  time.Time // the next not before
}

func (a *asking) result() <-chan error {
	if a.running == nil {
		return nil
	}
	return a.running.result
}

// Run looks and asks until ctx ends.
func (k *keeper) Run(ctx context.Context) error {
	w := newWatch(k.log, k.blind)
	defer w.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	a := asking{pause: newPause()}
	settling := false // files have changed, perhaps not for the last time
	done := ctx.Done()
	for {
		select {
		case <-done:
			if a.running == nil {
				return ctx.Err()
			}
			done = nil // the request ends with ctx, and is awaited
			continue
		case e := <-w.events():
			if w.names[e.Name] && !settling {
				settling = true
				timer.Reset(quiet)
			}
			continue
		case <-w.errors(): // events were lost
		case err := <-a.result():
			if a.running.cancel(); ctx.Err() != nil {
				return ctx.Err()
			}
			k.ended(err)
			a.running, a.notNow = nil, time.Now().Add(a.pause.Step())
		case <-k.poke:
		case <-timer.C:
		}
		settling = false
		now := time.Now()
		o := k.look(now)
		if w.follow(o.files) {
			o = k.look(now)
		}
		timer.Reset(k.act(ctx, &a, o, now))
	}
}

// act asks if it is time to, ends a request for what is not wanted any more, and
// says when to look again.
func (k *keeper) act(ctx context.Context, a *asking, o order, now time.Time) time.Duration {
	until := o.at.Sub(now)
	switch {
	case a.running != nil:
		if o.at.IsZero() || until > 0 || !o.same(a.running.order) {
			a.running.cancel()
		}
	case o.at.IsZero():
	case until > 0:
		a.pause = newPause()
		return min(every, until)
	case now.Before(a.notNow):
		return min(every, a.notNow.Sub(now))
	default:
		a.running = k.begin(ctx, o)
	}
	return every
}

// newPause are the pauses after one request and before the next: those of a
// thousand nodes that lost their power together are to spread.
func newPause() *wait.Backoff {
	return &wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.3, Steps: math.MaxInt32, Cap: 30 * time.Second}
}

func (k *keeper) ended(err error) {
	switch news := k.failed.news(err); {
	case err == nil:
		k.issued = true
		k.log.Info("certificate is issued")
	case errors.Is(err, context.Canceled): // another is wanted now
	default:
		k.metrics.Failed()
		if news {
			k.log.Warn("no certificate yet, trying again", "error", err)
		}
	}
}

func (k *keeper) begin(ctx context.Context, o order) *request {
	ctx, cancel := context.WithTimeoutCause(ctx, approval, fmt.Errorf("gave up after %s, trying anew", approval))
	r := &request{order: o, cancel: cancel, result: make(chan error, 1)}
	go func() { r.result <- k.ask(ctx, o) }()
	return r
}

// ask asks for a certificate and waits for it. The key and the name of the
// request stay the same until it is issued, so that trying again, also after a
// restart, is asking for the same.
func (k *keeper) ask(ctx context.Context, o order) error {
	key, keyPEM, err := k.key()
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	requestPEM, err := certutil.MakeCSRFromTemplate(key, o.template)
	if err != nil {
		return fmt.Errorf("make a certificate request: %w", err)
	}
	client, closed, err := o.connect()
	if err != nil {
		return fmt.Errorf("ask for a certificate: %w", err)
	}
	defer closed()
	ctx = klog.NewContext(ctx, logr.Discard()) // what matters is in the error
	name := requestName(key.Public(), o.template, k.usage)
	usages := []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, k.usage}
	name, uid, err := csr.RequestCertificateWithContext(ctx, client, requestPEM, name, k.signer, nil, usages, key)
	if err != nil {
		// An old request by that name is expired or another's. The library has
		// no type for it.
		if strings.Contains(err.Error(), "not compatible") {
			err = errors.Join(err, k.forget())
		}
		return because(ctx, fmt.Errorf("ask for a certificate: %w", err))
	}
	k.log.Debug("certificate is asked for, waiting for it to be approved and issued", "request", name)
	certPEM, err := csr.WaitForCertificate(ctx, client, name, uid)
	if err != nil {
		return because(ctx, fmt.Errorf("wait for certificate request %s: %w", name, err))
	}
	_, err = leafOf(certPEM, keyPEM) // the store would write it first
	if err == nil {
		_, err = k.store.Update(certPEM, keyPEM)
	}
	if err != nil {
		return fmt.Errorf("store the certificate of request %s: %w", name, err)
	}
	return k.forget()
}

// because adds why the context ended, if it did.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", err, context.Cause(ctx))
	}
	return err
}

func (k *keeper) keyName() string { return "kubelet-" + k.name + ".key.tmp" }

// key is the one of the next certificate, on disk until that is issued.
func (k *keeper) key() (crypto.Signer, []byte, error) {
	raw, err := os.ReadFile(filepath.Join(k.dir, k.keyName()))
	if err == nil {
		if parsed, err := keyutil.ParsePrivateKeyPEM(raw); err == nil {
			if key, ok := parsed.(crypto.Signer); ok {
				return key, raw, nil
			}
		} // torn by a power cut, say
	}
	if raw, err = keyutil.MakeEllipticPrivateKeyPEM(); err != nil {
		return nil, nil, err
	}
	parsed, err := keyutil.ParsePrivateKeyPEM(raw)
	if err != nil {
		return nil, nil, err
	}
	return parsed.(crypto.Signer), raw, record.Replace(k.dir, k.keyName(), raw)
}

// forget makes the next request have another key and name.
func (k *keeper) forget() error {
	err := os.Remove(filepath.Join(k.dir, k.keyName()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// requestName is a name for the request by all that is in it: asking twice is
// asking for the same.
func requestName(public crypto.PublicKey, t *x509.CertificateRequest, usage certificatesv1.KeyUsage) string {
	if t == nil {
		return ""
	}
	sum := sha512.New512_256()
	if public != nil {
		der, err := x509.MarshalPKIXPublicKey(public)
		fmt.Fprintf(sum, "%x %v", der, err) // no error for keys that we made
	}
	fmt.Fprintf(sum, "%q %q %q %q %q", t.Subject.CommonName, t.Subject.Organization, usage, t.DNSNames, t.IPAddresses)
	return "node-csr-" + base64.RawURLEncoding.EncodeToString(sum.Sum(nil))
}

// renewal is when the certificate in a file is renewed: at 70 to 90 % of its
// life (behaviour row 1.19-3), spread over the nodes, and the same whenever one
// looks. Life begins when the file was written: the cluster's signer dates
// certificates five minutes back, which may be more than all they have.
func renewal(leaf *x509.Certificate, path string) time.Time {
	began := leaf.NotBefore
	if info, err := os.Stat(path); err == nil && info.ModTime().After(began) && info.ModTime().Before(leaf.NotAfter) {
		began = info.ModTime()
	}
	sum := sha256.Sum256(leaf.Raw)
	spread := float64(binary.BigEndian.Uint32(sum[:])) / math.MaxUint32
	return began.Add(time.Duration((0.7 + 0.2*spread) * float64(leaf.NotAfter.Sub(began))))
}

// told remembers what was said, so that it is said once.
type told struct{ last string }

func (t *told) news(err error) bool {
	text := ""
	if err != nil {
		text = err.Error()
	}
	news := text != t.last
	t.last = text
	return news
}
