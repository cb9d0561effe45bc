package credentials

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/certificate"
	"k8s.io/client-go/util/keyutil"
	netutils "k8s.io/utils/net"

	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/record"
)

// servingKind are the certificates by which others know a node (behaviour row
// 1.19-4).
var servingKind = kind{name: "server", signer: certificatesv1.KubeletServingSignerName, usage: certificatesv1.UsageServerAuth}

// ServingOptions say where the certificate of the agent's own server comes from.
type ServingOptions struct {
	NodeName string
	CertDir  string // made with mode 0700
	CertFile string // tlsCertFile; read again when it changes
	KeyFile  string // tlsPrivateKeyFile
	// Cluster is asked for certificates, with serverTLSBootstrap; nil means not to.
	Cluster *Cluster
	// RSA says that tlsCipherSuites has nothing for a key of another kind.
	RSA     bool
	Log     *slog.Logger
	Metrics *metrics.Certificate // nil for nobody
}

// Serving is the certificate of the agent's own server: one that the cluster
// issues, or that of files, or one signed by itself.
type Serving struct {
	options ServingOptions
	log     *slog.Logger
	paths   [][2]string // of certificate and key; the first that is there counts
	keeper  *keeper
	problem told
	clients func() (kubernetes.Interface, error)
	current atomic.Pointer[tls.Certificate]

	mu        sync.Mutex
	addresses []v1.NodeAddress
}

// OpenServing reads the certificate that is there, or signs one itself where no
// other is to come. An error says that the files of the configuration cannot be
// used.
func OpenServing(o ServingOptions) (*Serving, error) {
	if err := os.MkdirAll(o.CertDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of certificates (--cert-dir): %w", err)
	}
	certs, err := certificate.NewFileStoreWithLogger(logr.Discard(), "kubelet-server", o.CertDir, o.CertDir, "", "")
	if err != nil {
		return nil, fmt.Errorf("open serving certificates in %s: %w", o.CertDir, err)
	}
	s := &Serving{options: o, log: o.Log}
	if o.Cluster != nil {
		s.paths = append(s.paths, [2]string{certs.CurrentPath(), certs.CurrentPath()})
		s.clients = sync.OnceValues(func() (kubernetes.Interface, error) { return o.Cluster.clients(o.Cluster.Config()) })
	}
	if o.CertFile != "" {
		s.paths = append(s.paths, [2]string{o.CertFile, o.KeyFile})
	}
	if len(s.paths) == 0 {
		pair := [2]string{filepath.Join(o.CertDir, "kubelet.crt"), filepath.Join(o.CertDir, "kubelet.key")}
		if err := s.sign(pair); err != nil {
			return nil, fmt.Errorf("sign a serving certificate: %w", err)
		}
		s.paths = append(s.paths, pair)
	}
	s.keeper = newKeeper(servingKind, o.CertDir, certs, o.Log, s.look)
	s.keeper.metrics = o.Metrics
	o.Metrics.Expires(s.expires)
	if err := s.read(); err != nil && o.Cluster == nil {
		return nil, fmt.Errorf("serving certificate (tlsCertFile, tlsPrivateKeyFile): %w", err)
	}
	return s, nil
}

// sign makes a certificate that nobody else vouches for, unless it is there.
func (s *Serving) sign(pair [2]string) error {
	if old, err := readPair(pair); err == nil && time.Now().Before(old.Leaf.NotAfter) {
		return nil
	}
	cert, key, err := selfSigned(s.options.NodeName, s.options.RSA, time.Now())
	if err != nil {
		return err
	}
	for i, content := range [][]byte{cert, key} {
		if err := record.Replace(s.options.CertDir, filepath.Base(pair[i]), content); err != nil {
			return err
		}
	}
	return nil
}

// selfSigned is a certificate for a year and its key, as PEM. ECDSA is the rule: an
// RSA key costs a millisecond of each new connection, and a second of the first
// start.
func selfSigned(node string, needsRSA bool, now time.Time) (cert, key []byte, err error) {
	var private crypto.Signer
	if needsRSA {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: node}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0), // clocks differ
	}
	if ip := netutils.ParseIPSloppy(node); ip != nil {
		t.IPAddresses = append(t.IPAddresses, ip)
	} else {
		t.DNSNames = append(t.DNSNames, node)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	key, err = keyutil.MarshalPrivateKeyToPEM(private)
	return pem.EncodeToMemory(&pem.Block{Type: certutil.CertificateBlockType, Bytes: der}), key, err
}

// Certificate is for tls.Config.GetCertificate.
func (s *Serving) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := s.current.Load(); cert != nil {
		return cert, nil
	}
	return nil, errors.New("no serving certificate yet: see whether the node's certificate signing requests (kubernetes.io/kubelet-serving) are approved")
}

// SetAddresses tells what the node's addresses are: a certificate is for
// them, and another is asked for when they change.
func (s *Serving) SetAddresses(addresses []v1.NodeAddress) {
	s.mu.Lock()
	s.addresses = slices.Clone(addresses)
	s.mu.Unlock()
	s.keeper.again()
}

// Run renews the certificate and reads changed files, until ctx ends.
func (s *Serving) Run(ctx context.Context) error { return s.keeper.Run(ctx) }

// read takes the first certificate that is there. What was taken before is kept
// when there is none.
func (s *Serving) read() error {
	var wrong []error
	for _, pair := range s.paths {
		cert, err := readPair(pair)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		old := s.current.Swap(cert)
		if old != nil && !old.Leaf.Equal(cert.Leaf) {
			s.options.Metrics.Rotated(time.Since(old.Leaf.NotBefore))
			s.log.Info("serving certificate has changed", "file", pair[0], "expires", cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
		return nil
	}
	return errors.Join(wrong...)
}

// expires is when the certificate does, zero if there is none.
func (s *Serving) expires() time.Time {
	if cert := s.current.Load(); cert != nil {
		return cert.Leaf.NotAfter
	}
	return time.Time{}
}

func readPair(pair [2]string) (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(pair[0], pair[1])
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, fmt.Errorf("%s with key %s: %w", pair[0], pair[1], err)
	}
	return &cert, nil
}

// look reads the files, and says what is to be asked for.
func (s *Serving) look(now time.Time) order {
	var o order
	for _, pair := range s.paths {
		o.files = append(o.files, pair[0], pair[1])
	}
	err := s.read()
	if s.options.Cluster == nil {
		if s.problem.news(err) && err != nil {
			s.log.Warn("serving certificate cannot be read, going on with the one before", "error", err)
		}
		return o
	}
	s.mu.Lock()
	addresses := s.addresses
	s.mu.Unlock()
	o.template = servingTemplate(s.options.NodeName, addresses)
	o.connect = func() (kubernetes.Interface, func(), error) {
		client, err := s.clients()
		return client, func() {}, err
	}
	issued, err := readPair(s.paths[0])
	switch {
	case o.template == nil: // no addresses yet
	case err != nil || now.After(issued.Leaf.NotAfter) || !covers(issued.Leaf, o.template):
		o.at = now
	default:
		o.at = renewal(issued.Leaf, s.paths[0][0])
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // it is asked for
	}
	if s.problem.news(err) && err != nil {
		s.log.Warn("serving certificate cannot be read, asking for another", "error", err)
	}
	return o
}

// servingTemplate is what a node asks for: its name and addresses. Without an
// IP address there is nothing to ask for yet.
func servingTemplate(node string, addresses []v1.NodeAddress) *x509.CertificateRequest {
	t := &x509.CertificateRequest{Subject: subject(node)}
	for _, a := range addresses {
		ip := netutils.ParseIPSloppy(a.Address)
		switch a.Type {
		case v1.NodeHostName, v1.NodeInternalDNS, v1.NodeExternalDNS:
			if ip == nil && a.Address != "" {
				t.DNSNames = append(t.DNSNames, a.Address)
			}
		}
		if ip != nil && a.Type != v1.NodeInternalDNS && a.Type != v1.NodeExternalDNS {
			t.IPAddresses = append(t.IPAddresses, ip)
		}
	}
	if len(t.IPAddresses) == 0 {
		return nil
	}
	slices.Sort(t.DNSNames)
	t.DNSNames = slices.Compact(t.DNSNames)
	slices.SortFunc(t.IPAddresses, func(a, b net.IP) int { return slices.Compare(a.To16(), b.To16()) })
	t.IPAddresses = slices.CompactFunc(t.IPAddresses, net.IP.Equal)
	return t
}

// covers says that a certificate is good for all that would be asked for. More
// than that does no harm.
func covers(leaf *x509.Certificate, t *x509.CertificateRequest) bool {
	for _, name := range t.DNSNames {
		if !slices.Contains(leaf.DNSNames, name) {
			return false
		}
	}
	for _, ip := range t.IPAddresses {
		if !slices.ContainsFunc(leaf.IPAddresses, ip.Equal) {
			return false
		}
	}
	return leaf.Subject.CommonName == t.Subject.CommonName
}
