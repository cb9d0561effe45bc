package cgroups

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

func fixture[T any](t *testing.T, name string) T {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "peer", name))
	if err != nil {
		t.Fatal(err)
	}
	var v T
	if err := json.Unmarshal(content, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestNamesAreThePeers(t *testing.T) {
	type names struct {
		CgroupRoot                  string
		UID                         types.UID
		QOSClass                    v1.PodQOSClass
		Cgroupfs, Systemd           string
		ClassCgroupfs, ClassSystemd string
	}
	all := fixture[[]names](t, "names.json")
	if len(all) < 12 {
		t.Fatalf("only %d names", len(all))
	}
	for _, want := range all {
		for driver, name := range map[string][2]string{
			Cgroupfs: {want.ClassCgroupfs, want.Cgroupfs},
			Systemd:  {want.ClassSystemd, want.Systemd},
		} {
			if got := join(driver, tier(want.CgroupRoot, want.QOSClass)); got != name[0] {
				t.Errorf("%s tier: got %s, want %s", driver, got, name[0])
			}
			got := Name(want.CgroupRoot, want.UID, want.QOSClass, driver)
			if got != name[1] {
				t.Errorf("%s pod: got %s, want %s", driver, got, name[1])
			}
		}
	}
}

func TestCPUFiguresAreThePeers(t *testing.T) {
	type figure struct {
		MilliCPU                       int64
		Shares                         uint64
		Quota100ms, Quota10ms, Quota1s int64
	}
	for _, want := range fixture[[]figure](t, "cpu.json") {
		got := figure{want.MilliCPU, shares(want.MilliCPU), cpuQuota(want.MilliCPU, 100_000), cpuQuota(want.MilliCPU, 10_000), cpuQuota(want.MilliCPU, 1_000_000)}
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{2: 1, 102: 4, 1024: 39, 2048: 79, 131072: 5000, 262144: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("weight of %d shares: got %d, want %d", shares, got, want)
		}
	}
}

func TestPodValuesAreThePeers(t *testing.T) {
	type values struct {
		CPUShares     uint64
		CPUQuota      int64
		CPUPeriod     uint64
		Memory        int64
		HugePageLimit map[int64]int64
	}
	type peer struct {
		Name       string
		Pod        *v1.Pod
		QOSClass   v1.PodQOSClass
		Resources  values
		NoQuota    values `json:"resourcesWithoutQuotaEnforcement"`
		Period10ms values `json:"resourcesWithPeriod10ms"`
	}
	all := fixture[[]peer](t, "pods.json")
	if len(all) < 10 {
		t.Fatalf("only %d pods", len(all))
	}
	for _, want := range all {
		t.Run(want.Name, func(t *testing.T) {
			if got := pod.QoS(want.Pod); got != want.QOSClass {
				t.Errorf("QoS class: got %s, want %s", got, want.QOSClass)
			}
			for _, c := range []struct {
				name   string
				quota  bool
				period time.Duration
				want   values
			}{
				{"default", true, 100 * time.Millisecond, want.Resources},
				{"no quota", false, 100 * time.Millisecond, want.NoQuota},
				{"period 10ms", true, 10 * time.Millisecond, want.Period10ms},
			} {
				got := ResourceConfig(want.Pod, c.quota, c.period)
				if d := cmp.Diff(c.want, values{got.Shares, got.Quota, got.Period, got.Memory, got.HugePages}, cmpopts.EquateEmpty()); d != "" {
					t.Errorf("%s: %s", c.name, d)
				}
			}
		})
	}
}
