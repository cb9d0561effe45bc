package credentials

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/keyutil"
)

const (
	nodeName = "n1"
	nodeUser = "system:node:n1"
)

// authority signs certificates of tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test-ca"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// sign makes a certificate for what a request asks for.
func (a *authority) sign(r *x509.CertificateRequest, from, to time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: r.Subject, DNSNames: r.DNSNames, IPAddresses: r.IPAddresses,
		NotBefore: from, NotAfter: to, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, r.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// pair makes a key and a certificate.
func (a *authority) pair(t *testing.T, user string, from, to time.Time) (cert, key []byte) {
	t.Helper()
	key, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := keyutil.ParsePrivateKeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err = a.sign(&x509.CertificateRequest{Subject: pkix.Name{CommonName: user, Organization: []string{"system:nodes"}},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, PublicKey: parsed.(crypto.Signer).Public()}, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// server is as much of an apiserver as credentials are about: it says who one
// is, and takes requests for certificates.
type server struct {
	*httptest.Server
	ca     *authority
	tokens map[string]string // whose a token is

	mu       sync.Mutex
	life     time.Duration // of the certificates that it issues
	hold     bool          // leaves requests without an answer
	requests []*certificatesv1.CertificateSigningRequest
	by       []string            // who asked
	open     map[net.Conn]string // connections, and whose they are
	changed  chan struct{}
}

func newServer(t *testing.T) *server {
	s := &server{ca: newAuthority(t), life: time.Hour, open: map[net.Conn]string{}, changed: make(chan struct{}),
		tokens: map[string]string{"boot-token": "system:bootstrap:abcdef", "node-token": nodeUser}}
	cert, key := s.ca.pair(t, "apiserver", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/whoami", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("X-User")) })
	mux.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	const path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
	mux.HandleFunc("POST "+path, s.create)
	mux.HandleFunc("GET "+path, s.list)
	mux.HandleFunc("GET "+path+"/{name}", s.get)
	s.Server = httptest.NewUnstartedServer(s.authenticate(mux))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	s.EnableHTTP2 = true
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch state {
		case http.StateNew:
			s.open[c] = ""
		case http.StateClosed:
			delete(s.open, c)
		}
	}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

type connKey struct{}

// authenticate knows users by certificate or token, as an apiserver does.
func (s *server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user := s.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		if certs := r.TLS.PeerCertificates; len(certs) > 0 && time.Now().Before(certs[0].NotAfter) && certs[0].CheckSignatureFrom(s.ca.cert) == nil {
			user = fmt.Sprintf("%s %x", certs[0].Subject.CommonName, certs[0].SerialNumber)
		}
		if user == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		c := r.Context().Value(connKey{}).(net.Conn)
		s.mu.Lock()
		if _, open := s.open[c]; open { // it may have been cut since
			s.open[c] = user
		}
		s.mu.Unlock()
		r.Header.Set("X-User", user)
		next.ServeHTTP(w, r)
	})
}

func (s *server) create(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &certificatesv1.CertificateSigningRequest{}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		_, _, err = scheme.Codecs.UniversalDeserializer().Decode(body, nil, c) // JSON or protobuf
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, old := range s.requests {
		if old.Name == c.Name {
			fail(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
			return
		}
	}
	c.UID = types.UID(fmt.Sprintf("uid-%d", len(s.requests)))
	c.ResourceVersion = "1"
	s.requests = append(s.requests, c)
	s.by = append(s.by, r.Header.Get("X-User"))
	if !s.hold {
		s.issue(c)
	}
	write(w, http.StatusCreated, c)
}

func (s *server) issue(c *certificatesv1.CertificateSigningRequest) {
	block, _ := pem.Decode(c.Spec.Request)
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		panic(err)
	}
	now := time.Now().Truncate(time.Second)
	if c.Status.Certificate, err = s.ca.sign(asked, now, now.Add(s.life)); err != nil {
		panic(err)
	}
	c.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
}

// approve answers what was held.
func (s *server) approve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = false
	for _, c := range s.requests {
		if len(c.Status.Conditions) == 0 {
			s.issue(c)
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *server) get(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.requests {
		if c.Name == r.PathValue("name") {
			write(w, http.StatusOK, c)
			return
		}
	}
	fail(w, http.StatusNotFound, metav1.StatusReasonNotFound)
}

func (s *server) list(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if query.Get("sendInitialEvents") == "true" {
		fail(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid) // clients then list
		return
	}
	name := strings.TrimPrefix(query.Get("fieldSelector"), "metadata.name=")
	find := func() (out []certificatesv1.CertificateSigningRequest, changed chan struct{}) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, c := range s.requests {
			if c.Name == name {
				out = append(out, *c)
			}
		}
		return out, s.changed
	}
	found, changed := find()
	if query.Get("watch") == "" {
		write(w, http.StatusOK, &certificatesv1.CertificateSigningRequestList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: found})
		return
	}
	w.(http.Flusher).Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
		found, changed = find()
		for _, c := range found {
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "MODIFIED", "object": typed(&c)})
		}
		w.(http.Flusher).Flush()
	}
}

func typed(c *certificatesv1.CertificateSigningRequest) *certificatesv1.CertificateSigningRequest {
	c.APIVersion, c.Kind = "certificates.k8s.io/v1", "CertificateSigningRequest"
	return c
}

func write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	write(w, code, &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Reason: reason, Message: string(reason)})
}

// asked are the users that asked for certificates.
func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.by)
}

// users are those whose connections are open.
func (s *server) users() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, user := range s.open {
		if user != "" {
			out = append(out, user)
		}
	}
	slices.Sort(out)
	return out
}

// bed is a node's files beside a server.
type bed struct {
	*server
	t    *testing.T
	dir  string
	logs *logs
	opts Options
}

func newBed(t *testing.T) *bed {
	dir := t.TempDir()
	b := &bed{server: newServer(t), t: t, dir: dir, logs: &logs{}}
	b.opts = Options{NodeName: nodeName, Kubeconfig: filepath.Join(dir, "etc", "kubelet.conf"), CertDir: filepath.Join(dir, "pki"),
		Log: slog.New(slog.NewTextHandler(b.logs, nil))}
	if err := os.MkdirAll(filepath.Dir(b.opts.Kubeconfig), 0o700); err != nil {
		t.Fatal(err)
	}
	return b
}

// write puts a file into the bed by renaming it into place.
func (b *bed) write(name string, content []byte) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// kubeconfig writes one for the user.
func (b *bed) kubeconfig(name string, user clientcmdapi.AuthInfo) string {
	b.t.Helper()
	raw, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: b.URL, CertificateAuthorityData: b.ca.pem}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": &user},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x",
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return b.write(name, raw)
}

// run opens the cluster and runs it until the test ends.
func (b *bed) run() *Cluster {
	b.t.Helper()
	c, err := Open(b.opts)
	if err != nil {
		b.t.Fatal(err)
	}
	b.start(c.Run)
	return c
}

func (b *bed) start(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			b.t.Errorf("Run: %v", err)
		}
	})
	b.t.Cleanup(stop)
	return stop
}

// whoami asks the server who one is.
func whoami(t *testing.T, client *http.Client, url string) (string, error) {
	t.Helper()
	response, err := client.Get(url + "/whoami")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", errors.New(response.Status)
	}
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// eventually waits for a condition of the outside.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not seen in time: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// logs is what was logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
