package server

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestTLSFloor: nothing below TLS 1.2 is spoken, and HTTP/2 is to who can.
func TestTLSFloor(t *testing.T) {
	k := newKit(t)
	k.reviewer.may = func(string, string, string) bool { return true }
	k.start()
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c := k.tls()
		c.MinVersion, c.MaxVersion = version, version
		conn, err := tls.Dial("tcp", k.address, c)
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			conn.Close()
		}
	}
	weak := k.tls()
	weak.MaxVersion = tls.VersionTLS12
	for _, s := range tls.InsecureCipherSuites() {
		weak.CipherSuites = append(weak.CipherSuites, s.ID)
	}
	if conn, err := tls.Dial("tcp", k.address, weak); err == nil {
		t.Errorf("speaks %s", tls.CipherSuiteName(conn.ConnectionState().CipherSuite))
		conn.Close()
	}
	r, err := k.caller(k.ca.issue("u", x509.ExtKeyUsageClientAuth)).Get("https://" + k.address + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.ProtoMajor != 2 || r.StatusCode != http.StatusOK {
		t.Errorf("%s %s", r.Proto, r.Status)
	}
}

// TestTLSSettings: those of the configuration are kept, and what can't be is
// refused by the name of its field.
func TestTLSSettings(t *testing.T) {
	const safe, http2 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
	for name, c := range map[string]struct {
		min    string
		suites []string
		curves []int32
		refuse string // parts of the error, "" for none
		http2  bool
		warn   string
	}{
		"nothing":                {http2: true},
		"1.3":                    {min: "VersionTLS13", http2: true},
		"1.1":                    {min: "VersionTLS11", refuse: "tlsMinVersion: VersionTLS11 is not safe"},
		"no version":             {min: "1.2", refuse: `tlsMinVersion: unknown tls version "1.2"; known are VersionTLS12`},
		"a cipher":               {suites: []string{http2}, http2: true},
		"none for HTTP/2":        {suites: []string{safe}, warn: "HTTP/2 is not offered"},
		"none for HTTP/2, 1.3":   {suites: []string{safe}, min: "VersionTLS13", http2: true},
		"no cipher":              {suites: []string{safe, "TLS_NONE"}, refuse: "tlsCipherSuites: Cipher suite TLS_NONE not supported"},
		"weak ones too":          {suites: []string{http2, "TLS_RSA_WITH_AES_128_GCM_SHA256"}, http2: true, warn: "TLS_RSA_WITH_AES_128_GCM_SHA256"},
		"weak ones only":         {suites: []string{"TLS_RSA_WITH_AES_128_GCM_SHA256"}, refuse: "tlsCipherSuites: none of them is safe"},
		"curves":                 {curves: []int32{29, 23}, http2: true},
		"no curve":               {curves: []int32{9999}, refuse: "tlsCurvePreferences: curve preference 9999"},
		"a curve twice, refused": {curves: []int32{29, 29}, refuse: "tlsCurvePreferences"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t)
			k.options.Config.TLSMinVersion, k.options.Config.TLSCipherSuites, k.options.Config.TLSCurvePreferences = c.min, c.suites, c.curves
			s, err := New(k.options)
			if c.refuse != "" {
				if err == nil || !strings.Contains(err.Error(), c.refuse) {
					t.Errorf("%v, want %q", err, c.refuse)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Contains(s.tls.NextProtos, "h2"); got != c.http2 {
				t.Errorf("HTTP/2 %v", got)
			}
			if c.warn != "" && len(k.logged.lines(c.warn)) != 1 {
				t.Errorf("no line with %q", c.warn)
			}
			k.start()
			want := tls.CurveP256
			client := k.tls()
			client.CurvePreferences = []tls.CurveID{want}
			if conn, err := tls.Dial("tcp", k.address, client); err != nil {
				t.Error(err)
			} else {
				conn.Close()
			}
			client.CurvePreferences = []tls.CurveID{tls.CurveP521}
			conn, err := tls.Dial("tcp", k.address, client)
			if (err == nil) != (c.curves == nil) {
				t.Errorf("P-521: %v", err)
			}
			if err == nil {
				conn.Close()
			}
		})
	}
}
