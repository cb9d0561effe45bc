//go:build anycluster

package e2e

import (
	"flag"
	"os"
	"os/exec"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

var (
	anyNode  = flag.String("node", "", "the node of the cluster that runs the pods")
	anyImage = flag.String("image", "busybox", "an image that has sh, test, touch, sleep and hostname")
)

// TestAnyCluster: what the controllers make of pods works on a node of a cluster
// that is there already, the one of KUBECONFIG.
func TestAnyCluster(t *testing.T) {
	file := os.Getenv(clientcmd.RecommendedConfigPathEnvVar)
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil || *anyNode == "" {
		t.Fatalf("want a cluster in KUBECONFIG and a name in -node: %v", err)
	}
	image = *anyImage
	j := &joined{bed: &bed{nil, &lab.Agent{Node: *anyNode}, t}, ns: "nodeagent-e2e", ctl: func(args ...string) *exec.Cmd {
		return exec.Command("kubectl", args...)
	}}
	j.client, err = kubernetes.NewForConfig(config)
	j.must(err)
	j.makeNamespace(nil)
	t.Cleanup(func() {
		if out, err := j.ctl("delete", "namespace", j.ns).CombinedOutput(); err != nil {
			t.Errorf("delete namespace: %v: %s", err, out)
		}
	})
	t.Run("kinds", func(t *testing.T) { workloads(j.in(t)) })
}
