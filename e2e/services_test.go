package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// clusterDNS is the address of service kube-dns.
const clusterDNS = "10.96.0.10"

// proxyManifest is kube-proxy as kubeadm runs it. Its iptables is the machine's
// own: another one might not see the rules that this one makes.
const proxyManifest = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: kube-proxy, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test:node-proxier}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:node-proxier"}
subjects: [{kind: ServiceAccount, name: kube-proxy, namespace: kube-system}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data:
  config.conf: |
    apiVersion: kubeproxy.config.k8s.io/v1alpha1
    kind: KubeProxyConfiguration
    mode: iptables
    clientConnection: {kubeconfig: /var/lib/kube-proxy/kubeconfig.conf}
    clusterCIDR: 10.88.0.0/16
    conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
  kubeconfig.conf: |
    apiVersion: v1
    kind: Config
    clusters: [{name: default, cluster: {certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt, server: SERVER}}]
    contexts: [{name: default, context: {cluster: default, user: default}}]
    current-context: default
    users: [{name: default, user: {tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-proxy, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: kube-proxy}}
  template:
    metadata: {labels: {k8s-app: kube-proxy}}
    spec:
      priorityClassName: system-node-critical
      serviceAccountName: kube-proxy
      hostNetwork: true
      tolerations: [{operator: Exists}]
      volumes:
      - {name: kube-proxy, configMap: {name: kube-proxy}}
      - {name: usr, hostPath: {path: /usr}}
      - {name: lib, hostPath: {path: /lib}}
      - {name: lib64, hostPath: {path: /lib64}}
      - {name: alternatives, hostPath: {path: /etc/alternatives}}
      containers:
      - name: kube-proxy
        image: IMAGE
        args: [--config=/var/lib/kube-proxy/config.conf, --hostname-override=$(NODE_NAME)]
        env:
        - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: PATH, value: "/usr/sbin:/usr/bin"}
        securityContext: {privileged: true}
        readinessProbe: {httpGet: {path: /livez, port: 10256}, periodSeconds: 1, failureThreshold: 60}
        volumeMounts:
        - {name: kube-proxy, mountPath: /var/lib/kube-proxy}
        - {name: usr, mountPath: /usr, readOnly: true}
        - {name: lib, mountPath: /lib, readOnly: true}
        - {name: lib64, mountPath: /lib64, readOnly: true}
        - {name: alternatives, mountPath: /etc/alternatives, readOnly: true}
`

// dnsManifest is CoreDNS as kubeadm runs it, but for the resolver that it asks
// for other names: there is none.
const dnsManifest = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:coredns"}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:coredns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:coredns"}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
        errors
        health
        ready
        kubernetes cluster.local in-addr.arpa ip6.arpa {
           pods insecure
           ttl 30
        }
        cache 30
        loadbalance
    }
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  selector: {k8s-app: kube-dns}
  clusterIP: ADDRESS
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec:
  replicas: 2
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      priorityClassName: system-cluster-critical
      serviceAccountName: coredns
      dnsPolicy: Default
      volumes: [{name: config, configMap: {name: coredns, items: [{key: Corefile, path: Corefile}]}}]
      containers:
      - name: coredns
        image: IMAGE
        args: [-conf, /etc/coredns/Corefile]
        resources: {limits: {memory: 170Mi}, requests: {cpu: 100m, memory: 70Mi}}
        ports: [{containerPort: 53, name: dns, protocol: UDP}, {containerPort: 53, name: dns-tcp, protocol: TCP}]
        livenessProbe: {httpGet: {path: /health, port: 8080}, initialDelaySeconds: 60, timeoutSeconds: 5, failureThreshold: 5}
        readinessProbe: {httpGet: {path: /ready, port: 8181}, periodSeconds: 1}
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {add: [NET_BIND_SERVICE], drop: [ALL]}}
        volumeMounts: [{name: config, mountPath: /etc/coredns, readOnly: true}]
`

// TestServices: kube-proxy and CoreDNS run as pods of the node, and pods find
// the apiserver and each other by what these two do.
func TestServices(t *testing.T) {
	p, err := lab.StartControlPlane(t, lab.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	j := joinedBed(t, p, lab.Containerd2)
	j.Config = map[string]any{"clusterDNS": []string{clusterDNS}, "clusterDomain": "cluster.local"}
	program := func(path string) string {
		image, err := j.AddProgramImage(path)
		j.must(err)
		return image
	}
	proxy, dns := program(filepath.Join(lab.ControlPlaneDir(), "kube-proxy")), program(lab.CoreDNS())
	client := program(filepath.Join(lab.ControlPlaneDir(), "kubectl"))
	j.join()
	own := j.ns
	j.ns = "kube-system"
	j.create(strings.NewReplacer("IMAGE", proxy, "SERVER", p.Server()).Replace(proxyManifest))
	j.create(strings.NewReplacer("IMAGE", dns, "ADDRESS", clusterDNS).Replace(dnsManifest))
	began := time.Now()
	j.rolledOut("daemonset/kube-proxy")
	j.rolledOut("deployment/coredns")
	t.Logf("kube-proxy and CoreDNS are ready after %v", time.Since(began).Round(100*time.Millisecond))
	j.ns = own
	t.Run("PodAsksTheApiserverByName", func(t *testing.T) { asksByName(j.in(t), client) })
	t.Run("ServiceFollowsItsPods", func(t *testing.T) { serviceFollows(j.in(t)) })
	j.refusedNothing()
}

// asksByName: with its own token, over TLS, through the service's address.
func asksByName(j *joined, image string) {
	j.create(podOf("client", `
terminationGracePeriodSeconds: 1
containers: [{name: main, image: `+image+`, command: [sleep, "100000"]}]`))
	p := j.waitReady("client")
	resolved := j.inside(p, "nslookup", "kubernetes.default.svc.cluster.local")
	if !strings.Contains(resolved, "10.96.0.1\n") && !strings.HasSuffix(resolved, "10.96.0.1") {
		j.t.Errorf("nslookup says\n%s", resolved)
	}
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	who := j.inside(p, "sh", "-c", "kubectl --server=https://kubernetes.default.svc.cluster.local --certificate-authority="+dir+"ca.crt --token=$(cat "+dir+"token) auth whoami 2>&1")
	if !strings.Contains(who, "system:serviceaccount:"+j.ns+":default") {
		j.t.Errorf("the apiserver says\n%s", who)
	}
	j.kubectl("delete", "pod", "client")
}

// serviceFollows: a service leads to those of its pods that are ready.
func serviceFollows(j *joined) {
	const serves = `{name: main, image: ` + lab.BusyboxImage + `, command: [sh, -c, "echo \"$VERSION\" >/tmp/version; trap 'exit 0' TERM; httpd -f -p 8080 -h /tmp & wait"], env: [{name: VERSION, value: one}], readinessProbe: {httpGet: {port: 8080, path: /version}, periodSeconds: 1}}`
	j.create(object("apps/v1", "Deployment", "web", j.replicated("web", 2, "strategy: {rollingUpdate: {maxUnavailable: 0}}, ", serves)))
	j.create(object("v1", "Service", "web", "{selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}"))
	j.rolledOut("deployment/web")
	j.create(podOf("asks", `
terminationGracePeriodSeconds: 1
containers: [{name: main, image: BUSYBOX, command: [sleep, "100000"]}]`))
	p := j.waitReady("asks")
	answers := func(version string) {
		j.t.Helper()
		j.eventually("the service answers "+version, 30*time.Second, func() error {
			if got := j.inside(p, "sh", "-c", "wget -q -O - http://web/version 2>&1"); got != version {
				return fmt.Errorf("it answers %q", got)
			}
			return nil
		})
	}
	answers("one")
	j.kubectl("set", "env", "deployment/web", "VERSION=two")
	j.rolledOut("deployment/web")
	j.waitCount("web", 2)
	answers("two")
	j.kubectl("delete", "deployment,service", "web")
	j.kubectl("delete", "pod", "asks")
	j.waitPod("asks", "is gone", func(p *v1.Pod) bool { return p == nil })
}
