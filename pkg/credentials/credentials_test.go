package credentials

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

func client(t *testing.T, config *rest.Config) *http.Client {
	t.Helper()
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func hour() (from, to time.Time) { return time.Now().Add(-time.Minute), time.Now().Add(time.Hour) }

// TestKubeconfigs: each way of a kubeconfig to say who one is.
func TestKubeconfigs(t *testing.T) {
	b := newBed(t)
	from, to := hour()
	cert, key := b.ca.pair(t, nodeUser, from, to)
	b.write("c.crt", cert)
	b.write("c.key", key)
	b.write("both.pem", append(cert, key...))
	token := b.write("token", []byte("node-token"))
	plugin := filepath.Join(b.dir, "plugin")
	script := `#!/bin/sh
echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"node-token"}}'
`
	if err := os.WriteFile(plugin, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, user := range map[string]clientcmdapi.AuthInfo{
		"inline":    {ClientCertificateData: cert, ClientKeyData: key},
		"files":     {ClientCertificate: filepath.Join(b.dir, "c.crt"), ClientKey: filepath.Join(b.dir, "c.key")},
		"relative":  {ClientCertificate: "../both.pem", ClientKey: "../both.pem"},
		"token":     {Token: "node-token"},
		"tokenFile": {TokenFile: token},
		"exec":      {Exec: &clientcmdapi.ExecConfig{APIVersion: "client.authentication.k8s.io/v1", Command: plugin, InteractiveMode: clientcmdapi.NeverExecInteractiveMode}},
	} {
		t.Run(name, func(t *testing.T) {
			b.kubeconfig("etc/kubelet.conf", user)
			c, err := Open(b.opts)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := whoami(t, client(t, c.Config()), b.URL); err != nil || !strings.HasPrefix(got, nodeUser) {
				t.Errorf("the server sees %q, %v", got, err)
			}
		})
	}
}

// TestClientset: what is built on a configuration works, over HTTP/2.
func TestClientset(t *testing.T) {
	b := newBed(t)
	b.opts.ContentType = "application/vnd.kubernetes.protobuf"
	b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{Token: "node-token"})
	c, err := Open(b.opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, config := range []*rest.Config{c.Config(), c.Heartbeat()} {
		if _, err := kubernetes.NewForConfig(config); err != nil {
			t.Error(err)
		}
		response, err := client(t, config).Get(b.URL + "/whoami")
		if err != nil {
			t.Fatal(err)
		}
		if response.Body.Close(); response.ProtoMajor != 2 {
			t.Errorf("spoken over %s", response.Proto)
		}
	}
	if got := b.users(); len(got) != 2 {
		t.Errorf("two configurations have %d connections", len(got))
	}
}

// TestOpenErrors: only when no file names a server is there nothing to wait for.
func TestOpenErrors(t *testing.T) {
	b := newBed(t)
	if _, err := Open(b.opts); err == nil || !strings.Contains(err.Error(), b.opts.Kubeconfig) {
		t.Errorf("no kubeconfig: %v", err)
	}
	b.opts.Bootstrap = filepath.Join(b.dir, "bootstrap.conf")
	if _, err := Open(b.opts); err == nil || !strings.Contains(err.Error(), b.opts.Kubeconfig) || !strings.Contains(err.Error(), b.opts.Bootstrap) {
		t.Errorf("neither: %v", err)
	}
	b.write("etc/kubelet.conf", []byte("{"))
	if _, err := Open(b.opts); err == nil || !strings.Contains(err.Error(), b.opts.Kubeconfig) {
		t.Errorf("not a kubeconfig: %v", err)
	}
	b.write("etc/kubelet.conf", nil)
	if _, err := Open(b.opts); err == nil || !strings.Contains(err.Error(), b.opts.Kubeconfig+": it names no cluster") {
		t.Errorf("an empty file: %v", err)
	}
}

// TestReload: a changed certificate is used at once, by connections that are
// new; those with the old one are closed, with what was going on on them.
func TestReload(t *testing.T) {
	b := newBed(t)
	from, to := hour()
	install := func(user string) {
		cert, key := b.ca.pair(t, user, from, to)
		b.write("etc/node.pem", append(cert, key...))
	}
	install("first")
	b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{ClientCertificate: "node.pem", ClientKey: "node.pem"})
	c := b.run()
	one, other := client(t, c.Config()), client(t, c.Heartbeat())
	for _, each := range []*http.Client{one, other} {
		if got, err := whoami(t, each, b.URL); err != nil || !strings.HasPrefix(got, "first") {
			t.Fatalf("before: %q, %v", got, err)
		}
	}
	watching, err := one.Get(b.URL + "/hang")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, watching.Body)
		ended <- err
	}()

	install("second")
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a watch with the old credentials ended as if it were complete")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a watch with the old credentials goes on")
	}
	if got, err := whoami(t, one, b.URL); err != nil || !strings.HasPrefix(got, "second") {
		t.Errorf("after: %q, %v", got, err)
	}
	eventually(t, "the other has the second too", func() bool { // until then its requests may be cut
		got, err := whoami(t, other, b.URL)
		return err == nil && strings.HasPrefix(got, "second")
	})
	eventually(t, "only connections with the new certificate", func() bool {
		return !strings.Contains(strings.Join(b.users(), " "), "first")
	})
}

// TestReloadLinks: as with a mounted Secret, whose files are links to links.
func TestReloadLinks(t *testing.T) {
	b := newBed(t)
	from, to := hour()
	install := func(user string) {
		cert, key := b.ca.pair(t, user, from, to)
		if err := os.Mkdir(filepath.Join(b.dir, "etc", "..of-"+user), 0o700); err != nil {
			t.Fatal(err)
		}
		b.write("etc/..of-"+user+"/node.pem", append(cert, key...))
		if err := os.Symlink("..of-"+user, filepath.Join(b.dir, "etc", "..data.new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(b.dir, "etc", "..data.new"), filepath.Join(b.dir, "etc", "..data")); err != nil {
			t.Fatal(err)
		}
	}
	install("first")
	if err := os.Symlink("..data/node.pem", filepath.Join(b.dir, "etc", "node.pem")); err != nil {
		t.Fatal(err)
	}
	b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{ClientCertificate: "node.pem", ClientKey: "node.pem"})
	c := b.run()
	me := client(t, c.Config())
	eventually(t, "the first", func() bool {
		got, _ := whoami(t, me, b.URL)
		return strings.HasPrefix(got, "first")
	})
	install("second")
	eventually(t, "the second", func() bool {
		got, _ := whoami(t, me, b.URL)
		return strings.HasPrefix(got, "second")
	})
}

// TestBrokenReload: a file that cannot be used changes nothing but a line in the
// log, and is used once it can be.
func TestBrokenReload(t *testing.T) {
	b := newBed(t)
	b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{Token: "node-token"})
	c := b.run()
	me := client(t, c.Config())
	b.write("etc/kubelet.conf", []byte("apiVersion: v1\nkind: Config\nusers: ["))
	eventually(t, "a warning", func() bool { return b.logs.count("kubelet.conf") > 0 })
	if got, err := whoami(t, me, b.URL); err != nil || got != nodeUser {
		t.Errorf("while the kubeconfig is broken: %q, %v", got, err)
	}
	from, to := hour()
	cert, key := b.ca.pair(t, "another", from, to)
	b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key})
	eventually(t, "the new user", func() bool {
		got, _ := whoami(t, me, b.URL)
		return strings.HasPrefix(got, "another")
	})
	if n := b.logs.count("level=WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, b.logs)
	}
}

// TestServerMoves: clients follow when the kubeconfig names another server.
func TestServerMoves(t *testing.T) {
	b, to := newBed(t), newServer(t)
	b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{Token: "node-token"})
	c := b.run()
	me := client(t, c.Config())
	before := b.URL
	if _, err := whoami(t, me, before); err != nil {
		t.Fatal(err)
	}
	b.server = to
	b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{Token: "node-token"})
	eventually(t, "a connection to the other server", func() bool {
		_, _ = whoami(t, me, before)
		return len(to.users()) == 1
	})
}

// TestNotReady: with a kubeconfig whose certificate is not there yet, nothing
// blocks, requests say what is missing, and go on once it is there.
func TestNotReady(t *testing.T) {
	b := newBed(t)
	b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{ClientCertificate: "node.pem", ClientKey: "node.pem"})
	c := b.run()
	me := client(t, c.Config())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.URL+"/whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := me.Do(r); err == nil || !strings.Contains(err.Error(), "no credentials") || !strings.Contains(err.Error(), "node.pem") {
		t.Errorf("without a certificate: %v", err)
	}
	select {
	case <-c.Ready():
		t.Error("ready without a certificate")
	default:
	}
	waiting := make(chan string, 1)
	go func() {
		got, err := whoami(t, me, b.URL)
		waiting <- got + map[bool]string{true: " failed"}[err != nil]
	}()
	from, to := hour()
	cert, key := b.ca.pair(t, nodeUser, from, to)
	b.write("etc/node.pem", append(cert, key...))
	if got := <-waiting; !strings.HasPrefix(got, nodeUser) {
		t.Errorf("the request that waited: %q", got)
	}
	<-c.Ready()
}

// path is a way to the server that can die without a word.
type path struct {
	net.Listener
	to   string
	dead atomic.Bool
}

func newPath(t *testing.T, to string) *path {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &path{Listener: l, to: to}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { from.Close() })
			to, err := net.Dial("tcp", p.to)
			if err != nil {
				return
			}
			go p.copy(to, from)
			go p.copy(from, to)
		}
	}()
	return p
}

// copy loses what comes while the path is dead; what came on it then is never
// right again.
func (p *path) copy(to, from net.Conn) {
	defer to.Close()
	lost := false
	for buf := make([]byte, 16<<10); ; {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if lost = lost || p.dead.Load(); lost {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// TestDeadPath: when the path has died silently, pings end what waits on it, and
// new requests are made once it is back.
func TestDeadPath(t *testing.T) {
	b := newBed(t)
	p := newPath(t, b.Listener.Addr().String())
	b.URL = "https://" + p.Addr().String()
	b.kubeconfig("etc/kubelet.conf", clientcmdapi.AuthInfo{Token: "node-token"})
	c, err := Open(b.opts)
	if err != nil {
		t.Fatal(err)
	}
	me := client(t, c.clientConfig(c.open(pace{dial: 300 * time.Millisecond, quiet: 200 * time.Millisecond, pong: 200 * time.Millisecond})))
	if _, err := whoami(t, me, b.URL); err != nil {
		t.Fatal(err)
	}
	p.dead.Store(true)
	began := time.Now()
	if _, err := whoami(t, me, b.URL); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("on the dead path, after %s: %v", time.Since(began), err)
	}
	if _, err := whoami(t, me, b.URL); err == nil {
		t.Error("a request was answered on a dead path")
	}
	p.dead.Store(false)
	if got, err := whoami(t, me, b.URL); err != nil || got != nodeUser {
		t.Errorf("on the path that is back: %q, %v", got, err)
	}
}
