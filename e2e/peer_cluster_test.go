//go:build peer

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// joinPeer makes a bed whose node is the real kubelet, to see what the agent
// is compared with, and that the bed is sound.
func joinPeer(t *testing.T) *joined {
	keepSysctls(t)
	j := joinedBed(t, cluster(t), lab.Containerd2)
	makeTopCgroups(t, j.CgroupRoot)
	j.Binary = filepath.Join(lab.ControlPlaneDir(), "kubelet")
	j.Args = []string{
		"--node-ip=" + j.Network.Address, // else it looks for a default route
		// How full the machine's own disk is, is not what is compared.
		"--eviction-hard=memory.available<10Mi", "--image-gc-high-threshold=100",
	}
	return j
}

// TestPeerJoins: the kubelet joins and runs what a Deployment wants.
func TestPeerJoins(t *testing.T) {
	j := joinPeer(t)
	j.join()
	j.kubectl("create", "deployment", "web", "--image="+lab.BusyboxImage, "--", "sleep", "100000")
	j.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	pods := j.kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName} {.items[*].status.phase}")
	if want := j.Node + " " + string(v1.PodRunning); pods != want {
		t.Errorf("the Deployment's pods: %q, want %q", pods, want)
	}
	j.refusedNothing()
}

// clusterRich is a pod with what only a cluster gives: objects, a token, a
// probe, a restart.
const clusterRich = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Pod
metadata: {name: rich, labels: {app: rich}}
spec:
  terminationGracePeriodSeconds: 3
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: disk, emptyDir: {}}
  containers:
  - name: main
    image: BUSYBOX
    command: [sh, -c, "test -e /disk/once || { touch /disk/once; exit 1; }; trap 'exit 0' TERM; sleep 100000 & wait"]
    env: [{name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}]
    readinessProbe: {exec: {command: [test, -e, /settings/color]}, periodSeconds: 1}
    volumeMounts: [{name: settings, mountPath: /settings}, {name: disk, mountPath: /disk}]
`

// TestPeerHandsOverCluster: on a node of a cluster the agent takes the kubelet's
// place, and gives it back, and no container notices, nor does the apiserver.
func TestPeerHandsOverCluster(t *testing.T) {
	j := joinPeer(t)
	kubelet, args := j.Binary, j.Args
	j.join()
	j.create(strings.ReplaceAll(clusterRich, "BUSYBOX", lab.BusyboxImage))
	j.kubectl("create", "deployment", "web", "--image="+lab.BusyboxImage, "--", "sleep", "100000")
	j.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	before := j.waitPod("rich", "is Ready after a restart", func(p *v1.Pod) bool {
		return podReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	was := j.alive()
	turns := []struct {
		binary string
		args   []string
	}{{binary, nil}, {kubelet, args}, {binary, nil}}
	for i, turn := range turns {
		j.must(j.Agent.Kill())
		j.Binary, j.Args = turn.binary, turn.args
		j.must(j.Agent.Start())
		name := fmt.Sprintf("turn%d", i)
		j.create(sleeper(name))
		j.waitReady(name) // whoever is there works
		j.kubectl("delete", "pod", name, "--wait=false")
		j.waitGone(name)
		if now := j.alive(); strings.Join(now, " ") != strings.Join(was, " ") {
			t.Fatalf("turn %d: instances %v became %v", i, was, now)
		}
		after := j.waitPod("rich", "is Ready", podReady)
		had, has := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]
		if has.RestartCount != had.RestartCount || has.ContainerID != had.ContainerID || !has.State.Running.StartedAt.Equal(&had.State.Running.StartedAt) {
			t.Errorf("turn %d: container %+v became %+v", i, had, has)
		}
		// The kubelet asks its probes anew when it starts, and says Unready until then.
		if since := transitionOf(before); turn.binary != kubelet && !since.Equal(ptr.To(transitionOf(after))) {
			t.Errorf("turn %d: the pod was not Ready in between", i)
		}
		before = after
	}
}

// transitionOf is since when the pod is Ready.
func transitionOf(p *v1.Pod) (at metav1.Time) {
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodReady {
			at = c.LastTransitionTime
		}
	}
	return at
}
