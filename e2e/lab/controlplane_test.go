package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func startControlPlane(t *testing.T, o ControlPlaneOptions) *ControlPlane {
	t.Helper()
	p, err := StartControlPlane(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A control plane gives nodes their rights and no more, tells what they asked
// for, and comes back as it was, or as it was before; close checks that
// nothing of it is left.
func TestControlPlane(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := startControlPlane(t, ControlPlaneOptions{})
	node := clientOfNode(t, p, "n1")
	own := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	if _, err := node.CoreV1().Nodes().Create(ctx, own, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	other := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}
	if _, err := node.CoreV1().Nodes().Create(ctx, other, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a node makes another node: %v, want it forbidden", err)
	}
	wantCodes(t, p, "system:node:n1", http.StatusCreated, http.StatusForbidden)

	out, err := p.Kubectl("create", "configmap", "kept")
	if err != nil || !strings.Contains(out, "configmap/kept created") {
		t.Fatalf("kubectl: %v", err)
	}
	if err := p.SaveStore("early"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Kubectl("create", "configmap", "forgotten"); err != nil {
		t.Fatal(err)
	}
	if err := p.RestoreStore("early"); err != nil {
		t.Fatal(err)
	}
	maps, err := p.Client().CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, m := range maps.Items {
		names = append(names, m.Name)
	}
	if want := []string{"kept", "kube-root-ca.crt"}; !slices.Equal(names, want) {
		t.Errorf("ConfigMaps after RestoreStore: %v, want %v", names, want)
	}

	if err := p.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	if _, err := node.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{}); err == nil {
		t.Error("a stopped apiserver answers")
	}
	if err := p.StartAPIServer(); err != nil {
		t.Fatal(err)
	}
	if _, err := node.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{}); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

func clientOfNode(t *testing.T, p *ControlPlane, name string) kubernetes.Interface {
	t.Helper()
	kubeconfig, err := p.NodeKubeconfig(name)
	if err != nil {
		t.Fatal(err)
	}
	client, err := p.ClientOf(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// wantCodes waits until the audit log has so ended writes of the user.
func wantCodes(t *testing.T, p *ControlPlane, user string, want ...int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := poll(ctx, func() error {
		requests, err := p.Requests(func(r Request) bool { return r.User == user && r.Write() })
		if err != nil {
			return fatal(err)
		}
		got := []int{}
		for _, r := range requests {
			got = append(got, r.Code)
		}
		if !slices.Equal(got, want) {
			return errors.New(user + " wrote otherwise")
		}
		return nil
	})
	if err != nil {
		requests, _ := p.Requests(func(r Request) bool { return true })
		t.Errorf("%v; the audit log: %v", err, requests)
	}
}

// Nodes that joined reach the apiserver, each other, and each other's pods; a
// black hole swallows what one of them sends, also over a connection that is
// open, and nobody else's.
func TestJoinedNodes(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := startControlPlane(t, ControlPlaneOptions{})
	one, two := New(t, Options{Plane: p}), New(t, Options{Plane: p})
	pod := one.barePod(t, "first")
	if err := one.CRI.RunPod(ctx, pod); err != nil {
		t.Fatal(err)
	}
	sandbox, err := one.CRI.Runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: pod.Sandbox})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{one.Network.Address, sandbox.Status.Network.Ip} {
		// Nothing listens there, and that is what a host or pod that is reached says.
		_, err := two.Network.Dial(ctx, "tcp", net.JoinHostPort(address, "9"))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("from one node to %s of another: %v, want it refused", address, err)
		}
	}

	open := dialPlane(t, one)
	if err := p.BlackHole(one, true); err != nil {
		t.Fatal(err)
	}
	if err := greet(open, time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an open connection into the black hole: %v, want silence", err)
	}
	if err := greet(dialPlane(t, two), 5*time.Second); err != nil {
		t.Errorf("the other node: %v", err)
	}
	if err := p.BlackHole(one, false); err != nil {
		t.Fatal(err)
	}
	if err := greet(dialPlane(t, one), 5*time.Second); err != nil {
		t.Errorf("after the black hole: %v", err)
	}
}

func dialPlane(t *testing.T, l *Lab) net.Conn {
	t.Helper()
	c, err := l.Network.Dial(t.Context(), "tcp", net.JoinHostPort(PlaneAddress, apiPort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// greet exchanges the first words of TLS over the connection.
func greet(c net.Conn, within time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	return tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake()
}
