package cri

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/dns"
	"github.com/nodeagent/nodeagent/pkg/env"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/volumes"
)

// fixture is what a real kubelet sent for one pod; testdata/peer/configs/README.md
// says how it was taken.
type fixture struct {
	Node struct {
		RootDir, PodLogsDir, IP, ClusterDNS, ClusterDomain, ResolvConf string
		MemoryBytes                                                    int64
	}
	Pod        *v1.Pod
	Sandbox    json.RawMessage
	Containers []json.RawMessage
	Images     map[string]json.RawMessage
}

func (f *fixture) options(t *testing.T) PodOptions {
	sandbox := decode(t, f.Sandbox, &runtimeapi.PodSandboxConfig{})
	return PodOptions{
		RootDir:       f.Node.RootDir,
		LogsDir:       f.Node.PodLogsDir,
		ClusterDomain: f.Node.ClusterDomain,
		// Cgroups are found by others, who have fixtures of their own.
		CgroupParent:         func(*v1.Pod) string { return sandbox.GetLinux().GetCgroupParent() },
		CPUCFSQuota:          true,
		CPUCFSQuotaPeriod:    100 * time.Millisecond,
		MemoryCapacity:       f.Node.MemoryBytes,
		SingleProcessOOMKill: false,
	}
}

// dns is what pkg/dns makes of the pod on the peer's node.
func (f *fixture) dns(t *testing.T) *runtimeapi.DNSConfig {
	s := dns.Settings{ClusterDNS: []string{f.Node.ClusterDNS}, ClusterDomain: f.Node.ClusterDomain, ResolvConf: "given"}
	config, notes, err := s.Config(f.Pod, []byte(f.Node.ResolvConf))
	if err != nil || len(notes) > 0 {
		t.Fatalf("resolver settings: %v, %v", notes, err)
	}
	return config
}

// The machine that the fixtures were made on.
var peerMachine = Machine{Swap: true, HugePageSizes: []string{"2MB", "1GB"}, MaskedPaths: maskedPaths}

// peerUsers is the range that the fixture of a user namespace was given.
var peerUsers = pod.IDs{First: 65536, Length: 65536}

func (f *fixture) users() pod.IDs {
	if pod.OwnUsers(f.Pod) {
		return peerUsers
	}
	return pod.IDs{}
}

func TestConfigsAreThePeers(t *testing.T) {
	files, err := filepath.Glob("testdata/peer/configs/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("fixtures: %v, %v", files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			f := readFixture(t, file)
			o := f.options(t)
			req := SandboxRequest{DNS: f.dns(t), Users: f.users()}
			sandbox, err := SandboxConfig(f.Pod, req, peerMachine, o)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "sandbox", decode(t, f.Sandbox, &runtimeapi.PodSandboxConfig{}), sandbox)
			for _, raw := range f.Containers {
				want := decode(t, raw, &runtimeapi.ContainerConfig{})
				compareContainer(t, f, o, want)
			}
		})
	}
}

func compareContainer(t *testing.T, f *fixture, o PodOptions, want *runtimeapi.ContainerConfig) {
	c := &Client{opts: Options{Pods: o}.withDefaults(), machine: peerMachine}
	c.opts.Pods.RootDir = t.TempDir()
	req := CreateRequest{
		Container: want.Metadata.Name,
		Attempt:   want.Metadata.Attempt,
		ImageRef:  want.Image.Image,
		Users:     f.users(),
		Mounts:    f.volumes(t, c.opts.Pods.RootDir, want),
	}
	if !f.Pod.Spec.HostNetwork {
		req.PodIPs = []string{"192.0.2.100"}
	}
	k, err := containerNamed(f.Pod, req.Container)
	if err != nil {
		t.Fatal(err)
	}
	if req.Env, err = (env.Resolver{}).Container(f.Pod, k, env.Surroundings{PodIPs: req.PodIPs, HostIPs: []string{f.Node.IP}}); err != nil {
		t.Fatal(err)
	}
	if req.SubPaths, err = f.subPaths(t, c.opts.Pods.RootDir, k, req); err != nil {
		t.Fatal(err)
	}
	got, err := ContainerConfig(f.Pod, Parts{Request: req, User: f.user(t, want.Image.UserSpecifiedImage)}, peerMachine, o)
	if err != nil {
		t.Errorf("container %s: %v", want.Metadata.Name, err)
		return
	}
	if got.Mounts, err = c.mounts(t.Context(), f.Pod, k, req); err != nil {
		t.Errorf("mounts of container %s: %v", want.Metadata.Name, err)
	}
	for _, m := range got.Mounts {
		m.HostPath = strings.Replace(m.HostPath, c.opts.Pods.RootDir, f.Node.RootDir, 1)
		if m.ContainerPath == k.TerminationMessagePath {
			m.HostPath = filepath.Join(filepath.Dir(m.HostPath), "00000000")
		}
	}
	// The peer's order of variables is random.
	byName := func(a, b *runtimeapi.KeyValue) int { return cmp.Compare(a.Key, b.Key) }
	slices.SortFunc(want.Envs, byName)
	slices.SortFunc(got.Envs, byName)
	compare(t, "container "+want.Metadata.Name, want, got)
}

// volumes makes folders for the volumes, as pkg/volumes would, and names them
// by the paths that the peer used.
func (f *fixture) volumes(t *testing.T, root string, want *runtimeapi.ContainerConfig) map[string]string {
	k, err := containerNamed(f.Pod, want.Metadata.Name)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for _, v := range f.Pod.Spec.Volumes {
		switch {
		case v.HostPath != nil:
			kinds[v.Name] = v.HostPath.Path
		case v.EmptyDir != nil:
			kinds[v.Name] = filepath.Join(root, "pods", string(f.Pod.UID), "volumes/kubernetes.io~empty-dir", v.Name)
		case v.DownwardAPI != nil:
			kinds[v.Name] = filepath.Join(root, "pods", string(f.Pod.UID), "volumes/kubernetes.io~downward-api", v.Name)
		}
	}
	for _, vm := range k.VolumeMounts {
		if path := kinds[vm.Name]; strings.HasPrefix(path, root) {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	return kinds
}

// subPaths binds them as pkg/volumes does, until the test ends.
func (f *fixture) subPaths(t *testing.T, root string, k *v1.Container, req CreateRequest) (map[int]string, error) {
	v, err := volumes.New(root, 0, env.Resolver{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Unmount(context.Background(), f.Pod.UID); err != nil {
			t.Error(err)
		}
	})
	return v.BindSubPaths(t.Context(), f.Pod, k, req.Mounts, env.Values(req.Env))
}

func (f *fixture) user(t *testing.T, image string) ImageUser {
	raw, ok := f.Images[image]
	if !ok {
		raw = f.Images[image+":latest"]
	}
	if raw == nil {
		t.Fatalf("fixture has no image %s among %v", image, slices.Collect(maps.Keys(f.Images)))
	}
	return userOf(decode(t, raw, &runtimeapi.Image{}))
}

func TestHashIsThePeers(t *testing.T) {
	raw, err := os.ReadFile("testdata/peer/hash.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Container *v1.Container
		Hash      string
	}
	if err := json.Unmarshal(raw, &cases); err != nil || len(cases) == 0 {
		t.Fatalf("%d cases: %v", len(cases), err)
	}
	for _, c := range cases {
		if got := Hash(c.Container); got != c.Hash {
			t.Errorf("hash of %s %s is %s, want %s", c.Container.Name, c.Container.Image, got, c.Hash)
		}
	}
}

func readFixture(t *testing.T, file string) *fixture {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{}
	if err := json.Unmarshal(raw, f); err != nil {
		t.Fatal(err)
	}
	return f
}

func decode[M proto.Message](t *testing.T, raw json.RawMessage, into M) M {
	t.Helper()
	if err := protojson.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
	return into
}

func compare(t *testing.T, what string, want, got proto.Message) {
	t.Helper()
	if diff := gocmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("%s (- the peer, + the agent):\n%s", what, diff)
	}
}
