package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// bootstrappers is the group that kubeadm gives those who bring a token.
const bootstrappers = "system:bootstrappers:kubeadm:default-node-token"

// Identity is whom a client certificate names.
type Identity struct {
	User     string
	Groups   []string
	Lifetime time.Duration // of the certificate. Default: 23 hours
}

// Server is the apiserver's URL, for who stands in the control plane's network
// or in that of a node that joined it.
func (p *ControlPlane) Server() string { return "https://" + net.JoinHostPort(PlaneAddress, apiPort) }

// CAFile holds the certificate of the authority that signs for servers and clients.
func (p *ControlPlane) CAFile() string { return p.ca.certFile }

// AdminKubeconfig is the file of one who may do everything.
func (p *ControlPlane) AdminKubeconfig() string { return p.files.admin }

// Client is that one's client, to be used by this process.
func (p *ControlPlane) Client() kubernetes.Interface { return p.client }

// NodeKubeconfig writes the file of a node, with a client certificate for a day.
func (p *ControlPlane) NodeKubeconfig(node string) (string, error) {
	return p.Kubeconfig(Identity{User: "system:node:" + node, Groups: []string{"system:nodes"}})
}

// Kubeconfig issues a client certificate and writes a file with it, mode 0600.
func (p *ControlPlane) Kubeconfig(who Identity) (string, error) {
	pair, err := p.ca.issue(request{user: who.User, groups: who.Groups, lifetime: who.Lifetime})
	if err != nil {
		return "", err
	}
	return p.writeKubeconfig(&clientcmdapi.AuthInfo{ClientCertificateData: pair.cert, ClientKeyData: pair.key})
}

// BootstrapKubeconfig writes the file of a node that is still to ask for its
// certificate: it has a bootstrap token, newly made, as kubeadm makes them.
func (p *ControlPlane) BootstrapKubeconfig() (string, error) {
	token, err := p.BootstrapToken()
	if err != nil {
		return "", err
	}
	return p.writeKubeconfig(&clientcmdapi.AuthInfo{Token: token})
}

// BootstrapToken makes a token that doesn't expire, as `kubeadm token create` does.
func (p *ControlPlane) BootstrapToken() (string, error) {
	random := make([]byte, 11)
	rand.Read(random) // never fails
	text := hex.EncodeToString(random)
	id, secret := text[:6], text[6:]
	_, err := p.client.CoreV1().Secrets("kube-system").Create(context.Background(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + id},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{
			"token-id": id, "token-secret": secret, "auth-extra-groups": bootstrappers,
			"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("make bootstrap token: %w", err)
	}
	return id + "." + secret, nil
}

func (p *ControlPlane) writeKubeconfig(user *clientcmdapi.AuthInfo) (string, error) {
	path := p.path("kubeconfigs", newID()+".conf")
	config := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"lab": {Server: p.Server(), CertificateAuthorityData: p.ca.pem}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"lab": user},
		Contexts:       map[string]*clientcmdapi.Context{"lab": {Cluster: "lab", AuthInfo: "lab"}},
		CurrentContext: "lab",
	}
	if err := clientcmd.WriteToFile(config, path); err != nil {
		return "", fmt.Errorf("write kubeconfig: %w", err)
	}
	return path, nil
}

// RESTConfig reads a kubeconfig for use by this process, which stands outside
// the control plane's network. Calls aren't rationed.
func (p *ControlPlane) RESTConfig(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.Dial, config.QPS = p.Network.Dial, -1
	return config, nil
}

// ClientOf is a client with the rights of a kubeconfig, to be used by this process.
func (p *ControlPlane) ClientOf(kubeconfig string) (kubernetes.Interface, error) {
	config, err := p.RESTConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// KubectlCommand is a kubectl of the cluster's own version with all rights.
func (p *ControlPlane) KubectlCommand(args ...string) *exec.Cmd {
	cmd := p.Network.Command(filepath.Join(ControlPlaneDir(), "kubectl"), append([]string{"--kubeconfig=" + p.files.admin}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+p.Dir) // it caches there what the server has
	return cmd
}

// Kubectl runs kubectl to its end. What it printed is in the error as well.
func (p *ControlPlane) Kubectl(args ...string) (string, error) {
	out, err := p.KubectlCommand(args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// allowBootstrap binds the roles that kubeadm binds for nodes: those who bring
// a token may ask for a certificate and look at their node, and get what they
// ask for; nodes get their next certificate.
func (p *ControlPlane) allowBootstrap(ctx context.Context) error {
	const csrs = "system:certificates.k8s.io:certificatesigningrequests:"
	rbac := p.client.RbacV1()
	nodes := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "kubeadm:get-nodes"},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"nodes"}}},
	}
	if _, err := rbac.ClusterRoles().Create(ctx, nodes, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make role %s: %w", nodes.Name, err)
	}
	for _, b := range []struct{ name, role, group string }{
		{"kubeadm:kubelet-bootstrap", "system:node-bootstrapper", bootstrappers},
		{"kubeadm:get-nodes", "kubeadm:get-nodes", bootstrappers},
		{"kubeadm:node-autoapprove-bootstrap", csrs + "nodeclient", bootstrappers},
		{"kubeadm:node-autoapprove-certificate-rotation", csrs + "selfnodeclient", "system:nodes"},
	} {
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: b.name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: b.role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: b.group}},
		}
		if _, err := rbac.ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("bind role %s: %w", b.role, err)
		}
	}
	return nil
}
