package credentials

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/metrics/metricstest"
)

// shown is the certificate that a caller sees in a handshake.
func shown(t *testing.T, s *Serving) *x509.Certificate {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	served := make(chan error, 1)
	go func() { served <- tls.Server(a, &tls.Config{GetCertificate: s.Certificate}).Handshake() }()
	conn := tls.Client(b, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		return nil
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	return conn.ConnectionState().PeerCertificates[0]
}

func (b *bed) serving(o ServingOptions) *Serving {
	b.t.Helper()
	o.NodeName, o.CertDir, o.Log = nodeName, b.opts.CertDir, b.opts.Log
	s, err := OpenServing(o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.start(s.Run)
	return s
}

// TestSelfSigned: without any certificate the agent signs one itself, and keeps
// it.
func TestSelfSigned(t *testing.T) {
	b := newBed(t)
	first := shown(t, b.serving(ServingOptions{}))
	if first == nil {
		t.Fatal("no certificate")
	}
	roots := x509.NewCertPool()
	roots.AddCert(first)
	if _, err := first.Verify(x509.VerifyOptions{DNSName: nodeName, Roots: roots}); err != nil {
		t.Errorf("to one who was given it: %v", err)
	}
	if first.PublicKeyAlgorithm != x509.ECDSA {
		t.Errorf("the key is %v", first.PublicKeyAlgorithm)
	}
	if rsa := shown(t, newBed(t).serving(ServingOptions{RSA: true})); rsa.PublicKeyAlgorithm != x509.RSA {
		t.Errorf("where there are ciphers for RSA only, the key is %v", rsa.PublicKeyAlgorithm)
	}
	if m := mode(t, filepath.Join(b.opts.CertDir, "kubelet.key")); m != 0o600 {
		t.Errorf("the key has mode %o", m)
	}
	if again := shown(t, b.serving(ServingOptions{})); !first.Equal(again) {
		t.Error("another certificate after a restart")
	}
	b.write("pki/kubelet.key", nil)
	if again := shown(t, b.serving(ServingOptions{})); again == nil || again.Equal(first) {
		t.Error("the certificate of a key that is gone")
	}
}

// TestServingFiles: a certificate from files is read again when they change, one
// after the other; while they don't fit together, the one before is shown.
func TestServingFiles(t *testing.T) {
	b := newBed(t)
	from, to := hour()
	cert, key := b.ca.pair(t, "first", from, to)
	series := metrics.New(metrics.Build{})
	o := ServingOptions{CertFile: b.write("tls.crt", cert), KeyFile: b.write("tls.key", key), Metrics: series.Certificates.Server}
	s := b.serving(o)
	if got := shown(t, s); got == nil || got.Subject.CommonName != "first" {
		t.Fatalf("shown: %v", got)
	}
	cert, key = b.ca.pair(t, "second", from, to)
	b.write("tls.crt", cert)
	eventually(t, "a line about it", func() bool { return b.logs.count("going on with the one before") == 1 })
	if got := shown(t, s); got == nil || got.Subject.CommonName != "first" {
		t.Errorf("while the files don't fit: %v", got)
	}
	b.write("tls.key", key)
	eventually(t, "the second", func() bool {
		got := shown(t, s)
		return got != nil && got.Subject.CommonName == "second"
	})
	got := metricstest.Of(series.Handler())
	if n, ttl := got["kubelet_certificate_manager_server_rotation_seconds_count"], got["kubelet_certificate_manager_server_ttl_seconds"]; n != 1 || ttl < 3000 || ttl > 3600 {
		t.Errorf("counted as %v changes, the newest expires in %v s", n, ttl)
	}
}

// TestServingFilesMissing: they are of the configuration, so the agent does not
// start without.
func TestServingFilesMissing(t *testing.T) {
	o := ServingOptions{CertDir: t.TempDir(), CertFile: "/nowhere/tls.crt", KeyFile: "/nowhere/tls.key", Log: slog.New(slog.DiscardHandler)}
	if _, err := OpenServing(o); err == nil || !strings.Contains(err.Error(), "tlsCertFile") || !strings.Contains(err.Error(), "/nowhere/tls.crt") {
		t.Errorf("%v", err)
	}
}

// TestServingIssued: with serverTLSBootstrap the node asks for a certificate for
// its addresses, once it has some, for another when they change, and for the
// next one in time.
func TestServingIssued(t *testing.T) {
	b := newBed(t)
	b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{Token: "node-token"})
	s := b.serving(ServingOptions{Cluster: b.run()})
	if got := shown(t, s); got != nil {
		t.Errorf("shown without a certificate: %v", got)
	}
	if n := len(b.asked()); n > 0 {
		t.Errorf("asked %d times without addresses", n)
	}
	s.SetAddresses([]v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "127.0.0.1"}, {Type: v1.NodeHostName, Address: "host-1"}})
	trusted := x509.NewCertPool()
	trusted.AddCert(b.ca.cert)
	issuedFor := func(name string) bool {
		got := shown(t, s)
		if got == nil || got.VerifyHostname(name) != nil {
			return false
		}
		if _, err := got.Verify(x509.VerifyOptions{Roots: trusted, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
			t.Error(err)
		}
		return true
	}
	eventually(t, "a certificate for the address", func() bool { return issuedFor("127.0.0.1") })
	b.mu.Lock()
	r := b.requests[0]
	b.life = 3 * time.Second
	b.mu.Unlock()
	block, _ := pem.Decode(r.Spec.Request)
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if asked.Subject.CommonName != nodeUser || !slices.Equal(asked.DNSNames, []string{"host-1"}) || r.Spec.SignerName != "kubernetes.io/kubelet-serving" {
		t.Errorf("asked %s for %s, %q", r.Spec.SignerName, asked.Subject, asked.DNSNames)
	}
	if want := []certificatesv1.KeyUsage{"digital signature", "server auth"}; !slices.Equal(r.Spec.Usages, want) {
		t.Errorf("usages %q", r.Spec.Usages)
	}
	if m := mode(t, filepath.Join(b.opts.CertDir, "kubelet-server-current.pem")); m != 0o600 {
		t.Errorf("the certificate has mode %o", m)
	}

	s.SetAddresses([]v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "127.0.0.2"}})
	eventually(t, "a certificate for the other address", func() bool { return issuedFor("127.0.0.2") })
	if n := len(b.asked()); n != 2 {
		t.Errorf("asked %d times", n)
	}
	before := shown(t, s)
	eventually(t, "the next certificate", func() bool { return !before.Equal(shown(t, s)) })
	if time.Now().After(before.NotAfter) {
		t.Error("it came after the one before had expired")
	}
	if users := b.asked(); users[len(users)-1] != nodeUser {
		t.Errorf("asked by %q", users)
	}
}

// TestServingFallback: until the cluster issues one, that of the files serves.
func TestServingFallback(t *testing.T) {
	b := newBed(t)
	b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{Token: "node-token"})
	from, to := hour()
	cert, key := b.ca.pair(t, "file", from, to)
	s := b.serving(ServingOptions{Cluster: b.run(), CertFile: b.write("tls.crt", cert), KeyFile: b.write("tls.key", key)})
	if got := shown(t, s); got == nil || got.Subject.CommonName != "file" {
		t.Fatalf("shown: %v", got)
	}
	s.SetAddresses([]v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "127.0.0.1"}})
	eventually(t, "the issued one", func() bool { return shown(t, s).Subject.CommonName == nodeUser })
}

func TestServingTemplate(t *testing.T) {
	type names struct {
		DNS []string
		IPs []string
	}
	for name, c := range map[string]struct {
		in   []v1.NodeAddress
		want *names
	}{
		"nothing":    {},
		"names only": {in: []v1.NodeAddress{{Type: v1.NodeHostName, Address: "a"}, {Type: v1.NodeInternalDNS, Address: "b"}}},
		"all kinds, each once": {
			in: []v1.NodeAddress{{Type: v1.NodeExternalDNS, Address: "z"}, {Type: v1.NodeInternalIP, Address: "10.0.0.2"}, {Type: v1.NodeExternalIP, Address: "10.0.0.1"},
				{Type: v1.NodeInternalDNS, Address: "b"}, {Type: v1.NodeHostName, Address: "b"}, {Type: v1.NodeInternalIP, Address: "fd00::1"}, {Type: v1.NodeExternalIP, Address: "10.0.0.2"}},
			want: &names{[]string{"b", "z"}, []string{"10.0.0.1", "10.0.0.2", "fd00::1"}}},
		"a host named by its address": {
			in:   []v1.NodeAddress{{Type: v1.NodeHostName, Address: "10.0.0.1"}, {Type: v1.NodeHostName, Address: ""}},
			want: &names{nil, []string{"10.0.0.1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			var got *names
			if template := servingTemplate(nodeName, c.in); template != nil {
				got = &names{DNS: template.DNSNames}
				for _, ip := range template.IPAddresses {
					got.IPs = append(got.IPs, ip.String())
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
