package server

import (
	"bufio"
	"bytes"
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

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/pod"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate for a user, or for the server on 127.0.0.1.
func (a *authority) issue(user string, usage x509.ExtKeyUsage, groups ...string) tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: user, Organization: groups}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// reviewer is an apiserver that says who somebody is by his token (user:x is x)
// and what he may do.
type reviewer struct {
	*httptest.Server
	mu     sync.Mutex
	may    func(user, verb, subresource string) bool
	away   bool
	tokens []string // reviewed
	asked  []string // user verb subresource name
}

func newReviewer(t *testing.T) *reviewer {
	r := &reviewer{may: func(string, string, string) bool { return false }}
	r.Server = httptest.NewServer(http.HandlerFunc(r.answer))
	t.Cleanup(r.Close)
	return r
}

func (r *reviewer) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *reviewer) answer(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.away:
		http.Error(w, "away", http.StatusServiceUnavailable)
	case strings.HasSuffix(req.URL.Path, "/tokenreviews"):
		var review authenticationv1.TokenReview
		_ = json.NewDecoder(req.Body).Decode(&review)
		r.tokens = append(r.tokens, review.Spec.Token)
		name, ok := strings.CutPrefix(review.Spec.Token, "user:")
		review.Status.Authenticated, review.Status.User.Username = ok, name
		_ = json.NewEncoder(w).Encode(review)
	default:
		var review authorizationv1.SubjectAccessReview
		_ = json.NewDecoder(req.Body).Decode(&review)
		a := review.Spec.ResourceAttributes
		r.asked = append(r.asked, strings.Join([]string{review.Spec.User, a.Verb, a.Resource, a.Subresource, a.Name}, " "))
		review.Status.Allowed = r.may(review.Spec.User, a.Verb, a.Subresource)
		_ = json.NewEncoder(w).Encode(review)
	}
}

func (r *reviewer) client(t *testing.T) kubernetes.Interface {
	t.Helper()
	c, err := kubernetes.NewForConfig(&rest.Config{Host: r.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// logged is what was logged.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) lines(with string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, with) {
			out = append(out, line)
		}
	}
	return out
}

// stub stands for the pods and the runtime.
type stub struct {
	pods          []pod.Pod
	running       []cri.Instance
	checkpoint    error
	checkpointIDs []string
}

func (s *stub) Pods() []pod.Pod                                 { return slices.Clone(s.pods) }
func (s *stub) Node() pod.Node                                  { return pod.Node{Name: "node-1"} }
func (s *stub) Running(context.Context) ([]cri.Instance, error) { return slices.Clone(s.running), nil }
func (s *stub) Checkpoint(_ context.Context, id, archive string, _ time.Duration) error {
	s.checkpointIDs = append(s.checkpointIDs, id)
	if s.checkpoint != nil {
		return s.checkpoint
	}
	return os.WriteFile(archive, nil, 0o600)
}

// onePod is a pod with a container that runs.
func onePod() *stub {
	spec := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "uid-1", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "x"}}},
		Spec: v1.PodSpec{Containers: []v1.Container{{Name: "main", Image: "image"}}}}
	p := pod.New(pod.Wanted{At: time.Now(), Spec: spec, Origin: "api"}, pod.View{}, nil)
	p.Containers = map[string]pod.Memory{"main": {Known: &pod.Container{ID: "id-1", Name: "main", State: pod.Running}}}
	return &stub{
		pods:    []pod.Pod{p},
		running: []cri.Instance{{Namespace: "ns", Pod: "web", UID: "uid-1", Container: "main", ID: "id-1", State: pod.Running, Image: "image"}},
	}
}

// kit is a server that listens on 127.0.0.1.
type kit struct {
	*testing.T
	ca       *authority
	caFile   string
	reviewer *reviewer
	logged   *logged
	level    slog.LevelVar
	stub     *stub
	options  Options
	sizes    limits
	next     http.Handler // in place of the routes
	address  string
}

func newKit(t *testing.T) *kit {
	k := &kit{T: t, ca: newAuthority(t, "clients"), reviewer: newReviewer(t), logged: &logged{}, stub: onePod(), sizes: defaultLimits}
	k.caFile = filepath.Join(t.TempDir(), "ca.crt")
	k.write(k.caFile, k.ca.pem)
	k.level.Set(slog.LevelDebug)
	c := config.Default().Kubelet
	c.Authentication.X509.ClientCAFile = k.caFile
	cert := newAuthority(t, "nodes").issue("node", x509.ExtKeyUsageServerAuth)
	k.options = Options{
		NodeName: "node-1", Config: &c, Gate: func(string) bool { return true },
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil },
		Tokens:      k.reviewer.client(t), Rights: k.reviewer.client(t), Pods: k.stub, Runtime: k.stub, UI: http.NotFoundHandler(),
		Process: Process{Flags: map[string]string{"v": "2"}, Level: &k.level, Root: t.TempDir()},
		Metrics: metrics.New(metrics.Build{}),
		Log:     slog.New(slog.NewTextHandler(k.logged, &slog.HandlerOptions{Level: &k.level})),
	}
	return k
}

func (k *kit) write(file string, content []byte) {
	k.Helper()
	tmp := file + ".tmp"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		k.Fatal(err)
	}
	if err := os.Rename(tmp, file); err != nil {
		k.Fatal(err)
	}
}

func (k *kit) start() *kit {
	k.Helper()
	s, err := New(k.options)
	if err != nil {
		k.Fatal(err)
	}
	s.sizes, s.access.look = k.sizes, 50*time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		k.Fatal(err)
	}
	k.address = l.Addr().String()
	if k.next == nil {
		k.next = s.routes()
	}
	ctx, cancel := context.WithCancel(k.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = s.access.run(ctx) })
	running.Go(func() {
		if err := serve(ctx, l, s.tls, s.front(s.access, k.next), s.sizes, k.options.Log); err != nil {
			k.Error(err)
		}
	})
	k.Cleanup(func() { cancel(); running.Wait() })
	return k
}

func (k *kit) tls(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, Certificates: certs}
}

// caller asks with a certificate, or none.
func (k *kit) caller(certs ...tls.Certificate) *http.Client {
	t := &http.Transport{TLSClientConfig: k.tls(certs...), ForceAttemptHTTP2: true}
	k.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// ask asks as whom a token names, "" for nobody.
func (k *kit) ask(c *http.Client, method, path, token string) (int, string) {
	k.Helper()
	req, err := http.NewRequestWithContext(k.Context(), method, "https://"+k.address+path, nil)
	if err != nil {
		k.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	r, err := c.Do(req)
	if err != nil {
		k.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		k.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// raw sends bytes and returns the answer's code; 0 for none.
func (k *kit) raw(request string) (int, http.Header) {
	k.Helper()
	c, err := tls.Dial("tcp", k.address, k.tls())
	if err != nil {
		k.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		k.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, nil
	}
	defer r.Body.Close()
	return r.StatusCode, r.Header
}

// eventually waits until it is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !so(); {
		if time.Now().After(end) {
			t.Fatalf("not so after 30 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
