package e2e

import (
	"context"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// suite cleans up when all tests have ended.
var suite lab.TB

var startCluster = sync.OnceValues(func() (*lab.ControlPlane, error) {
	return lab.StartControlPlane(suite, lab.ControlPlaneOptions{})
})

// cluster is the control plane that the tests share, started for the first one
// that asks. A test that stops it, or wants another, starts its own.
func cluster(t *testing.T) *lab.ControlPlane {
	t.Helper()
	p, err := startCluster()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// joined is a bed whose agent is a node of a cluster.
type joined struct {
	*bed
	plane  *lab.ControlPlane
	client kubernetes.Interface // may do everything, as may:
	ctl    func(args ...string) *exec.Cmd
	ns     string // the test's own; its pods run on this node only
}

// joinedBed makes a node for a cluster, named for the lab, and a namespace. The
// agent isn't started; its Kubeconfig is that of a node with a certificate.
func joinedBed(t *testing.T, p *lab.ControlPlane, version string) *joined {
	t.Helper()
	return joinedLab(t, lab.Options{Version: version, Plane: p})
}

// joinedLab is joinedBed with more options.
func joinedLab(t *testing.T, o lab.Options) *joined {
	t.Helper()
	l, p := lab.New(t, o), o.Plane
	a, err := l.Agent(binary)
	if err != nil {
		t.Fatal(err)
	}
	j := &joined{bed: &bed{l, a, t}, plane: p, client: p.Client(), ctl: p.KubectlCommand, ns: "test-" + l.ID}
	a.Node, a.ClientCA = "node-"+l.ID, p.CAFile()
	a.Kubeconfig, err = p.NodeKubeconfig(a.Node)
	j.must(err)
	t.Cleanup(j.leave)
	j.makeNamespace(map[string]string{"scheduler.alpha.kubernetes.io/node-selector": v1.LabelHostname + "=" + a.Node})
	return j
}

// makeNamespace makes the test's namespace; it takes pods when this returns.
func (j *joined) makeNamespace(annotations map[string]string) {
	j.t.Helper()
	_, err := j.client.CoreV1().Namespaces().Create(j.t.Context(),
		&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: j.ns, Annotations: annotations}}, metav1.CreateOptions{})
	j.must(err)
	await(j, j.only("serviceaccounts", "default"), "the namespace's account is there", func(s *v1.ServiceAccount) bool { return s != nil })
}

// leave takes the node and the namespace out of the cluster. The lab ends pods.
func (j *joined) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if j.t.Failed() {
		out, err := j.plane.Kubectl("get", "nodes,pods,events", "-o", "wide", "-n", j.ns)
		j.t.Logf("what the apiserver knows (%v):\n%s", err, out)
	}
	now := metav1.NewDeleteOptions(0)
	for _, err := range []error{
		j.Agent.Kill(), // else it would join again
		j.client.CoreV1().Namespaces().Delete(ctx, j.ns, metav1.DeleteOptions{}),
		j.client.CoreV1().Pods(j.ns).DeleteCollection(ctx, *now, metav1.ListOptions{}),
		j.client.CoreV1().Nodes().Delete(ctx, j.Node, metav1.DeleteOptions{}),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			j.t.Errorf("leave the cluster: %v", err)
		}
	}
}

// in is the same node for a part of the test.
func (j *joined) in(t *testing.T) *joined {
	part := *j
	part.bed = &bed{j.Lab, j.Agent, t}
	return &part
}

// join starts the agent and waits until its node is Ready.
func (j *joined) join() *v1.Node {
	j.t.Helper()
	j.must(j.Agent.Start())
	return j.waitNode("is Ready", nodeReady)
}

func nodeReady(n *v1.Node) bool {
	if n != nil {
		for _, c := range n.Status.Conditions {
			if c.Type == v1.NodeReady {
				return c.Status == v1.ConditionTrue
			}
		}
	}
	return false
}

// create makes pods, or whatever else a manifest has, in the test's namespace.
func (j *joined) create(manifest string) {
	j.t.Helper()
	cmd := j.ctl("create", "-n", j.ns, "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		j.t.Fatalf("create: %v: %s", err, out)
	}
}

// kubectl runs kubectl in the test's namespace, with all rights.
func (j *joined) kubectl(args ...string) string {
	j.t.Helper()
	out, err := j.ctl(append([]string{"-n", j.ns}, args...)...).CombinedOutput()
	if err != nil {
		j.t.Fatalf("kubectl %v: %v: %s", args, err, out)
	}
	return string(out)
}

// only is one object of the test's namespace, to be awaited.
func (j *joined) only(resource, name string) cache.ListerWatcher {
	return oneObject(j.client, resource, j.ns, name)
}

// oneObject is one object of the core group, to be awaited.
func oneObject(client kubernetes.Interface, resource, ns, name string) cache.ListerWatcher {
	return cache.NewFilteredListWatchFromClient(client.CoreV1().RESTClient(), resource, ns, func(o *metav1.ListOptions) {
		o.FieldSelector = "metadata.name=" + name
	})
}

// waitPod waits until a pod of the namespace is as wanted; nil when there is none.
func (j *joined) waitPod(name, what string, want func(*v1.Pod) bool) *v1.Pod {
	j.t.Helper()
	return await(j, j.only("pods", name), "pod "+name+" "+what, want)
}

// waitReady waits until a pod of the namespace is Ready.
func (j *joined) waitReady(name string) *v1.Pod {
	j.t.Helper()
	return j.waitPod(name, "is Ready", podReady)
}

func podReady(p *v1.Pod) bool {
	if p != nil {
		for _, c := range p.Status.Conditions {
			if c.Type == v1.PodReady {
				return c.Status == v1.ConditionTrue
			}
		}
	}
	return false
}

// waitGone waits until the apiserver has no such pod.
func (j *joined) waitGone(name string) {
	j.t.Helper()
	j.waitPod(name, "is gone", func(p *v1.Pod) bool { return p == nil })
}

// waitNode waits until the test's node is as wanted; nil when there is none.
func (j *joined) waitNode(what string, want func(*v1.Node) bool) *v1.Node {
	j.t.Helper()
	return await(j, oneObject(j.client, "nodes", "", j.Node), "node "+j.Node+" "+what, want)
}

// await watches one object until it is as wanted, for a minute at most; nil
// stands for an object that isn't there. It survives restarts of the apiserver.
func await[T interface {
	comparable
	runtime.Object
}](j *joined, lw cache.ListerWatcher, what string, want func(T) bool) (last T) {
	j.t.Helper()
	ctx, cancel := context.WithTimeout(j.t.Context(), time.Minute)
	defer cancel()
	var none T
	absent := func(s cache.Store) (bool, error) { return len(s.List()) == 0 && want(none), nil }
	_, err := watchtools.UntilWithSync(ctx, lw, reflect.New(reflect.TypeFor[T]().Elem()).Interface().(T), absent, func(e watch.Event) (bool, error) {
		last = e.Object.(T)
		if e.Type == watch.Deleted {
			last = none
		}
		return want(last), nil
	})
	if err != nil {
		text := "it isn't there"
		if last != none {
			out, _ := yaml.Marshal(last)
			text = string(out)
		}
		j.t.Fatalf("%s: %v\n%s", what, err, text)
	}
	return last
}
