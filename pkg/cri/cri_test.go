package cri

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

func TestDialWantsAPath(t *testing.T) {
	for _, endpoint := range []string{"", "tcp://127.0.0.1:1", "run/containerd.sock"} {
		if _, err := Dial(Options{Endpoint: endpoint}); err == nil {
			t.Errorf("endpoint %q is taken", endpoint)
		}
	}
}

// The first contact fails in words that say what to do.
func TestProbeExplains(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		client *Client
		words  []string
	}{
		{"no socket", dialed(t, dir, "unix://"+dir+"/none"), []string{"/none", "is not there", "systemctl status containerd"}},
		{"nobody listens", dialed(t, dir, dead), []string{"has nobody listening"}},
		{"no CRI", serve(t, &fake{}), []string{"no CRI v1 runtime", "disabled_plugins"}},
		{"too old", serve(t, &fake{version: "1.5.9"}), []string{"containerd 1.5.9", "1.6 or newer"}},
	} {
		_, err := c.client.Probe(t.Context())
		for _, words := range c.words {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("%s: error %q misses %q", c.name, err, words)
			}
		}
	}
}

func TestProbe(t *testing.T) {
	f := &fake{version: "v2.1.0", conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Reason: "NetworkPluginNotReady", Message: "cni plugin not initialized"},
	}}
	c := serve(t, f)
	r, err := c.Probe(t.Context())
	if err != nil || r.Name != "containerd" || r.Version != "v2.1.0" || r.Ready != "" || r.Network != "NetworkPluginNotReady: cni plugin not initialized" {
		t.Errorf("probe: %+v, %v", r, err)
	}
	if want := "NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not initialized"; r.RuntimeReady != "" || r.NetworkReady != want {
		t.Errorf("for the Node: %q, %q; want %q", r.RuntimeReady, r.NetworkReady, want)
	}
	if doubt := r.Untested(); doubt != "" {
		t.Errorf("containerd is %s", doubt)
	}
	if doubt := (Runtime{Name: "cri-o"}).Untested(); !strings.Contains(doubt, "containerd") {
		t.Errorf("cri-o is %q", doubt)
	}
	if _, ok, err := c.CgroupDriver(t.Context()); ok || err != nil {
		t.Errorf("cgroup driver of a runtime that cannot say: %v, %v", ok, err)
	}
}

func TestFailure(t *testing.T) {
	reserved := status.Error(codes.Unknown, `failed to reserve container name "a": name "a" is reserved for "b"`)
	for _, c := range []struct {
		name string
		err  error
		want pod.Failure
	}{
		{"refused", mutated(ReasonCreate, "x", status.Error(codes.Unknown, "no")), pod.Failure{Reason: ReasonCreate, Message: "no"}},
		{"timed out", mutated(ReasonCreate, "x", status.Error(codes.DeadlineExceeded, "late")), pod.Failure{Reason: ReasonCreate, Message: "the runtime did not answer in time: late", Uncertain: true}},
		{"runtime died", mutated("", "x", status.Error(codes.Unavailable, "gone")), pod.Failure{Message: "gone", Uncertain: true}},
		{"exists", mutated("", "x", status.Error(codes.AlreadyExists, "is")), pod.Failure{Message: "is", Uncertain: true}},
		{"reserved", mutated(ReasonCreate, "x", reserved), pod.Failure{Reason: ReasonCreate, Message: status.Convert(reserved).Message(), Uncertain: true}},
		{"given up on its way", mutated("", "x", status.Error(codes.Canceled, "c")), pod.Failure{Message: "c", Uncertain: true}},
		{"given up before", failed(ReasonPull, "x", context.Canceled), pod.Failure{Reason: ReasonPull, Message: "context canceled", Canceled: true}},
		{"read timed out", failed("", "x", status.Error(codes.DeadlineExceeded, "late")), pod.Failure{Message: "the runtime did not answer in time: late"}},
		{"not ours", errors.New("what"), pod.Failure{Message: "what"}},
	} {
		if got := Failure(c.err); got == nil || *got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if Failure(nil) != nil {
		t.Error("no error is a failure")
	}
}

// What has gone between the list and its status is left out; a foreign
// container is not seen at all.
func TestView(t *testing.T) {
	mine := map[string]string{LabelPodUID: "u1", LabelPodName: "web", LabelPodNamespace: "default", LabelContainerName: "main"}
	meta := func(attempt uint32) *runtimeapi.ContainerMetadata {
		return &runtimeapi.ContainerMetadata{Name: "main", Attempt: attempt}
	}
	f := &fake{
		sandboxes: []*runtimeapi.PodSandboxStatus{
			{Id: "s0", Labels: mine, CreatedAt: 1, Metadata: &runtimeapi.PodSandboxMetadata{}, State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY},
			{
				Id: "s1", Labels: mine, CreatedAt: 5, Metadata: &runtimeapi.PodSandboxMetadata{Attempt: 1}, Annotations: map[string]string{"k": "v"},
				Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "192.0.2.1", AdditionalIps: []*runtimeapi.PodIP{{Ip: "2001:db8::1"}}},
			},
		},
		containers: []*runtimeapi.ContainerStatus{
			{Id: "c0", Labels: mine, CreatedAt: 2, Metadata: meta(0), State: runtimeapi.ContainerState_CONTAINER_EXITED, ExitCode: 3, Reason: "Error", FinishedAt: 4, Annotations: map[string]string{annotationGrace: "30"}},
			{Id: "c1", Labels: mine, CreatedAt: 6, Metadata: meta(1), State: runtimeapi.ContainerState_CONTAINER_RUNNING, StartedAt: 7, Annotations: map[string]string{annotationHash: "abc", annotationPreStop: `{"sleep":{"seconds":7}}`}},
			{Id: "foreign", CreatedAt: 9},
		},
		of: map[string]string{"c0": "s0", "c1": "s1"},
	}
	c := serve(t, f)
	all, err := c.List(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("list: %+v, %v", all, err)
	}
	found := all["u1"]
	if hook := found.PreStop["main"]; hook == nil || hook.Sleep == nil || hook.Sleep.Seconds != 7 {
		t.Errorf("hook of the newest instance: %+v", hook)
	}
	if found.Name != "web" || found.Annotations["k"] != "v" || found.Grace != 30*time.Second {
		t.Errorf("found %+v", found)
	}
	s, k := found.View.Sandboxes, found.View.Containers
	if len(s) != 2 || s[0].ID != "s1" || !s[0].Ready || len(s[0].IPs) != 2 || s[1].Ready {
		t.Errorf("sandboxes %+v", s)
	}
	if len(k) != 2 || k[0].ID != "c1" || k[0].State != pod.Running || k[0].Hash != "abc" || !k[0].FinishedAt.IsZero() || k[1].ExitCode != 3 || k[1].SandboxID != "s0" {
		t.Errorf("containers %+v", k)
	}
	f.fail = map[string]error{"ContainerStatus": status.Error(codes.NotFound, "gone")}
	view, err := c.View(t.Context(), "u1")
	if err != nil || len(view.Sandboxes) != 2 || len(view.Containers) != 0 {
		t.Errorf("view of vanished containers: %+v, %v", view, err)
	}
	if view, err = c.View(t.Context(), "other"); err != nil || len(view.Sandboxes) != 0 {
		t.Errorf("view of an unknown pod: %+v, %v", view, err)
	}
	f.fail["ContainerStatus"] = status.Error(codes.Unknown, "sick")
	if _, err = c.View(t.Context(), "u1"); err == nil {
		t.Error("a failed status is no error")
	}
}

// A sandbox whose addresses are not known is not reported as made.
func TestRunSandbox(t *testing.T) {
	f := &fake{}
	c := serve(t, f)
	s, err := c.RunSandbox(t.Context(), web(), SandboxRequest{Attempt: 2})
	if err != nil || s.ID != "new" || s.Attempt != 2 || len(s.IPs) != 1 {
		t.Errorf("sandbox %+v, %v", s, err)
	}
	if _, err := os.Stat(filepath.Join(c.opts.Pods.LogsDir, "default_web_u1")); err != nil {
		t.Error(err)
	}
	f.fail = map[string]error{"PodSandboxStatus": status.Error(codes.Unknown, "sick")}
	if _, err = c.RunSandbox(t.Context(), web(), SandboxRequest{Attempt: 3}); !Failure(err).Uncertain {
		t.Errorf("status failed: %+v", Failure(err))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = c.RunSandbox(ctx, web(), SandboxRequest{Attempt: 4}); !Failure(err).Canceled {
		t.Errorf("given up before it began: %+v", Failure(err))
	}
}

// What a handler can do decides for the pods that go to it.
func TestHandlers(t *testing.T) {
	f := &fake{
		version:    "v2.1.0",
		conditions: []*runtimeapi.RuntimeCondition{{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true}},
		handlers: []*runtimeapi.RuntimeHandler{
			{Name: "", Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true}},
			{Name: "vm", Features: &runtimeapi.RuntimeHandlerFeatures{UserNamespaces: true}},
		},
		features: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true},
	}
	c := serve(t, f)
	p := web()
	p.Spec.HostUsers = new(false)
	users := pod.IDs{First: 65536, Length: 65536}
	_, err := c.RunSandbox(t.Context(), p, SandboxRequest{Users: users})
	if want := "can't set `spec.hostUsers: false`, runtime does not support user namespaces"; err == nil || Failure(err).Message != want {
		t.Errorf("before the runtime was asked: %v, want %s", err, want)
	}
	rt, err := c.Probe(t.Context())
	if err != nil || !rt.StrictGroups {
		t.Fatalf("%+v, %v", rt, err)
	}
	_, err = c.RunSandbox(t.Context(), p, SandboxRequest{Users: users, Handler: "other"})
	if want := "can't set `spec.hostUsers: false`, RuntimeClass handler \"other\" does not support user namespaces"; err == nil || Failure(err).Message != want {
		t.Errorf("a handler that cannot: %v, want %s", err, want)
	}
	if _, err = c.RunSandbox(t.Context(), p, SandboxRequest{Users: users, Handler: "vm"}); err != nil {
		t.Fatal(err)
	}
	if got := f.sandboxes[len(f.sandboxes)-1].RuntimeHandler; got != "vm" {
		t.Errorf("the sandbox went to handler %q", got)
	}
	vm := v1.VolumeMount{Name: "v", MountPath: "/v", ReadOnly: true, RecursiveReadOnly: new(v1.RecursiveReadOnlyIfPossible)}
	for handler, want := range map[string]bool{"": true, "vm": false, "other": false} {
		m, err := c.volumeMount(web(), vm, c.handler(handler), "/host")
		if err != nil || m.RecursiveReadOnly != want {
			t.Errorf("handler %q: %v, %v; want %v", handler, m, err, want)
		}
	}
}

// Containers can write to their hosts file without end: no more is read of it
// than it should have, and it is brought back.
func TestHostsFileWrittenByContainer(t *testing.T) {
	c := dialed(t, t.TempDir(), "/none")
	path, err := c.writeHosts(web(), []string{"192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "x", string(good[:20]), string(good) + "192.0.2.66 fake\n", strings.ToUpper(string(good))} {
		if err := os.WriteFile(path, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := c.writeHosts(web(), []string{"192.0.2.1"}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != string(good) {
			t.Errorf("after %.20q: %q, %v", bad, got, err)
		}
	}
	if err := os.Truncate(path, 1<<40); err != nil { // sparse; read whole, it would not fit
		t.Fatal(err)
	}
	if _, err := c.writeHosts(web(), []string{"192.0.2.1"}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != int64(len(good)) {
		t.Errorf("the long file: %v, %v", info, err)
	}
}

// A refused create leaves no file; one of unknown outcome keeps what it may
// have mounted.
func TestCreateKeepsNothingOfARefusal(t *testing.T) {
	f := &fake{}
	c := serve(t, f)
	for _, test := range []struct {
		err  error
		left int
	}{
		{status.Error(codes.Unknown, "no"), 0},
		{status.Error(codes.DeadlineExceeded, "late"), 1},
		{nil, 2},
	} {
		f.fail = map[string]error{"CreateContainer": test.err}
		k, err := c.Create(t.Context(), web(), CreateRequest{Container: "main", SandboxID: "s", ImageRef: "i"})
		files, globErr := filepath.Glob(filepath.Join(c.opts.Pods.RootDir, "pods/u1/containers/main/*"))
		if globErr != nil || len(files) != test.left {
			t.Errorf("after %v: files %v, %v", test.err, files, globErr)
		}
		if test.err == nil && (err != nil || k.ID != "new" || k.Hash == "") || test.err != nil && Failure(err).Reason != ReasonCreate {
			t.Errorf("create: %+v, %v", k, err)
		}
	}
}

func TestEvents(t *testing.T) {
	if err := serve(t, &fake{}).Events(t.Context(), func(types.UID) {}); !errors.Is(err, ErrNoEvents) {
		t.Errorf("events of a runtime without: %v", err)
	}
	f := &fake{events: make(chan *runtimeapi.ContainerEventResponse, 4)}
	of := func(kind runtimeapi.ContainerEventType, uid string) *runtimeapi.ContainerEventResponse {
		return &runtimeapi.ContainerEventResponse{ContainerEventType: kind, PodSandboxStatus: &runtimeapi.PodSandboxStatus{Metadata: &runtimeapi.PodSandboxMetadata{Uid: uid}}}
	}
	f.events <- of(runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, "started")
	f.events <- of(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, "stopped")
	f.events <- &runtimeapi.ContainerEventResponse{ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT}
	close(f.events)
	var got []types.UID
	err := serve(t, f).Events(t.Context(), func(uid types.UID) { got = append(got, uid) })
	if err == nil || len(got) != 3 || got[0] != "" || got[1] != "stopped" || got[2] != "" {
		t.Errorf("events %q, %v", got, err)
	}
}

// A relay writes what changed until the agent's end of its input is gone.
func TestRelay(t *testing.T) {
	in, agent := io.Pipe()
	defer agent.Close()
	if err := Relay(t.Context(), serve(t, &fake{}).opts.Endpoint, in, io.Discard); RelayExit(err) != relayNoEvents {
		t.Errorf("relay of a runtime without events: %v", err)
	}
	f := &fake{events: make(chan *runtimeapi.ContainerEventResponse, 1)}
	defer close(f.events)
	endpoint := serve(t, f).opts.Endpoint
	lines, out := io.Pipe()
	ended := make(chan error)
	go func() { ended <- Relay(t.Context(), endpoint, in, out) }()
	f.events <- &runtimeapi.ContainerEventResponse{ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
		PodSandboxStatus: &runtimeapi.PodSandboxStatus{Metadata: &runtimeapi.PodSandboxMetadata{Uid: "u"}}}
	got := map[string]bool{} // in any order
	for scan := bufio.NewScanner(lines); len(got) < 2 && scan.Scan(); {
		got[scan.Text()] = true
	}
	if !got[""] || !got["u"] {
		t.Errorf("relayed: %v", got)
	}
	agent.Close()
	if err := <-ended; err == nil {
		t.Error("the relay outlived the agent and its stream")
	}
}
