package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// eventuallySo waits until it is so.
func (b *bed) eventuallySo(what string, so func() bool) {
	b.t.Helper()
	b.eventually(what, time.Minute, func() error {
		if !so() {
			return errors.New("not yet")
		}
		return nil
	})
}

// caller asks the node's port from within its network.
func (j *joined) caller(certs ...tls.Certificate) *http.Client {
	t := &http.Transport{DialContext: j.Network.Dial, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certs}}
	j.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 30 * time.Second}
}

// clientCertificate is the one of a kubeconfig.
func (j *joined) clientCertificate(kubeconfig string) tls.Certificate {
	j.t.Helper()
	c, err := j.plane.RESTConfig(kubeconfig)
	j.must(err)
	j.must(rest.LoadTLSFiles(c))
	cert, err := tls.X509KeyPair(c.CertData, c.KeyData)
	j.must(err)
	return cert
}

// token is one of a new service account that may do this with nodes, or nothing.
func (j *joined) token(name string, verbs []string, resources ...string) string {
	j.t.Helper()
	ctx := j.t.Context()
	_, err := j.client.CoreV1().ServiceAccounts(j.ns).Create(ctx, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	j.must(err)
	if len(resources) > 0 {
		global := metav1.ObjectMeta{Name: j.ns + "-" + name}
		_, err = j.client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: global,
			Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: resources, Verbs: verbs}}}, metav1.CreateOptions{})
		j.must(err)
		_, err = j.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: global,
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: global.Name},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: j.ns, Name: name}}}, metav1.CreateOptions{})
		j.must(err)
	}
	r, err := j.client.CoreV1().ServiceAccounts(j.ns).CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	j.must(err)
	return r.Status.Token
}

// answered asks for a path and gives the code and the text.
func (j *joined) answered(c *http.Client, method, url, token string) (int, string) {
	j.t.Helper()
	req, err := http.NewRequestWithContext(j.t.Context(), method, url, nil)
	j.must(err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	r, err := c.Do(req)
	j.must(err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	j.must(err)
	return r.StatusCode, string(body)
}

// apiPaths are the paths of the node's API with the right that each takes, and
// what who has it is answered.
var apiPaths = []struct {
	request string
	right   string // verb and subresource of nodes
	code    int
}{
	{"GET /healthz", "get nodes/healthz", 200},
	{"GET /healthz/ping", "get nodes/healthz", 200},
	{"GET /healthz/syncloop?verbose", "get nodes/proxy", 200},
	{"GET /pods", "get nodes/pods", 200},
	{"GET /pods?x", "get nodes/proxy", 200},
	{"GET /runningpods/", "get nodes/pods", 200},
	{"GET /configz", "get nodes/configz", 200},
	{"GET /flagz", "get nodes/configz", 200},
	{"GET /statusz", "get nodes/statusz", 200},
	{"GET /stats/summary", "get nodes/stats", 200},
	{"POST /stats/summary", "create nodes/stats", 200},
	{"GET /metrics", "get nodes/metrics", 200},
	{"GET /metrics/cadvisor", "get nodes/metrics", 200},
	{"GET /metrics/resource", "get nodes/metrics", 200},
	{"GET /metrics/probes", "get nodes/metrics", 200},
	{"GET /metrics/slis", "get nodes/metrics", 200},
	{"GET /logs/", "get nodes/log", 200},
	{"GET /logs/nothing", "get nodes/log", 404},
	{"POST /checkpoint/ns/pod/c", "create nodes/checkpoint", 404},
	{"POST /run/ns/pod/c", "create nodes/proxy", 404},
	{"GET /exec/ns/pod/c", "get nodes/proxy", 400},
	{"GET /exec/ns/pod/c?output=1", "get nodes/proxy", 404},
	{"POST /exec/ns/pod/c", "create nodes/proxy", 400},
	{"GET /attach/ns/pod/c", "get nodes/proxy", 400},
	{"POST /attach/ns/pod/uid/c", "create nodes/proxy", 400},
	{"GET /portForward/ns/pod", "get nodes/proxy", 404},
	{"POST /portForward/ns/pod/uid", "create nodes/proxy", 404},
	{"GET /containerLogs/ns/pod/c", "get nodes/proxy", 404},
	{"GET /debug/pprof/", "get nodes/proxy", 200},
	{"GET /debug/pprof/cmdline", "get nodes/proxy", 200},
	{"PUT /debug/flags/v", "update nodes/proxy", 400},
	{"GET /debug/timeline", "get nodes/proxy", 200},
	{"GET /ui/", "get nodes/proxy", 200},
	{"GET /nowhere", "get nodes/proxy", 404},
	{"DELETE /pods", "delete nodes/pods", 405},
	{"HEAD /pods", "* nodes/pods", 200},
}

// TestAPIAccess: of each path, who gets in and who doesn't, by the apiserver's
// word.
func TestAPIAccess(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.Config = map[string]any{"readOnlyPort": 10255}
	j.join()
	admin, err := j.plane.Kubeconfig(lab.Identity{User: "boss", Groups: []string{"system:masters"}})
	j.must(err)
	boss, nobody := j.caller(j.clientCertificate(admin)), j.caller()
	_, foreign, err := lab.ClientCertificate(t.TempDir(), "boss", "system:masters")
	j.must(err)
	stranger := j.caller(foreign)
	tokens := map[string]string{"": j.token("nothing", nil)}
	j.t.Cleanup(func() { j.dropRights(len(tokens)) })
	for _, p := range apiPaths {
		verb, resource, _ := strings.Cut(p.right, " ")
		if tokens[p.right] == "" {
			tokens[p.right] = j.token(fmt.Sprintf("right-%d", len(tokens)), []string{verb}, resource)
		}
	}
	base := "https://" + j.Network.Address + ":10250"
	for _, p := range apiPaths {
		t.Run(p.request, func(t *testing.T) {
			j := j.in(t)
			method, path, _ := strings.Cut(p.request, " ")
			for _, c := range []struct {
				who    string
				client *http.Client
				token  string
				code   int
			}{
				{"no credentials", nobody, "", 401},
				{"a certificate of another CA", stranger, "", 401},
				{"a forged token", nobody, "forged", 401},
				{"a token without rights", nobody, tokens[""], 403},
				{"a token with that right", nobody, tokens[p.right], p.code},
				{"cluster admin", boss, "", p.code},
			} {
				code, text := j.answered(c.client, method, base+path, c.token)
				if code != c.code {
					t.Errorf("%s: %d %.200q, want %d", c.who, code, text, c.code)
				}
			}
		})
	}
	code, text := j.answered(nobody, "GET", base+"/configz", tokens["get nodes/stats"])
	if !strings.HasPrefix(text, "Forbidden (user=system:serviceaccount:"+j.ns+":right-") || !strings.HasSuffix(text, ", verb=get, resource=nodes, subresource(s)=[configz proxy])\n") || code != 403 {
		t.Errorf("%d %q", code, text)
	}
	for path, want := range map[string]int{"/healthz": 200, "/pods": 200, "/stats/summary": 200, "/metrics/cadvisor": 200, "/metrics": 200, "/configz": 404, "/logs/": 405, "/ui/": 405, "/debug/timeline": 405, "/exec/a/b/c": 405} {
		if code, _ := j.answered(nobody, "GET", "http://"+j.Network.Address+":10255"+path, ""); code != want {
			t.Errorf("%s on the read-only port: %d, want %d", path, code, want)
		}
	}
}

// dropRights takes away what token made beside the namespace.
func (j *joined) dropRights(n int) {
	for i := range n + 1 {
		name := fmt.Sprintf("%s-right-%d", j.ns, i)
		_, _ = j.plane.Kubectl("delete", "--ignore-not-found", "clusterrole,clusterrolebinding", name)
	}
}

// TestServingCertificate: with serverTLSBootstrap the node's API shows a
// certificate for its addresses as soon as somebody approves it, also to an
// apiserver that takes no other, and after a restart the same.
func TestServingCertificate(t *testing.T) {
	p, err := lab.StartControlPlane(t, lab.ControlPlaneOptions{VerifyNodes: true})
	if err != nil {
		t.Fatal(err)
	}
	j := joinedBed(t, p, lab.Containerd2)
	j.Config = map[string]any{"serverTLSBootstrap": true}
	j.join()
	var asked []certificatesv1.CertificateSigningRequest
	j.eventuallySo("the node has asked for a certificate", func() bool {
		list, err := j.client.CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{})
		j.must(err)
		asked = list.Items
		return len(asked) > 0
	})
	block, _ := pem.Decode(asked[0].Spec.Request)
	request, err := x509.ParseCertificateRequest(block.Bytes)
	j.must(err)
	if asked[0].Spec.SignerName != certificatesv1.KubeletServingSignerName || len(request.IPAddresses) != 1 || request.IPAddresses[0].String() != j.Network.Address {
		t.Errorf("asked %s for %v", asked[0].Spec.SignerName, request.IPAddresses)
	}
	proxy := "/api/v1/nodes/" + j.Node + "/proxy/healthz"
	if out, err := p.Kubectl("get", "--raw", proxy); err == nil {
		t.Errorf("answered %q without a certificate", out)
	}
	if out, err := p.Kubectl("certificate", "approve", asked[0].Name); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	healthy := func() bool {
		out, err := p.Kubectl("get", "--raw", proxy)
		return err == nil && out == "ok"
	}
	j.eventuallySo("the apiserver reaches the node", healthy)
	j.must(j.Agent.Kill())
	j.must(j.Agent.Start())
	j.eventuallySo("the apiserver reaches the node again", healthy)
	list, err := j.client.CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{})
	j.must(err)
	if len(list.Items) != 1 {
		t.Errorf("%d requests after a restart", len(list.Items))
	}
}

// TestAloneWithCertificates: a node without an apiserver serves its API to who
// has a certificate, if told so, and without being told says why it doesn't.
func TestAloneWithCertificates(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.Config = map[string]any{"enableServer": true, "authentication": map[string]any{}, "authorization": map[string]any{}}
	b.must(b.Agent.Start())
	b.eventuallySo("it is said why the API is not served", func() bool { return strings.Contains(b.agentLog(), "the node's API is not served") })
	if _, err := b.Network.Dial(t.Context(), "tcp", b.Network.Address+":10250"); err == nil {
		t.Error("something listens")
	}
	b.must(b.Agent.Stop())
	file, cert, err := lab.ClientCertificate(t.TempDir(), "me")
	b.must(err)
	b.Config = map[string]any{"enableServer": true, "authorization": map[string]any{"mode": "AlwaysAllow"},
		"authentication": map[string]any{"x509": map[string]any{"clientCAFile": file}, "anonymous": map[string]any{"enabled": false}}}
	b.must(b.Agent.Start())
	j := &joined{bed: b}
	me, nobody := j.caller(cert), j.caller()
	url := "https://" + b.Network.Address + ":10250/pods"
	b.eventuallySo("the API is served", func() bool {
		r, err := me.Get(url)
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK && r.ProtoMajor == 2
	})
	if code, _ := j.answered(nobody, "GET", url, ""); code != 401 {
		t.Errorf("without a certificate: %d", code)
	}
}
