package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd/api"
)

// metricsPort is where metrics-server listens in the control plane's network.
const metricsPort = "4443"

// metricsRights are what metrics-server's own manifests give it, with a service
// account's token, and nothing more.
const metricsRights = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:metrics-server"}
rules:
- {apiGroups: [""], resources: [nodes/metrics], verbs: [get]}
- {apiGroups: [""], resources: [pods, nodes], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:metrics-server"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:metrics-server"}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "metrics-server:system:auth-delegator"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: metrics-server-auth-reader, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
`

// metricsAPI is by which the apiserver finds it. No kube-proxy serves this
// network: the service stands for an address, not for endpoints.
const metricsAPI = `
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {type: ExternalName, externalName: ` + PlaneAddress + `, ports: [{port: ` + metricsPort + `}]}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  {group: metrics.k8s.io, version: v1beta1, groupPriorityMinimum: 100, versionPriority: 100, insecureSkipTLSVerify: true,
   service: {name: metrics-server, namespace: kube-system, port: ` + metricsPort + `}}
`

// StartMetricsServer starts the cluster's metrics-server, which asks all nodes
// each 10 s what they use, and returns when the apiserver offers its API. The
// test's clean-up ends it, and takes the API away first: a namespace can't be
// deleted while one that is offered doesn't answer.
func (p *ControlPlane) StartMetricsServer(tb TB) error {
	if _, err := os.Stat(MetricsServer()); err != nil {
		return fmt.Errorf("find metrics-server: %w; run hack/install test", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	kubeconfig, err := p.accountKubeconfig(ctx, metav1.NamespaceSystem, "metrics-server")
	if err != nil {
		return err
	}
	d := &daemon{
		name: "metrics-server", program: MetricsServer(), log: p.path("metrics-server.log"), network: p.Network,
		env: append(os.Environ(), labEnv+"="+p.ID),
		args: []string{
			"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=" + PlaneAddress, "--secure-port=" + metricsPort, "--cert-dir=" + p.path("metrics-server"),
			"--kubelet-insecure-tls", "--kubelet-preferred-address-types=InternalIP",
			"--metric-resolution=10s", "--kubelet-request-timeout=5s",
		},
	}
	tb.Cleanup(func() {
		_, err := p.Kubectl("delete", "--ignore-not-found", "apiservice/v1beta1.metrics.k8s.io")
		if err := errors.Join(err, d.stop()); err != nil {
			tb.Errorf("lab: end metrics-server: %v", err)
		}
		if tb.Failed() {
			tb.Logf("the end of metrics-server's log:\n%s", tail(d.log, 20))
		}
	})
	if err := p.apply(metricsRights); err != nil {
		return err
	}
	if err := d.start(); err != nil {
		return err
	}
	if err := p.apply(metricsAPI); err != nil {
		return err
	}
	return poll(ctx, func() error {
		if err := d.check(); err != nil {
			return err
		}
		_, err := p.Kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes")
		return err
	})
}

// accountKubeconfig writes the file of a service account, which is made, with a
// token for an hour.
func (p *ControlPlane) accountKubeconfig(ctx context.Context, namespace, name string) (string, error) {
	accounts := p.client.CoreV1().ServiceAccounts(namespace)
	_, err := accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("make service account %s: %w", name, err)
	}
	token, err := accounts.CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("ask for a token of %s: %w", name, err)
	}
	return p.writeKubeconfig(&api.AuthInfo{Token: token.Status.Token})
}

// apply manifests with all rights.
func (p *ControlPlane) apply(manifests string) error {
	cmd := p.KubectlCommand("apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifests)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apply: %w: %s", err, out)
	}
	return nil
}
