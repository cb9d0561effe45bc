package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodeagent/nodeagent/pkg/cgroups"
	"github.com/nodeagent/nodeagent/pkg/config"
)

// The machine that the test runs on is what it is: what is asked for decides.
func TestCheckHost(t *testing.T) {
	facts, err := cgroups.Check()
	if err != nil {
		t.Fatal(err)
	}
	swap, err := swaps("/proc/swaps")
	if err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	told := ""
	if err := CheckHost(c); err != nil {
		told = err.Error()
	}
	if got, want := strings.Contains(told, "failCgroupV1"), facts.Version != "v2"; got != want {
		t.Errorf("cgroup %s: refused %v: %s", facts.Version, got, told)
	}
	if got, want := strings.Contains(told, "failSwapOn"), swap > 0; got != want {
		t.Errorf("%d swap areas: refused %v: %s", swap, got, told)
	}
	c.Kubelet.FailSwapOn, c.Kubelet.FailCgroupV1 = new(false), new(false)
	if err := CheckHost(c); err != nil {
		t.Errorf("refused although both are allowed: %v", err)
	}
}

func TestSwaps(t *testing.T) {
	const header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	for text, want := range map[string]int{header: 0, header + "/dev/sda2                               partition\t8388604\t\t0\t\t-2\n/swap file 1 0 -3\n": 2} {
		path := filepath.Join(t.TempDir(), "swaps")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := swaps(path); n != want || err != nil {
			t.Errorf("%q: %d areas, %v, want %d", text, n, err, want)
		}
	}
}

func TestRootFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "real"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	if root, err := prepareRoot(filepath.Join(dir, "link", "root")); err != nil || root != filepath.Join(dir, "real", "root") {
		t.Errorf("root %s, %v", root, err)
	}
	info, err := os.Stat(filepath.Join(dir, "real", "root"))
	if err != nil || info.Mode().Perm()&0o027 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestEvictionReserve(t *testing.T) {
	capacity := v1.ResourceList{v1.ResourceMemory: resource.MustParse("8Gi"), v1.ResourceEphemeralStorage: resource.MustParse("100Gi")}
	// 160 bytes more than 10Gi: a tenth as the kubelet counts it.
	got := evictionReserve(map[string]string{"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%"}, capacity)
	if len(got) != 2 || got["memory"] != "100Mi" || got["ephemeral-storage"] != "10737418400" {
		t.Errorf("%v", got)
	}
}
