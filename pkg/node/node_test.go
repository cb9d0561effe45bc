package node

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestCapacity(t *testing.T) {
	got, err := Capacity(t.TempDir(), 110)
	if err != nil {
		t.Fatal(err)
	}
	if cpu := got[v1.ResourceCPU]; cpu.Value() != int64(runtime.NumCPU()) {
		t.Errorf("cpu %s, want %d", cpu.String(), runtime.NumCPU())
	}
	if pods := got[v1.ResourcePods]; pods.Value() != 110 {
		t.Errorf("pods %s, want 110", pods.String())
	}
	for _, name := range []v1.ResourceName{v1.ResourceMemory, v1.ResourceEphemeralStorage} {
		if q := got[name]; q.Value() < 1<<20 {
			t.Errorf("%s is %s", name, q.String())
		}
	}
}

func TestCapacityOfNoFolder(t *testing.T) {
	if _, err := Capacity(filepath.Join(t.TempDir(), "none"), 1); err == nil {
		t.Error("a folder that does not exist has a size")
	}
}

func TestHugepages(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"hugepages-2048kB": "3\n", "hugepages-1048576kB": "0\n", "hugepages-bad": "1\n", "hugepages-64kB": "many"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "nr_hugepages"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := hugepages(dir)
	if len(got) != 2 || got["hugepages-2Mi"] != 6<<20 || got["hugepages-1Gi"] != 0 {
		t.Errorf("got %v", got)
	}
	if got := hugepages(filepath.Join(dir, "none")); len(got) != 0 {
		t.Errorf("no folder gives %v", got)
	}
}

func TestAllocatable(t *testing.T) {
	capacity := v1.ResourceList{
		v1.ResourceCPU:    resource.MustParse("4"),
		v1.ResourceMemory: resource.MustParse("8Gi"),
		"hugepages-2Mi":   resource.MustParse("1Gi"),
	}
	got, err := Allocatable(capacity, map[string]string{"cpu": "500m", "memory": "1Gi"}, map[string]string{"memory": "100Mi", "pid": "10"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[v1.ResourceName]string{v1.ResourceCPU: "3500m", v1.ResourceMemory: "6044Mi", "hugepages-2Mi": "1Gi"} {
		if q := got[name]; q.Cmp(resource.MustParse(want)) != 0 {
			t.Errorf("%s is %s, want %s", name, q.String(), want)
		}
	}
	got, err = Allocatable(capacity, map[string]string{"cpu": "5"})
	if q := got[v1.ResourceCPU]; err != nil || q.Sign() != 0 {
		t.Errorf("more reserved than there is leaves %s, %v", q.String(), err)
	}
	if _, err := Allocatable(capacity, map[string]string{"cpu": "much"}); err == nil {
		t.Error("a reservation that is no quantity is taken")
	}
}

func TestAddresses(t *testing.T) {
	got, err := Addresses([]net.IP{net.ParseIP("192.0.2.7"), net.ParseIP("2001:db8::7")})
	if err != nil || !slices.Equal(got, []string{"192.0.2.7", "2001:db8::7"}) {
		t.Errorf("configured: %v, %v", got, err)
	}
	got, err = Addresses(nil)
	if err != nil || len(got) > 2 {
		t.Fatalf("found: %v, %v", got, err)
	}
	for _, a := range got {
		if ip := net.ParseIP(a); ip == nil || ip.IsLoopback() {
			t.Errorf("%s is no address of a node", a)
		}
	}
}
