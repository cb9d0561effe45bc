package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	cliflag "k8s.io/component-base/cli/flag"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// clientCA knows who vouches for callers, as its file says now.
type clientCA interface {
	VerifyOptions() (x509.VerifyOptions, bool)
}

// tlsConfig is how callers are spoken with (behaviour row 1.19-4, fields
// tlsMinVersion, tlsCipherSuites, tlsCurvePreferences). TLS 1.2 is the floor
// whatever they say, and ciphers with known weaknesses are left out with a
// warning: lists of hardening guides still have some of them.
func tlsConfig(k *kubeletv1beta1.KubeletConfiguration, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error), ca clientCA, log *slog.Logger) (*tls.Config, error) {
	version, err := cliflag.TLSVersion(k.TLSMinVersion)
	if err != nil {
		return nil, fmt.Errorf("tlsMinVersion: %w; known are VersionTLS12 and VersionTLS13", err)
	}
	if version < tls.VersionTLS12 {
		return nil, fmt.Errorf("tlsMinVersion: %s is not safe; the least is VersionTLS12", k.TLSMinVersion)
	}
	suites, err := cipherSuites(k.TLSCipherSuites, log)
	if err != nil {
		return nil, fmt.Errorf("tlsCipherSuites: %w", err)
	}
	curves, err := cliflag.TLSCurvePreferences(k.TLSCurvePreferences)
	if err != nil {
		return nil, fmt.Errorf("tlsCurvePreferences: %w", err)
	}
	c := &tls.Config{
		MinVersion: version, CipherSuites: suites, CurvePreferences: curves, GetCertificate: certificate,
		NextProtos: []string{"h2", "http/1.1"},
	}
	if !allowsHTTP2(c) {
		log.Info("HTTP/2 is not offered: tlsCipherSuites has none of the ciphers that it requires", "one of", strings.Join(http2Suites(), ", "))
		c.NextProtos = []string{"http/1.1"}
	}
	if ca == nil {
		return c, nil
	}
	// Whom a certificate names is found out for each request by access; here
	// clients are told which certificates are of use.
	c.ClientAuth = tls.RequestClientCert
	base := c.Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := base.Clone()
		if known, ok := ca.VerifyOptions(); ok {
			now.ClientCAs = known.Roots
		}
		return now, nil
	}
	return c, nil
}

func cipherSuites(names []string, log *slog.Logger) ([]uint16, error) {
	suites, err := cliflag.TLSCipherSuites(names)
	if err != nil {
		return nil, fmt.Errorf("%w; known are %s", err, strings.Join(cliflag.PreferredTLSCipherNames(), ", "))
	}
	var weak []string
	for _, s := range tls.InsecureCipherSuites() {
		if slices.Contains(suites, s.ID) {
			weak = append(weak, s.Name)
			suites = slices.DeleteFunc(suites, func(id uint16) bool { return id == s.ID })
		}
	}
	if len(weak) == 0 {
		return suites, nil
	}
	if len(suites) == 0 {
		return nil, errors.New("none of them is safe: " + strings.Join(weak, ", "))
	}
	log.Warn("ciphers with known weaknesses are not offered; remove them from tlsCipherSuites", "ciphers", strings.Join(weak, ", "))
	return suites, nil
}

// http2Suites are those of which RFC 7540 wants one, where TLS 1.2 is spoken.
func http2Suites() []string {
	return []string{tls.CipherSuiteName(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), tls.CipherSuiteName(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)}
}

func allowsHTTP2(c *tls.Config) bool {
	return c.CipherSuites == nil || c.MinVersion >= tls.VersionTLS13 || slices.ContainsFunc(c.CipherSuites, func(id uint16) bool {
		return slices.Contains(http2Suites(), tls.CipherSuiteName(id))
	})
}
