package lab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority issues certificates. Its key stands in a file too, for the
// programs that sign in its name.
type authority struct {
	cert              *x509.Certificate
	key               crypto.Signer
	pem               []byte // its certificate
	certFile, keyFile string
}

// keyPair is a certificate and its key, in PEM.
type keyPair struct{ cert, key []byte }

// request says what a certificate is for.
type request struct {
	user     string
	groups   []string
	hosts    []string      // names and addresses of a server; none: a client
	lifetime time.Duration // default: a day
}

// newAuthority makes an authority whose files are dir/name.crt and .key.
func newAuthority(dir, name string) (*authority, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	a := &authority{key: key, pem: encodePEM("CERTIFICATE", der)}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	a.certFile, a.keyFile, err = keyPair{a.pem, keyPEM}.write(dir, name)
	return a, err
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	return key, encodePEM("EC PRIVATE KEY", der), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// issue makes a key and a certificate for it, valid since a minute ago.
func (a *authority) issue(r request) (keyPair, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return keyPair{}, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return keyPair{}, fmt.Errorf("issue certificate of %s: %w", r.user, err)
	}
	if r.lifetime == 0 {
		r.lifetime = 23 * time.Hour
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: r.user, Organization: r.groups},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(r.lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, host := range r.hosts {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if address := net.ParseIP(host); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return keyPair{}, fmt.Errorf("issue certificate of %s: %w", r.user, err)
	}
	return keyPair{encodePEM("CERTIFICATE", der), keyPEM}, nil
}

// write puts the pair into dir/name.crt and dir/name.key.
func (p keyPair) write(dir, name string) (cert, key string, err error) {
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if err := os.WriteFile(cert, p.cert, 0o644); err != nil {
		return "", "", fmt.Errorf("write certificate: %w", err)
	}
	if err := os.WriteFile(key, p.key, 0o600); err != nil {
		return "", "", fmt.Errorf("write key: %w", err)
	}
	return cert, key, nil
}

// ClientCertificate makes an authority that nobody knows, with its certificate
// in a file of dir, and a client's certificate of it.
func ClientCertificate(dir, user string, groups ...string) (caFile string, cert tls.Certificate, err error) {
	a, err := newAuthority(dir, "strange")
	if err != nil {
		return "", cert, err
	}
	pair, err := a.issue(request{user: user, groups: groups})
	if err != nil {
		return "", cert, err
	}
	cert, err = tls.X509KeyPair(pair.cert, pair.key)
	return a.certFile, cert, err
}
