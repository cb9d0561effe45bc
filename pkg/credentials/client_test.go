package credentials

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/metrics/metricstest"
)

// bootstrap gives the bed a bootstrap kubeconfig with a token.
func (b *bed) bootstrap() {
	b.opts.Rotate = true
	b.opts.Bootstrap = b.kubeconfig("etc/bootstrap-kubelet.conf", clientcmdapi.AuthInfo{Token: "boot-token"})
}

func (b *bed) current() string { return filepath.Join(b.opts.CertDir, "kubelet-client-current.pem") }

// keep puts a certificate where those that were asked for are, and the
// kubeconfig that leads there.
func (b *bed) keep(from, to time.Time) {
	b.t.Helper()
	if err := os.MkdirAll(b.opts.CertDir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	cert, key := b.ca.pair(b.t, nodeUser, from, to)
	dated := b.write("pki/kubelet-client-2020.pem", append(cert, key...))
	if err := os.Symlink(dated, b.current()); err != nil {
		b.t.Fatal(err)
	}
	b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{ClientCertificate: b.current(), ClientKey: b.current()})
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// TestBootstrap: a bootstrap token leads to a certificate and a kubeconfig; a
// restart while the request waits for approval goes on with the same one.
func TestBootstrap(t *testing.T) {
	b := newBed(t)
	b.bootstrap()
	b.hold = true
	first, err := Open(b.opts)
	if err != nil {
		t.Fatal(err)
	}
	stop := b.start(first.Run)
	eventually(t, "a request", func() bool { return len(b.asked()) == 1 })
	select {
	case <-first.Ready():
		t.Error("ready without a certificate")
	default:
	}
	key := filepath.Join(b.opts.CertDir, "kubelet-client.key.tmp")
	if m := mode(t, key); m != 0o600 {
		t.Errorf("the key has mode %o", m)
	}
	stop()

	c := b.run()
	me := client(t, c.Config())
	go b.approve()
	got, err := whoami(t, me, b.URL)
	if err != nil || !strings.HasPrefix(got, nodeUser+" ") {
		t.Fatalf("after approval: %q, %v", got, err)
	}
	if users := b.asked(); !slices.Equal(users, []string{"system:bootstrap:abcdef"}) {
		t.Errorf("certificates were asked for by %q", users)
	}
	checkRequest(t, b.requests[0])
	if _, err := os.Stat(key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the key of the request: %v", err)
	}
	checkKubeconfig(t, b)
	if m := mode(t, b.opts.CertDir); m != 0o700 {
		t.Errorf("the folder of certificates has mode %o", m)
	}
	if m := mode(t, b.current()); m != 0o600 {
		t.Errorf("the certificate has mode %o", m)
	}
}

func checkRequest(t *testing.T, r *certificatesv1.CertificateSigningRequest) {
	t.Helper()
	block, _ := pem.Decode(r.Spec.Request)
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if asked.Subject.CommonName != nodeUser || !slices.Equal(asked.Subject.Organization, []string{"system:nodes"}) {
		t.Errorf("asked for %s", asked.Subject)
	}
	if r.Spec.SignerName != "kubernetes.io/kube-apiserver-client-kubelet" || !strings.HasPrefix(r.Name, "node-csr-") {
		t.Errorf("request %s to %s", r.Name, r.Spec.SignerName)
	}
	if want := []certificatesv1.KeyUsage{"digital signature", "client auth"}; !slices.Equal(r.Spec.Usages, want) {
		t.Errorf("usages %q", r.Spec.Usages)
	}
}

func checkKubeconfig(t *testing.T, b *bed) {
	t.Helper()
	eventually(t, "the kubeconfig", func() bool {
		_, err := os.Stat(b.opts.Kubeconfig)
		return err == nil
	})
	if m := mode(t, b.opts.Kubeconfig); m != 0o600 {
		t.Errorf("the kubeconfig has mode %o", m)
	}
	got, err := clientcmd.LoadFromFile(b.opts.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	user := got.AuthInfos["default-auth"]
	if got.CurrentContext != "default-context" || user == nil || user.ClientCertificate != b.current() || user.ClientKey != b.current() || user.Token != "" {
		t.Errorf("kubeconfig: context %s, user %v", got.CurrentContext, user)
	}
	if cluster := got.Clusters["default-cluster"]; cluster == nil || cluster.Server != b.URL || len(cluster.CertificateAuthorityData) == 0 {
		t.Errorf("kubeconfig: cluster %v", cluster)
	}
}

// TestRotation: a certificate is renewed as itself before it expires, and
// nothing is spoken by the old one any more.
func TestRotation(t *testing.T) {
	b := newBed(t)
	b.bootstrap()
	b.life = 4 * time.Second
	c := b.run()
	me := client(t, c.Config())
	first, err := whoami(t, me, b.URL)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "another certificate", func() bool {
		now, err := whoami(t, me, b.URL)
		if err != nil && !strings.Contains(err.Error(), "closed") && !strings.Contains(err.Error(), errChanged.Error()) {
			t.Fatalf("during the rotation: %v", err)
		}
		return err == nil && now != first
	})
	if users := b.asked(); len(users) < 2 || users[1] != first {
		t.Errorf("certificates were asked for by %q", users)
	}
	eventually(t, "no connection by the first", func() bool { return !slices.Contains(b.users(), first) })
}

// TestExpiredWhileOff: a certificate that expired while the node was off leads
// back through the bootstrap kubeconfig.
func TestExpiredWhileOff(t *testing.T) {
	for name, rotate := range map[string]bool{"rotated": true, "not rotated": false} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.bootstrap()
			b.opts.Rotate = rotate
			b.keep(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
			c := b.run()
			if got, err := whoami(t, client(t, c.Config()), b.URL); err != nil || !strings.HasPrefix(got, nodeUser) {
				t.Errorf("%q, %v", got, err)
			}
			if users := b.asked(); !slices.Equal(users, []string{"system:bootstrap:abcdef"}) {
				t.Errorf("certificates were asked for by %q", users)
			}
		})
	}
}

// TestExpiredForGood: without another way in, the agent says so once, lets the
// apiserver judge, and goes on when somebody puts a certificate in place.
func TestExpiredForGood(t *testing.T) {
	b := newBed(t)
	b.keep(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	c := b.run()
	me := client(t, c.Config())
	if _, err := whoami(t, me, b.URL); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with an expired certificate: %v", err)
	}
	eventually(t, "a line about it", func() bool { return b.logs.count("expired") == 1 })
	from, to := hour()
	cert, key := b.ca.pair(t, nodeUser, from, to)
	b.write("pki/kubelet-client-2020.pem", append(cert, key...))
	eventually(t, "the new certificate in use", func() bool {
		got, err := whoami(t, me, b.URL)
		return err == nil && strings.HasPrefix(got, nodeUser)
	})
	if n := b.logs.count("level=WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, b.logs)
	}
}

// TestNotYetValid: with a clock that is behind, the certificate is used all the
// same.
func TestNotYetValid(t *testing.T) {
	b := newBed(t)
	b.bootstrap()
	b.keep(time.Now().Add(time.Hour), time.Now().Add(2*time.Hour))
	c := b.run()
	if got, err := whoami(t, client(t, c.Config()), b.URL); err != nil || !strings.HasPrefix(got, nodeUser) {
		t.Errorf("%q, %v", got, err)
	}
	eventually(t, "a line about it", func() bool { return b.logs.count("look at the clock") == 1 })
	if users := b.asked(); len(users) > 0 {
		t.Errorf("certificates were asked for by %q", users)
	}
}

// TestOthersKubeconfig: with rotateCertificates, the certificate of a kubeconfig
// is kept in the folder of certificates, where kubeadm looks for it; that of
// somebody else is replaced by the node's own.
func TestOthersKubeconfig(t *testing.T) {
	for _, user := range []string{nodeUser, "admin"} {
		t.Run(user, func(t *testing.T) {
			b := newBed(t)
			b.opts.Rotate = true
			from, to := hour()
			cert, key := b.ca.pair(t, user, from, to)
			b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key})
			c := b.run()
			me := client(t, c.Config())
			eventually(t, "the node's own certificate", func() bool {
				_, err := os.Stat(b.current())
				got, _ := whoami(t, me, b.URL)
				return err == nil && strings.HasPrefix(got, nodeUser)
			})
			if n := len(b.asked()); n != map[string]int{nodeUser: 0, "admin": 1}[user] {
				t.Errorf("asked for %d certificates", n)
			}
		})
	}
}

// TestTornFiles: what a power cut may leave behind is no obstacle to a
// bootstrap.
func TestTornFiles(t *testing.T) {
	b := newBed(t)
	b.bootstrap()
	b.keep(hour())
	b.write("pki/kubelet-client-2020.pem", nil)
	b.write("pki/kubelet-client.key.tmp", []byte("-----BEGIN EC"))
	c := b.run()
	if got, err := whoami(t, client(t, c.Config()), b.URL); err != nil || !strings.HasPrefix(got, nodeUser) {
		t.Errorf("%q, %v", got, err)
	}
}

// signer is the CSR API in virtual time, and what it was asked.
type signer struct {
	*fake.Clientset
	ca *authority

	mu     sync.Mutex
	life   time.Duration
	err    error       // to every request
	at     []time.Time // of requests
	last   string      // request's name
	series *metrics.Series
}

func (s *signer) set(life time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life, s.err = life, err
}

func (s *signer) times() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.at)
}

func newSigner(t *testing.T, life time.Duration, err error) *signer {
	s := &signer{Clientset: fake.NewClientset(), ca: newAuthority(t), life: life, err: err}
	s.PrependReactor("create", "certificatesigningrequests", func(a clienttesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.at = append(s.at, time.Now())
		if s.err != nil {
			return true, nil, s.err
		}
		c := a.(clienttesting.CreateAction).GetObject().(*certificatesv1.CertificateSigningRequest)
		(&server{ca: s.ca, life: s.life}).issue(c)
		// The fake does not select by name: a watch is to find this one only.
		if s.last != "" {
			if err := s.Tracker().Delete(certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests"), "", s.last); err != nil {
				return true, nil, err
			}
		}
		s.last = c.Name
		return false, nil, nil
	})
	return s
}

// inVirtualTime runs a bootstrap against the signer.
func inVirtualTime(t *testing.T, life time.Duration, err error, run func(t *testing.T, s *signer, c *Cluster, l *logs)) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, life, err)
		dir, l := t.TempDir(), &logs{}
		b := &bed{t: t, dir: dir, server: &server{ca: s.ca}, logs: l}
		b.opts = Options{NodeName: nodeName, Kubeconfig: filepath.Join(dir, "kubelet.conf"), CertDir: filepath.Join(dir, "pki"),
			Log: slog.New(slog.NewTextHandler(l, nil))}
		b.write("bootstrap.conf", []byte("{apiVersion: v1, kind: Config, current-context: x, clusters: [{name: c, cluster: {server: 'http://nowhere'}}],"+
			" users: [{name: u, user: {token: t}}], contexts: [{name: x, context: {cluster: c, user: u}}]}"))
		s.series = metrics.New(metrics.Build{})
		b.opts.Metrics = s.series.Certificates.Client
		b.opts.Bootstrap, b.opts.Rotate = filepath.Join(dir, "bootstrap.conf"), true
		c, err := Open(b.opts)
		if err != nil {
			t.Fatal(err)
		}
		c.clients = func(*rest.Config) (kubernetes.Interface, error) { return s, nil }
		c.keeper.blind = true
		stop := b.start(c.Run)
		run(t, s, c, l)
		stop()
	})
}

// TestRotationTimes: each certificate is renewed at 70 to 90 % of its life, once.
func TestRotationTimes(t *testing.T) {
	inVirtualTime(t, time.Hour, nil, func(t *testing.T, s *signer, c *Cluster, l *logs) {
		time.Sleep(5 * time.Hour)
		at := s.times()
		if len(at) < 5 || len(at) > 8 {
			t.Errorf("%d certificates of an hour in 5 hours", len(at))
		}
		different := map[time.Duration]bool{}
		for i := range at[1:] {
			after := at[i+1].Sub(at[i])
			different[after.Round(time.Minute)] = true
			if after < 42*time.Minute || after > 54*time.Minute+5*time.Second {
				t.Errorf("renewed after %s", after)
			}
		}
		if len(different) < 3 {
			t.Errorf("the times are not spread: %v", different)
		}
	})
}

// TestRenewalOfBackdated: a certificate that was dated back is renewed at 70 to
// 90 % of what it had when it came.
func TestRenewalOfBackdated(t *testing.T) {
	b := &bed{t: t, dir: t.TempDir(), server: &server{ca: newAuthority(t)}}
	cert, key := b.ca.pair(t, nodeUser, time.Now().Add(-5*time.Minute), time.Now().Add(100*time.Second))
	path := b.write("node.pem", append(cert, key...))
	leaf, err := leafOf(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if after := time.Until(renewal(leaf, path)); after < 65*time.Second || after > 91*time.Second {
		t.Errorf("renewed after %s", after)
	}
}

// TestRetries: a request that fails is tried again at a pace that hurts nobody,
// and told once; when it succeeds there are credentials.
func TestRetries(t *testing.T) {
	for name, failure := range map[string]error{
		"denied":      apierrors.NewUnauthorized("no such token"),
		"unreachable": &url.Error{Op: "Post", URL: "https://nowhere", Err: errors.New("connection refused")},
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, time.Hour, failure, func(t *testing.T, s *signer, c *Cluster, l *logs) {
				time.Sleep(time.Hour)
				if n := len(s.times()); n < 80 || n > 130 {
					t.Errorf("%d requests in an hour", n)
				}
				if n := l.count("no certificate yet"); n != 1 {
					t.Errorf("%d lines:\n%s", n, l)
				}
				got := metricstest.Of(s.series.Handler())
				if failed, all := got["kubelet_certificate_manager_client_expiration_renew_errors"], len(s.times()); int(failed) != all {
					t.Errorf("%d requests failed, %v are counted", all, failed)
				}
				if ttl := got["kubelet_certificate_manager_client_ttl_seconds"]; !math.IsInf(ttl, 1) {
					t.Errorf("without a certificate it expires in %v s", ttl)
				}
				s.set(time.Hour, nil)
				time.Sleep(40 * time.Second)
				select {
				case <-c.Ready():
				default:
					t.Errorf("no credentials:\n%s", l)
				}
				if ttl := metricstest.Of(s.series.Handler())["kubelet_certificate_manager_client_ttl_seconds"]; ttl < 3500 || ttl > 3600 {
					t.Errorf("it expires in %v s, and is of one hour", ttl)
				}
			})
		})
	}
}

// TestShortLife: certificates that are expired when they come lead to no hot
// loop.
func TestShortLife(t *testing.T) {
	inVirtualTime(t, -time.Second, nil, func(t *testing.T, s *signer, c *Cluster, l *logs) {
		time.Sleep(time.Hour)
		if n := len(s.times()); n < 2 || n > 130 {
			t.Errorf("%d requests in an hour", n)
		}
	})
}
