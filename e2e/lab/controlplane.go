package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// The addresses of every control plane's cluster.
const (
	PlaneAddress = "192.0.2.254"  // of the apiserver, and of the way between nodes
	ServiceCIDR  = "10.96.0.0/16" // the apiserver is 10.96.0.1
	PodCIDR      = "10.89.0.0/16" // what ControlPlaneOptions.NodeCIDRs gives out
	apiPort      = "6443"
)

// ControlPlaneOptions says what control plane is wanted; the zero value is as
// kubeadm makes one.
type ControlPlaneOptions struct {
	SigningDuration time.Duration // of the certificates that nodes ask for. Default: a day
	NodeGrace       time.Duration // without a sign of life until a node is taken for lost. Default: 50 s
	NodeCIDRs       bool          // nodes get a podCIDR out of PodCIDR
	FeatureGates    []string      // Name=true, of apiserver, controller manager and scheduler
	RuntimeConfig   []string      // API versions that are off by default: GROUP/VERSION=true
}

// ControlPlane is a kube-apiserver over kine and SQLite, a controller manager
// and a scheduler, in a network of their own that nodes join. All speak TLS;
// nodes have the rights that the node authorizer, NodeRestriction and
// kubeadm's bindings give them, and no others.
type ControlPlane struct {
	ID      string
	Dir     string // holds everything; removed at the end
	Network *Network

	options ControlPlaneOptions
	tb      TB
	ca      *authority
	client  kubernetes.Interface
	files   planeFiles
	nodes   atomic.Int32 // that ever joined

	kine, apiserver, controllers, scheduler *daemon
}

// planeFiles are the files that programs are told of.
type planeFiles struct {
	serverCert, serverKey   string // the apiserver's own
	kubeletCert, kubeletKey string // what it shows to kubelets
	accountKey              string // signs service accounts' tokens
	frontCA                 string // signs for who asks in others' names
	frontCert, frontKey     string // by which the apiserver does, of APIs that others serve
	auditPolicy, auditLog   string
	admin                   string // kubeconfig
}

// StartControlPlane starts a control plane and returns when it has its default
// roles and namespaces, after some 8 seconds. The test's clean-up ends it.
func StartControlPlane(tb TB, o ControlPlaneOptions) (*ControlPlane, error) {
	tb.Helper()
	sweepOnce.Do(func() { sweep(tb) })
	id := newID()
	dir, err := os.MkdirTemp("", "lab-"+id+"-")
	if err != nil {
		return nil, err
	}
	p := &ControlPlane{ID: id, Dir: dir, options: o, tb: tb}
	tb.Cleanup(p.close)
	if err := writeOwner(dir); err != nil {
		return nil, err
	}
	if p.Network, err = NewNetwork("lab-"+id, PlaneAddress); err != nil {
		return nil, err
	}
	if err := p.routeNodes(); err != nil {
		return nil, err
	}
	if err := p.prepare(); err != nil {
		return nil, fmt.Errorf("prepare control plane: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := p.start(ctx); err != nil {
		return nil, fmt.Errorf("start control plane: %w", err)
	}
	return p, p.allowBootstrap(ctx)
}

// prepare writes keys, certificates, kubeconfigs and the audit policy.
func (p *ControlPlane) prepare() error {
	programs := ControlPlaneDir()
	if _, err := os.Stat(programs); err != nil {
		return fmt.Errorf("find programs: %w; run hack/install cluster", err)
	}
	pki := p.path("pki")
	if err := errors.Join(os.Mkdir(pki, 0o700), os.Mkdir(p.path("kubeconfigs"), 0o700), os.Mkdir(p.path("store"), 0o700)); err != nil {
		return err
	}
	var err error
	if p.ca, err = newAuthority(pki, "ca"); err != nil {
		return err
	}
	server, err := p.ca.issue(request{user: "kube-apiserver", hosts: []string{
		PlaneAddress, "10.96.0.1", "127.0.0.1", "localhost", "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}})
	if err != nil {
		return err
	}
	if p.files.serverCert, p.files.serverKey, err = server.write(pki, "apiserver"); err != nil {
		return err
	}
	kubelet, err := p.ca.issue(request{user: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}})
	if err != nil {
		return err
	}
	if p.files.kubeletCert, p.files.kubeletKey, err = kubelet.write(pki, "apiserver-kubelet-client"); err != nil {
		return err
	}
	if err := p.prepareFront(pki); err != nil {
		return err
	}
	_, account, err := newKey()
	if err != nil {
		return err
	}
	p.files.accountKey = filepath.Join(pki, "sa.key")
	if err := os.WriteFile(p.files.accountKey, account, 0o600); err != nil {
		return err
	}
	p.files.auditPolicy, p.files.auditLog = p.path("audit-policy.yaml"), p.path("audit.log")
	if err := os.WriteFile(p.files.auditPolicy, []byte(auditPolicy), 0o644); err != nil {
		return err
	}
	if p.files.admin, err = p.Kubeconfig(Identity{User: "kubernetes-admin", Groups: []string{"system:masters"}}); err != nil {
		return err
	}
	if p.client, err = p.ClientOf(p.files.admin); err != nil {
		return err
	}
	return p.prepareDaemons(programs)
}

func (p *ControlPlane) prepareFront(pki string) error {
	front, err := newAuthority(pki, "front-proxy-ca")
	if err != nil {
		return err
	}
	pair, err := front.issue(request{user: "front-proxy-client"})
	if err != nil {
		return err
	}
	p.files.frontCA = front.certFile
	p.files.frontCert, p.files.frontKey, err = pair.write(pki, "front-proxy-client")
	return err
}

func (p *ControlPlane) prepareDaemons(programs string) error {
	controllers, err := p.Kubeconfig(Identity{User: "system:kube-controller-manager"})
	if err != nil {
		return err
	}
	scheduler, err := p.Kubeconfig(Identity{User: "system:kube-scheduler"})
	if err != nil {
		return err
	}
	daemon := func(name string, args []string) *daemon {
		return &daemon{
			name: name, program: filepath.Join(programs, name), args: args, log: p.path(name + ".log"),
			env: append(os.Environ(), labEnv+"="+p.ID), network: p.Network,
		}
	}
	p.kine = daemon("kine", []string{
		"--listen-address=unix://" + p.kineSocket(), "--metrics-bind-address=0",
		"--endpoint=sqlite://" + p.path("store", "state.db") + "?_journal_mode=WAL&_busy_timeout=30000&_synchronous=NORMAL&_txlock=immediate&_stmt_cache_size=20&cache=shared",
	})
	p.apiserver = daemon("kube-apiserver", p.apiserverArgs())
	p.controllers = daemon("kube-controller-manager", p.controllersArgs(controllers))
	p.scheduler = daemon("kube-scheduler", p.gates([]string{
		"--kubeconfig=" + scheduler, "--leader-elect=false", "--secure-port=0",
		"--kube-api-qps=500", "--kube-api-burst=1000",
	}))
	return nil
}

func (p *ControlPlane) apiserverArgs() []string {
	args := []string{
		"--etcd-servers=unix://" + p.kineSocket(),
		"--advertise-address=" + PlaneAddress, "--secure-port=" + apiPort,
		"--tls-cert-file=" + p.files.serverCert, "--tls-private-key-file=" + p.files.serverKey,
		"--client-ca-file=" + p.ca.certFile,
		"--kubelet-client-certificate=" + p.files.kubeletCert, "--kubelet-client-key=" + p.files.kubeletKey,
		"--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
		"--requestheader-client-ca-file=" + p.files.frontCA, "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + p.files.frontCert, "--proxy-client-key-file=" + p.files.frontKey,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + p.files.accountKey, "--service-account-signing-key-file=" + p.files.accountKey,
		"--service-cluster-ip-range=" + ServiceCIDR,
		"--authorization-mode=Node,RBAC",
		// The second lets a test's namespace have its pods on the test's node.
		"--enable-admission-plugins=NodeRestriction,PodNodeSelector",
		"--enable-bootstrap-token-auth=true", "--allow-privileged=true", "--profiling=false",
		"--audit-policy-file=" + p.files.auditPolicy, "--audit-log-path=" + p.files.auditLog,
		"--audit-log-maxsize=10000", // MiB: one file, whatever comes
	}
	if len(p.options.RuntimeConfig) > 0 {
		args = append(args, "--runtime-config="+strings.Join(p.options.RuntimeConfig, ","))
	}
	return p.gates(args)
}

func (p *ControlPlane) controllersArgs(kubeconfig string) []string {
	duration := p.options.SigningDuration
	if duration == 0 {
		duration = 24 * time.Hour
	}
	args := []string{
		"--kubeconfig=" + kubeconfig, "--leader-elect=false", "--secure-port=0",
		"--use-service-account-credentials=true", "--controllers=*,bootstrapsigner,tokencleaner",
		"--root-ca-file=" + p.ca.certFile, "--service-account-private-key-file=" + p.files.accountKey,
		"--cluster-signing-cert-file=" + p.ca.certFile, "--cluster-signing-key-file=" + p.ca.keyFile,
		"--cluster-signing-duration=" + duration.String(),
		"--service-cluster-ip-range=" + ServiceCIDR,
		fmt.Sprintf("--allocate-node-cidrs=%t", p.options.NodeCIDRs), "--cluster-cidr=" + PodCIDR,
		"--kube-api-qps=500", "--kube-api-burst=1000",
	}
	if grace := p.options.NodeGrace; grace > 0 {
		args = append(args, "--node-monitor-grace-period="+grace.String(), "--node-monitor-period=1s")
	}
	return p.gates(args)
}

func (p *ControlPlane) gates(args []string) []string {
	if len(p.options.FeatureGates) > 0 {
		args = append(args, "--feature-gates="+strings.Join(p.options.FeatureGates, ","))
	}
	return args
}

// daemons are the programs in the order in which they start.
func (p *ControlPlane) daemons() []*daemon {
	all := []*daemon{p.kine, p.apiserver, p.controllers, p.scheduler}
	return slices.DeleteFunc(all, func(d *daemon) bool { return d == nil })
}

// start starts what doesn't run and returns when all is ready.
func (p *ControlPlane) start(ctx context.Context) error {
	if err := p.startStore(ctx); err != nil {
		return err
	}
	if err := p.startAPIServer(ctx); err != nil {
		return err
	}
	if err := errors.Join(p.controllers.start(), p.scheduler.start()); err != nil {
		return err
	}
	return p.awaitControllers(ctx)
}

// awaitControllers returns when the controllers work: they all begin at once,
// and one of them makes this object again when it is gone. Nobody needs it.
func (p *ControlPlane) awaitControllers(ctx context.Context) error {
	maps := p.client.CoreV1().ConfigMaps(metav1.NamespacePublic)
	const name = "kube-root-ca.crt"
	if err := maps.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("see whether the controllers work: %w", err)
	}
	return poll(ctx, func() error {
		if err := errors.Join(p.controllers.check(), p.scheduler.check()); err != nil {
			return err
		}
		if _, err := maps.Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		// Without its account a namespace takes no pods.
		_, err := p.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

func (p *ControlPlane) path(elem ...string) string {
	return filepath.Join(append([]string{p.Dir}, elem...)...)
}

func (p *ControlPlane) kineSocket() string { return p.path("kine.sock") }

// stop ends all programs in reverse order.
func (p *ControlPlane) stop() error {
	var err error
	for _, d := range slices.Backward(p.daemons()) {
		err = errors.Join(err, d.stop())
	}
	return err
}

func (p *ControlPlane) close() {
	if p.tb.Failed() {
		for _, d := range p.daemons() {
			p.tb.Logf("the end of %s's log:\n%s", d.name, tail(d.log, 20))
		}
	}
	if err := errors.Join(p.stop(), takeDown(p.ID, p.Dir)); err != nil {
		p.tb.Errorf("lab: take control plane down: %v", err)
	}
	left := (&Lab{ID: p.ID, Dir: p.Dir, CgroupRoot: "/" + cgroupPrefix + p.ID, Network: p.Network}).facts()
	for fact := range left {
		p.tb.Errorf("lab: left behind by the control plane: %s", fact)
	}
}
