package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	goruntime "runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
)

// world is an apiserver, a runtime, and a Reporter between them.
type world struct {
	*testing.T
	r      *Reporter
	api    *fake.Clientset
	events *record.FakeRecorder

	mu     sync.Mutex
	state  RuntimeState
	images []v1.ContainerImage
	cidrs  []string // that the runtime was told
	refuse error    // what the runtime answers to that
	news   []*v1.Node
	writes int   // of the status
	fails  error // what the apiserver answers to them
}

func up() RuntimeState {
	return RuntimeState{Name: "containerd", Version: "2.4.2", Session: 1}
}

// inWorld runs a test in virtual time. change may change the options.
func inWorld(t *testing.T, objects []runtime.Object, change func(*world, *ReporterOptions), test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, api: fake.NewClientset(objects...), events: record.NewFakeRecorder(100), state: up()}
		uids := 0
		w.api.PrependReactor("create", "nodes", func(a clienttesting.Action) (bool, runtime.Object, error) {
			uids++
			a.(clienttesting.CreateAction).GetObject().(*v1.Node).UID = types.UID(fmt.Sprint("uid", uids))
			return false, nil, nil
		})
		w.api.PrependReactor("patch", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.writes++
			return w.fails != nil, nil, w.fails
		})
		o := ReporterOptions{
			Client: w.api, Heartbeat: w.api,
			Settings: Settings{Name: "n1", Register: true, MaxImages: 50, Attach: true},
			Machine: Machine{Capacity: list("cpu=2", "memory=4Gi", "pods=110", "ephemeral-storage=10Gi"),
				Allocatable: list("cpu=1", "memory=3Gi", "pods=110", "ephemeral-storage=9Gi"), Port: 10250, Info: v1.NodeSystemInfo{BootID: "boot1"}},
			Cadence:   Cadence{Lease: 40 * time.Second, Update: 10 * time.Second, Report: 5 * time.Minute},
			Addresses: func(context.Context) ([]string, error) { return []string{"192.0.2.1"}, nil },
			Runtime:   func() RuntimeState { w.mu.Lock(); defer w.mu.Unlock(); return w.state },
			Images: func(context.Context) ([]v1.ContainerImage, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.images, nil
			},
			PodCIDR: func(_ context.Context, cidr string) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				if w.refuse == nil {
					w.cidrs = append(w.cidrs, cidr)
				}
				return w.refuse
			},
			Changed: func(n *v1.Node) { w.mu.Lock(); defer w.mu.Unlock(); w.news = append(w.news, n) },
			Events:  w.events, Log: slog.New(slog.DiscardHandler),
		}
		if change != nil {
			change(w, &o)
		}
		w.r = NewReporter(o)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.r.Run(ctx) }()
		synctest.Wait()
		test(w)
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

func list(words ...string) v1.ResourceList {
	out := v1.ResourceList{}
	for _, word := range words {
		for i := range word {
			if word[i] == '=' {
				out[v1.ResourceName(word[:i])] = resource.MustParse(word[i+1:])
			}
		}
	}
	return out
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// runtimeIs changes the runtime's state and says so.
func (w *world) runtimeIs(s RuntimeState) {
	w.mu.Lock()
	w.state = s
	w.mu.Unlock()
	w.r.Poke()
	synctest.Wait()
}

func (w *world) written() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes
}

func (w *world) refuseWrites(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fails = err
}

// node is what the apiserver has, nil for none.
func (w *world) node() *v1.Node {
	w.Helper()
	n, err := w.api.CoreV1().Nodes().Get(w.Context(), "n1", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.Fatal(err)
	}
	return n
}

func (w *world) change(change func(*v1.Node)) {
	w.Helper()
	n := w.node().DeepCopy()
	change(n)
	if _, err := w.api.CoreV1().Nodes().Update(w.Context(), n, metav1.UpdateOptions{}); err != nil {
		w.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) lease() *coordinationv1.Lease {
	w.Helper()
	l, err := w.api.CoordinationV1().Leases("kube-node-lease").Get(w.Context(), "n1", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.Fatal(err)
	}
	return l
}

// ready is status, reason and message of the condition Ready.
func (w *world) ready() string {
	w.Helper()
	for _, c := range w.node().Status.Conditions {
		if c.Type == v1.NodeReady {
			return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
		}
	}
	return "no condition Ready"
}

// told are the events since it was asked last.
func (w *world) told() []string {
	var out []string
	for {
		select {
		case e := <-w.events.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

func (w *world) expect(what string, got, want any) {
	w.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.Errorf("%s: %v\nwant: %v", what, got, want)
	}
}

const isReadyNow = "True KubeletReady: kubelet is posting ready status"

// A node that is not there is made, and says at once what is to be known.
func TestRegister(t *testing.T) {
	inWorld(t, nil, func(_ *world, o *ReporterOptions) {
		o.Settings.Labels = map[string]string{"zone": "a"}
		o.Settings.Taints = []v1.Taint{{Key: "dedicated", Value: "x", Effect: v1.TaintEffectNoSchedule}}
		o.Settings.ProviderID = "cloud://1"
	}, func(w *world) {
		n := w.node()
		if n == nil {
			t.Fatal("no Node was made")
		}
		w.expect("ready", w.ready(), isReadyNow)
		w.expect("labels", n.Labels, map[string]string{"zone": "a", "kubernetes.io/hostname": "n1", "kubernetes.io/os": "linux",
			"beta.kubernetes.io/os": "linux", "kubernetes.io/arch": goruntime.GOARCH, "beta.kubernetes.io/arch": goruntime.GOARCH})
		w.expect("taints", n.Spec.Taints, []v1.Taint{{Key: "dedicated", Value: "x", Effect: v1.TaintEffectNoSchedule}})
		w.expect("provider", n.Spec.ProviderID, "cloud://1")
		w.expect("addresses", n.Status.Addresses, []v1.NodeAddress{{Type: "InternalIP", Address: "192.0.2.1"}, {Type: "Hostname", Address: "n1"}})
		w.expect("capacity", n.Status.Capacity.Cpu(), "2")
		w.expect("allocatable", n.Status.Allocatable.Cpu(), "1")
		w.expect("runtime", n.Status.NodeInfo.ContainerRuntimeVersion, "containerd://2.4.2")
		w.expect("port", n.Status.DaemonEndpoints.KubeletEndpoint.Port, 10250)
		w.expect("annotations", n.Annotations, map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"})
		w.expect("events", w.told(), []string{"Normal Starting Starting kubelet.",
			"Normal NodeHasSufficientMemory Node n1 status is now: NodeHasSufficientMemory",
			"Normal NodeHasNoDiskPressure Node n1 status is now: NodeHasNoDiskPressure",
			"Normal NodeHasSufficientPID Node n1 status is now: NodeHasSufficientPID",
			"Normal NodeReady Node n1 status is now: NodeReady"})
		w.expect("newest", w.r.Node().UID, "uid1")
		if len(w.news) == 0 || w.news[len(w.news)-1].UID != "uid1" {
			t.Error("nobody was told of the Node")
		}
	})
}

// The lease is there as soon as the Node is, and is renewed each 10 s, whatever
// becomes of the status.
func TestLease(t *testing.T) {
	inWorld(t, nil, nil, func(w *world) {
		l := w.lease()
		if l == nil {
			t.Fatal("no lease")
		}
		w.expect("holder", *l.Spec.HolderIdentity, "n1")
		w.expect("duration", *l.Spec.LeaseDurationSeconds, 40)
		w.expect("owner", l.OwnerReferences, []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "uid1"}})
		w.refuseWrites(errors.New("no"))
		for range 20 {
			w.pass(11 * time.Second)
			if age := time.Since(w.lease().Spec.RenewTime.Time); age > 11*time.Second {
				t.Errorf("the lease is %v old", age)
			}
		}
	})
}

// A node whose runtime comes later is Ready at that moment.
func TestFirstReady(t *testing.T) {
	inWorld(t, nil, func(w *world, _ *ReporterOptions) {
		w.state = RuntimeState{Error: RuntimeUnknown, Since: time.Now()}
	}, func(w *world) {
		w.expect("ready", w.ready(), "False KubeletNotReady: "+RuntimeUnknown)
		w.told()
		w.pass(50 * time.Millisecond)
		s := up()
		s.Network = "NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"
		w.runtimeIs(s)
		w.expect("ready", w.ready(), "False KubeletNotReady: container runtime network not ready: "+s.Network)
		w.expect("events", w.told(), "[]")
		w.runtimeIs(up())
		w.expect("ready", w.ready(), isReadyNow)
		w.expect("events", w.told(), "[Normal NodeReady Node n1 status is now: NodeReady]")
	})
}

// Nothing is written while nothing changes, but the report.
func TestQuiet(t *testing.T) {
	inWorld(t, nil, nil, func(w *world) {
		before := w.written()
		w.pass(2 * time.Minute)
		w.r.Poke()
		w.pass(time.Second)
		w.expect("writes in 2 minutes", w.written()-before, 0)
		w.pass(6 * time.Minute)
		first := w.written() - before
		if first < 1 || first > 2 {
			t.Errorf("%d reports in the first 8 minutes", first)
		}
		before = w.written()
		w.pass(50 * time.Minute)
		w.expect("reports in 50 minutes", w.written()-before, 10)
		if age := time.Since(w.node().Status.Conditions[0].LastHeartbeatTime.Time); age > 5*time.Minute+time.Second {
			t.Errorf("the last report is %v old", age)
		}
	})
}

// A runtime that restarts leaves the node Ready; one that stays away does not.
func TestRuntimeDown(t *testing.T) {
	inWorld(t, nil, nil, func(w *world) {
		before := w.written()
		down := up()
		down.Error, down.Since = "connection refused", time.Now()
		w.runtimeIs(down)
		w.pass(29 * time.Second)
		w.expect("ready after 29 s", w.ready(), isReadyNow)
		w.expect("writes", w.written()-before, 0)
		w.pass(2 * time.Second)
		w.expect("ready after 31 s", w.ready(), "False KubeletNotReady: container runtime is down")
		w.runtimeIs(up())
		w.expect("ready when it is back", w.ready(), isReadyNow)
	})
}

// A Node that is deleted while the agent runs is made again, and so is its lease.
func TestDeletedNode(t *testing.T) {
	inWorld(t, nil, nil, func(w *world) {
		if err := w.api.CoreV1().Nodes().Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
		n := w.node()
		if n == nil {
			t.Fatal("it is not back")
		}
		w.expect("uid", n.UID, "uid2")
		w.expect("ready", w.ready(), isReadyNow)
		w.expect("lease's owner", w.lease().OwnerReferences[0].UID, "uid2")
		gone := false
		for _, n := range w.news {
			gone = gone || n == nil
		}
		if !gone {
			t.Error("nobody was told that the Node was gone")
		}
	})
}

// Without registerNode no Node is made, and one that somebody made is reported,
// with its labels left alone.
func TestRegisterFalse(t *testing.T) {
	inWorld(t, nil, func(_ *world, o *ReporterOptions) { o.Settings.Register = false }, func(w *world) {
		w.pass(time.Minute)
		if w.node() != nil || w.lease() != nil {
			t.Fatal("a Node or a lease was made")
		}
		made := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{v1.LabelHostname: "other"}}}
		if _, err := w.api.CoreV1().Nodes().Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
		w.expect("ready", w.ready(), isReadyNow)
		w.expect("host name", w.node().Labels[v1.LabelHostname], "other")
		if w.lease() == nil {
			t.Error("no lease")
		}
	})
}

// A node that restarts says nothing wrong before its runtime was asked, and once
// that it was rebooted.
func TestReboot(t *testing.T) {
	old := newNode(facts(), time.Now())
	old.UID, old.Status.NodeInfo.BootID = "u", "boot0"
	inWorld(t, []runtime.Object{old}, func(w *world, _ *ReporterOptions) {
		w.state = RuntimeState{Error: RuntimeUnknown, Since: time.Now()}
	}, func(w *world) {
		w.expect("ready", w.ready(), isReadyNow)
		w.expect("events", w.told(), "[Normal Starting Starting kubelet. Warning Rebooted Node n1 has been rebooted, boot id: boot1]")
		w.change(func(n *v1.Node) { n.Status.NodeInfo.BootID = "boot0" })
		w.expect("boot ID", w.node().Status.NodeInfo.BootID, "boot1")
		w.expect("events", w.told(), "[]")
	})
}

// Cordoning is told.
func TestSchedulable(t *testing.T) {
	inWorld(t, nil, nil, func(w *world) {
		w.told()
		w.change(func(n *v1.Node) { n.Spec.Unschedulable = true })
		w.expect("cordoned", w.told(), "[Normal NodeNotSchedulable Node n1 status is now: NodeNotSchedulable]")
		w.change(func(n *v1.Node) { n.Spec.Unschedulable = false })
		w.expect("uncordoned", w.told(), "[Normal NodeSchedulable Node n1 status is now: NodeSchedulable]")
	})
}

// The runtime is told the addresses of pods until it took them, and every runtime
// that comes after it.
func TestPodCIDR(t *testing.T) {
	inWorld(t, nil, func(w *world, _ *ReporterOptions) { w.refuse = errors.New("not now") }, func(w *world) {
		told := func() []string { w.mu.Lock(); defer w.mu.Unlock(); return w.cidrs }
		w.change(func(n *v1.Node) { n.Spec.PodCIDRs = []string{"10.1.0.0/24", "fd00::/64"} })
		w.pass(time.Minute)
		w.expect("told", told(), "[]")
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		w.pass(lastRetry)
		w.expect("told", told(), "[10.1.0.0/24,fd00::/64]")
		w.pass(10 * time.Minute)
		w.expect("told while nothing changes", told(), "[10.1.0.0/24,fd00::/64]")
		next := up()
		next.Session = 2
		w.runtimeIs(next)
		w.expect("told another runtime", told(), "[10.1.0.0/24,fd00::/64 10.1.0.0/24,fd00::/64]")
	})
}

// Images and addresses are looked at each 10 s, and written when they changed.
func TestSlowFacts(t *testing.T) {
	inWorld(t, nil, nil, func(w *world) {
		w.mu.Lock()
		w.images = []v1.ContainerImage{{Names: []string{"a"}, SizeBytes: 1}, {Names: []string{"b"}, SizeBytes: 2}}
		w.mu.Unlock()
		before := w.written()
		w.pass(11 * time.Second)
		w.expect("images", w.node().Status.Images, []v1.ContainerImage{{Names: []string{"b"}, SizeBytes: 2}, {Names: []string{"a"}, SizeBytes: 1}})
		w.pass(time.Minute)
		w.expect("writes", w.written()-before, 1)
	})
}

// What others write over the node's own is set right; what is theirs stays.
func TestOthersWrite(t *testing.T) {
	inWorld(t, nil, nil, func(w *world) {
		w.change(func(n *v1.Node) {
			n.Status.Conditions = append(n.Status.Conditions, v1.NodeCondition{Type: "NetworkUnavailable", Status: v1.ConditionFalse})
			for i := range n.Status.Conditions {
				if n.Status.Conditions[i].Type == v1.NodeReady {
					n.Status.Conditions[i].Status, n.Status.Conditions[i].Reason = v1.ConditionUnknown, "NodeStatusUnknown"
				}
			}
			n.Status.VolumesInUse = []v1.UniqueVolumeName{"v"}
		})
		w.expect("ready", w.ready(), isReadyNow)
		n := w.node()
		w.expect("conditions", len(n.Status.Conditions), 5)
		w.expect("volumes", n.Status.VolumesInUse, "[v]")
	})
}

// A write that fails is tried again, from the newest object.
func TestWriteRetries(t *testing.T) {
	inWorld(t, nil, nil, func(w *world) {
		w.refuseWrites(apierrors.NewConflict(v1.Resource("nodes"), "n1", errors.New("changed")))
		s := up()
		s.Network = "no"
		w.runtimeIs(s)
		w.pass(time.Minute)
		w.expect("ready", w.ready(), isReadyNow)
		if tries := w.written(); tries < 10 || tries > 30 {
			t.Errorf("%d tries in a minute", tries)
		}
		w.refuseWrites(nil)
		w.pass(lastRetry)
		w.expect("ready", w.ready(), "False KubeletNotReady: container runtime network not ready: no")
	})
}
