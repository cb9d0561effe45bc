package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var trees atomic.Int64

// tree on this machine's hierarchies, below a root of its own.
func tree(t testing.TB, opts Options) *Tree {
	t.Helper()
	opts.Root = fmt.Sprintf("/nodeagent-test-%d-%d", os.Getpid(), trees.Add(1))
	opts.PerQoS = true
	tr, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, mount := range tr.facts.mounts {
			if err := cgroups.RemovePath(filepath.Join(mount, opts.Root)); err != nil {
				t.Error(err)
			}
		}
	})
	if err := tr.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tr
}

func newPod(uid types.UID, requests, limits v1.ResourceList) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: uid},
		Spec: v1.PodSpec{Containers: []v1.Container{{
			Name: "main", Resources: v1.ResourceRequirements{Requests: requests, Limits: limits},
		}}},
	}
}

func list(cpu, memory string) v1.ResourceList {
	return v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}
}

// read a file of a cgroup, by its names in v1 (with controller) and v2.
func read(t *testing.T, tr *Tree, name, controller, v1File, v2File string) string {
	t.Helper()
	mount, file := tr.facts.mounts[controller], v1File
	if tr.v2() {
		mount, file = unifiedMount, v2File
	}
	content, err := os.ReadFile(filepath.Join(mount, name, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}

func wantValue(t *testing.T, tr *Tree, name, controller, v1File, v1Want, v2File, v2Want string) {
	t.Helper()
	want := v1Want
	if tr.v2() {
		want = v2Want
	}
	if got := read(t, tr, name, controller, v1File, v2File); got != want {
		t.Errorf("%s %s: got %s, want %s", name, v1File, got, want)
	}
}

func TestSetupAndEnforce(t *testing.T) {
	tr := tree(t, Options{Node: Limits{MilliCPU: 2000, Memory: 512 << 20, PIDs: 4096}})
	for range 2 {
		if err := tr.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := tr.Enforce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	top := tr.name(v1.PodQOSGuaranteed)
	wantValue(t, tr, top, "cpu", "cpu.shares", "2048", "cpu.weight", "79")
	wantValue(t, tr, top, "memory", "memory.limit_in_bytes", "536870912", "memory.max", "536870912")
	wantValue(t, tr, top, "pids", "pids.max", "4096", "pids.max", "4096")
	wantValue(t, tr, tr.name(v1.PodQOSBestEffort), "cpu", "cpu.shares", "2", "cpu.weight", "1")
}

func TestCreateAndRemove(t *testing.T) {
	tr := tree(t, Options{CFSQuota: true, PodPidsLimit: 100})
	pods := []*v1.Pod{
		newPod("aaaa-1", list("500m", "64Mi"), list("500m", "64Mi")),
		newPod("bbbb-2", list("250m", "32Mi"), list("1", "128Mi")),
		newPod("cccc-3", nil, nil),
	}
	for _, p := range append(pods, pods...) { // each of them twice
		if err := tr.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	guaranteed, burstable, besteffort := tr.Parent(pods[0]), tr.Parent(pods[1]), tr.Parent(pods[2])
	wantValue(t, tr, guaranteed, "cpu", "cpu.shares", "512", "cpu.weight", "20")
	wantValue(t, tr, guaranteed, "cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000")
	wantValue(t, tr, guaranteed, "memory", "memory.limit_in_bytes", "67108864", "memory.max", "67108864")
	wantValue(t, tr, burstable, "cpu", "cpu.shares", "256", "cpu.weight", "10")
	wantValue(t, tr, burstable, "cpu", "cpu.cfs_quota_us", "100000", "cpu.max", "100000 100000")
	wantValue(t, tr, burstable, "pids", "pids.max", "100", "pids.max", "100")
	wantValue(t, tr, besteffort, "cpu", "cpu.cfs_quota_us", "-1", "cpu.max", "max 100000")

	for _, p := range append(pods, pods...) {
		if err := tr.Remove(t.Context(), p.UID); err != nil {
			t.Error(err)
		}
		if left := tr.existing(tr.Parent(p)); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

func TestUIDCannotLeaveTheTree(t *testing.T) {
	tr := tree(t, Options{})
	for _, uid := range []types.UID{"", "x/../../escaped", "a_b"} {
		if err := tr.Create(t.Context(), newPod(uid, nil, nil)); err == nil {
			t.Errorf("Create with UID %q succeeded", uid)
		}
		if err := tr.Remove(t.Context(), uid); err == nil {
			t.Errorf("Remove with UID %q succeeded", uid)
		}
	}
}

func TestUpdateQoS(t *testing.T) {
	tr := tree(t, Options{})
	burstable := tr.name(v1.PodQOSBurstable)
	pods := []*v1.Pod{
		newPod("a", list("500m", "64Mi"), list("500m", "64Mi")), // guaranteed: not counted
		newPod("b", list("250m", "32Mi"), nil),
		newPod("c", list("1750m", "32Mi"), nil),
	}
	if err := tr.UpdateQoS(t.Context(), pods); err != nil {
		t.Fatal(err)
	}
	wantValue(t, tr, burstable, "cpu", "cpu.shares", "2048", "cpu.weight", "79")

	// Nothing changed, so nothing is written: what we put there stays.
	if err := tr.set(t.Context(), burstable, tr.resources(Values{Shares: 1024})); err != nil {
		t.Fatal(err)
	}
	if err := tr.UpdateQoS(t.Context(), pods); err != nil {
		t.Fatal(err)
	}
	wantValue(t, tr, burstable, "cpu", "cpu.shares", "1024", "cpu.weight", "39")
	if err := tr.UpdateQoS(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	wantValue(t, tr, burstable, "cpu", "cpu.shares", "2", "cpu.weight", "1")
}

// sleeper puts a process into the cgroups; exited closes when it has ended.
func sleeper(t *testing.T, dirs []string) (process *os.Process, exited <-chan struct{}) {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // killed in every case
		close(done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // may have ended
		<-done
	})
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	return cmd.Process, done
}

func TestRemoveWaitsForTheLastProcess(t *testing.T) {
	tr := tree(t, Options{})
	p := newPod("dddd-4", nil, nil)
	if err := tr.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	dirs := tr.existing(tr.Parent(p))
	child := filepath.Join(dirs[0], "container") // as a runtime makes it
	if err := os.Mkdir(child, 0o755); err != nil {
		t.Fatal(err)
	}
	process, _ := sleeper(t, append(dirs[1:], child))

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := tr.Remove(short, p.UID)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), strconv.Itoa(process.Pid)) {
		t.Errorf("removed too early, or no word of the process: %v", err)
	}
	removed := make(chan error)
	go func() { removed <- tr.Remove(t.Context(), p.UID) }()
	if err := process.Kill(); err != nil {
		t.Error(err)
	}
	if err := <-removed; err != nil {
		t.Error(err)
	}
	if left := tr.existing(tr.Parent(p)); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRemoveKillsWhatIsLeft(t *testing.T) {
	tr := tree(t, Options{})
	p := newPod("eeee-5", nil, nil)
	if err := tr.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	_, exited := sleeper(t, tr.existing(tr.Parent(p)))
	began := time.Now()
	if err := tr.Remove(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < settle {
		t.Errorf("killed after %v, want %v of patience", took, settle)
	}
	<-exited
}

// TestDrainV2 needs no controllers, so that an empty v2 hierarchy beside v1 is
// enough for it.
func TestDrainV2(t *testing.T) {
	mount := "/sys/fs/cgroup/unified"
	if cgroups.IsCgroup2UnifiedMode() {
		mount = unifiedMount
	}
	dir := filepath.Join(mount, fmt.Sprintf("nodeagent-test-%d-drain", os.Getpid()))
	child := filepath.Join(dir, "container")
	if err := os.MkdirAll(child, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cgroups.RemovePath(dir); err != nil {
			t.Error(err)
		}
	})
	if err := drainV2(t.Context(), "u", dir); err != nil {
		t.Fatalf("empty cgroup: %v", err)
	}
	process, _ := sleeper(t, []string{child})
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := drainV2(short, "u", dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a process in it: %v, want deadline exceeded", err)
	}
	drained := make(chan error)
	go func() { drained <- drainV2(t.Context(), "u", dir) }()
	if err := process.Kill(); err != nil {
		t.Error(err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	_, exited := sleeper(t, []string{child})
	if err := drainV2(t.Context(), "u", dir); err != nil { // kills it
		t.Error(err)
	}
	<-exited
}

func TestNewRefuses(t *testing.T) {
	for _, opts := range []Options{{Driver: "docker"}, {Root: "relative"}, {Root: "/a/../b"}, {Root: "/a_b", Driver: Systemd}} {
		if _, err := New(opts); err == nil {
			t.Errorf("New(%+v) succeeded", opts)
		}
	}
}

func TestWithoutTreeNothingHappens(t *testing.T) {
	tr, err := New(Options{Root: "/nodeagent-test-none"})
	if err != nil {
		t.Fatal(err)
	}
	p := newPod("f", nil, nil)
	if err := errors.Join(tr.Setup(t.Context()), tr.Enforce(t.Context()), tr.Create(t.Context(), p), tr.UpdateQoS(t.Context(), []*v1.Pod{p}), tr.Remove(t.Context(), p.UID)); err != nil {
		t.Error(err)
	}
	if tr.Parent(p) != "" || len(tr.existing("/nodeagent-test-none")) > 0 {
		t.Error("a cgroup was named or made")
	}
}

func TestFactsNameWhatIsMissing(t *testing.T) {
	f, err := Check()
	if err != nil {
		t.Fatal(err)
	}
	if f.Err() != nil || len(f.Controllers) < 4 {
		t.Errorf("this machine: %+v: %v", f, f.Err())
	}
	for _, f := range []Facts{newFacts("v1", nil, []string{"cpu", "cpuacct", "cpuset", "pids"}), newFacts("v2", nil, []string{"cpu", "cpuset", "io", "pids"})} {
		err := f.Err()
		if err == nil || !strings.Contains(err.Error(), "controller memory is missing") || !strings.Contains(err.Error(), "cgroup_enable=memory") {
			t.Errorf("%s: %v", f.Version, err)
		}
	}
	tr := &Tree{opts: Options{PerQoS: true}, facts: newFacts("v1", nil, nil)}
	if err := tr.Setup(t.Context()); err == nil {
		t.Error("set up without controllers")
	}
}

func TestValuesOnV2(t *testing.T) {
	v2 := &Tree{facts: newFacts("v2", nil, nil)}
	if r := v2.resources(Values{Shares: 1024}); r.CpuWeight != 39 || r.CpuShares != 0 {
		t.Errorf("weight %d, shares %d; want 39 and 0", r.CpuWeight, r.CpuShares)
	}
}

func BenchmarkCreateRemove(b *testing.B) {
	tr := tree(b, Options{CFSQuota: true, PodPidsLimit: 100})
	p := newPod("gggg-6", list("500m", "64Mi"), list("500m", "64Mi"))
	for b.Loop() {
		if err := tr.Create(b.Context(), p); err != nil {
			b.Fatal(err)
		}
		if err := tr.Remove(b.Context(), p.UID); err != nil {
			b.Fatal(err)
		}
	}
}
