package e2e

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// The folders that kubeadm and the kubelet's unit know.
const (
	kubeletDir    = "/var/lib/kubelet"
	kubernetesDir = "/etc/kubernetes"
)

// systemctl stands in systemd's place: one service, kubelet, which it starts as
// kubeadm's own drop-in does (10-kubeadm.conf), under the name of kubelet.
const systemctl = `#!/bin/sh
cd %[1]s
echo "$@" >>asked
case "$1" in
start|restart)
	test ! -e pid || kill "$(cat pid)"
	. /var/lib/kubelet/kubeadm-flags.env
	setsid %[1]s/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf \
		--config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS </dev/null >>%[2]s 2>&1 &
	echo $! >pid ;;
stop)
	test ! -e pid || { kill "$(cat pid)"; rm pid; } ;;
is-active | is-enabled)
	test "$2" = kubelet ;;
esac
`

// kubeadmConfig is what init's phases tell the cluster of its nodes: the last
// part holds what this machine and a lab need, all else is kubeadm's.
const kubeadmConfig = `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{token: %[1]s, groups: ["system:bootstrappers:kubeadm:default-node-token"], usages: [signing, authentication], ttl: 1h}]
localAPIEndpoint: {advertiseAddress: %[2]s}
nodeRegistration: {name: control-plane, criSocket: %[3]s}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: %[7]s
controlPlaneEndpoint: %[2]s:6443
networking: {serviceSubnet: %[4]s}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupRoot: %[5]s
failCgroupV1: false
podLogsDir: %[6]s
`

const joinConfig = `apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery: {bootstrapToken: {token: %[1]s, apiServerEndpoint: "%[2]s:6443", caCertHashes: ["%[3]s"]}}
nodeRegistration:
  name: %[4]s
  criSocket: %[5]s
  taints: [{key: example.com/joined, effect: PreferNoSchedule}]
`

const resetConfig = `apiVersion: kubeadm.k8s.io/v1beta4
kind: ResetConfiguration
criSocket: %s
force: true
`

// kubeadm is a node that is still to be joined, with kubeadm itself.
type kubeadm struct {
	*joined
	program *lab.Agent
	token   string
}

func newKubeadm(t *testing.T) kubeadm {
	t.Helper()
	p, err := lab.StartControlPlane(t, lab.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	j := joinedLab(t, lab.Options{Plane: p, Own: []string{kubeletDir, kubernetesDir}})
	k := kubeadm{joined: j, token: "abcdef.0123456789abcdef"}
	bin := j.Path("bin")
	k.must(os.Mkdir(bin, 0o755))
	k.must(os.Symlink(binary, filepath.Join(bin, "kubelet")))
	k.must(os.WriteFile(filepath.Join(bin, "systemctl"), fmt.Appendf(nil, systemctl, bin, j.LogFile()), 0o755))
	k.program, err = j.Lab.Agent(filepath.Join(lab.ControlPlaneDir(), "kubeadm"))
	k.must(err)
	k.program.Env = []string{"PATH=" + bin + ":" + strings.Join(j.Runtime.Programs.Path, ":") + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}
	j.Root = j.Own(kubeletDir) // where the agent that kubeadm starts is asked for its pods
	return k
}

// run runs kubeadm with a configuration to its end.
func (k kubeadm) run(config string, args ...string) string {
	k.t.Helper()
	file := k.Path(args[0] + ".yaml")
	k.must(os.WriteFile(file, []byte(config), 0o600))
	out, err := k.program.Plain(append(args, "--config="+file)...).CombinedOutput()
	if err != nil {
		k.t.Fatalf("kubeadm %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// init has kubeadm tell the cluster what those need that join it.
func (k kubeadm) init() {
	k.t.Helper()
	version, err := k.program.Plain("version", "-o", "short").Output()
	k.must(err)
	config := fmt.Sprintf(kubeadmConfig, k.token, lab.PlaneAddress, k.Runtime.Endpoint(), lab.ServiceCIDR, k.CgroupRoot, k.PodLogs, strings.TrimSpace(string(version)))
	for _, phase := range [][]string{{"upload-config", "all"}, {"bootstrap-token"}} {
		k.run(config, append(append([]string{"init", "phase"}, phase...), "--kubeconfig="+k.plane.AdminKubeconfig())...)
	}
}

// caHash names the cluster's authority as kubeadm's users do.
func (k kubeadm) caHash() string {
	k.t.Helper()
	data, err := os.ReadFile(k.plane.CAFile())
	k.must(err)
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	k.must(err)
	return fmt.Sprintf("sha256:%x", sha256.Sum256(cert.RawSubjectPublicKeyInfo))
}

// TestKubeadmJoin: kubeadm's own join, unaltered, starts the agent as the
// kubelet, finds it healthy, and leaves a node that runs pods; its reset takes
// all of them away again.
func TestKubeadmJoin(t *testing.T) {
	k := newKubeadm(t)
	k.init()
	began := time.Now()
	// The kernel's options and cgroup version are this machine's.
	out := k.run(fmt.Sprintf(joinConfig, k.token, lab.PlaneAddress, k.caHash(), k.Node, k.Runtime.Endpoint()),
		"join", "--ignore-preflight-errors=SystemVerification")
	t.Logf("kubeadm join took %v", time.Since(began).Round(100*time.Millisecond))
	if !strings.Contains(out, "This node has joined the cluster") {
		t.Errorf("kubeadm join said:\n%s", out)
	}
	n := k.waitNode("is Ready", nodeReady)
	if !slices.ContainsFunc(n.Spec.Taints, func(taint v1.Taint) bool { return taint.Key == "example.com/joined" }) {
		t.Errorf("taints: %+v", n.Spec.Taints)
	}
	kubeconfig, err := os.ReadFile(filepath.Join(k.Own(kubernetesDir), "kubelet.conf"))
	k.must(err)
	if !strings.Contains(string(kubeconfig), kubeletDir+"/pki/kubelet-client-current.pem") {
		t.Errorf("kubelet.conf:\n%s", kubeconfig)
	}
	if _, err := os.Stat(filepath.Join(k.Own(kubernetesDir), "bootstrap-kubelet.conf")); !os.IsNotExist(err) {
		t.Errorf("the bootstrap kubeconfig is still there: %v", err)
	}
	k.create(sleeper("web"))
	if p := k.waitReady("web"); p.Status.Phase != v1.PodRunning || p.Status.PodIP == "" {
		t.Errorf("status: %+v", p.Status)
	}
	k.refusedNothing()

	k.run(fmt.Sprintf(resetConfig, k.Runtime.Endpoint()), "reset")
	if left := k.sandboxes(""); len(left) > 0 {
		t.Errorf("left of the pods: %v", left)
	}
	for _, dir := range []string{kubeletDir, filepath.Join(kubernetesDir, "pki")} {
		left, err := os.ReadDir(k.Own(dir))
		if err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v (%v)", dir, left, err)
		}
	}
}
