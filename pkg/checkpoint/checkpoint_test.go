package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

func sample() Pods {
	list := func(cpu, memory string) v1.ResourceList {
		return v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}
	}
	return Pods{
		"one": {Containers: map[string]v1.ResourceRequirements{"main": {Requests: list("100m", "64Mi"), Limits: list("200m", "128Mi")}, "side": {}}},
		"two": {Containers: map[string]v1.ResourceRequirements{"main": {}}, Pod: &v1.ResourceRequirements{Requests: list("1", "1Gi"), Limits: list("1500m", "2Gi")}},
	}
}

// TestFileIsThePeers compares with a file that the kubelet's own code wrote.
func TestFileIsThePeers(t *testing.T) {
	want, err := os.ReadFile("testdata/peer/allocated_pods_state")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the file is\n%s\nthe peer's\n%s", got, want)
	}
	pods, err := Decode(want)
	if err != nil || !equality.Semantic.DeepEqual(pods, sample()) {
		t.Errorf("read %+v, error %v", pods, err)
	}
}

// TestCorruptIsSetAside: a file that cannot be read is no obstacle, nor lost.
func TestCorruptIsSetAside(t *testing.T) {
	whole, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"empty": "", "cut": string(whole[:50]), "altered": string(whole[:40]) + "x" + string(whole[41:]), "other": `{"data":"[]","checksum":0}`} {
		root := t.TempDir()
		path := filepath.Join(root, Allocated)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if pods, err := Read(root, Allocated); !errors.Is(err, ErrCorrupt) || pods != nil {
			t.Errorf("%s: %v, error %v", name, pods, err)
		}
		if kept, err := os.ReadFile(path + ".corrupt"); err != nil || string(kept) != text {
			t.Errorf("%s: set aside %q, error %v", name, kept, err)
		}
		if pods, err := Read(root, Allocated); err != nil || pods != nil {
			t.Errorf("%s: then %v, error %v", name, pods, err)
		}
	}
}

func TestWriteAndRead(t *testing.T) {
	root := t.TempDir()
	f := New(root)
	actuated := map[string]v1.ResourceRequirements{"main": {}}
	if err := f.Write(sample(), Pods{"one": pod.Resources{Containers: actuated}}); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]int{Allocated: 2, Actuated: 1} {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, error %v", name, info, err)
		}
		if pods, err := Read(root, name); err != nil || len(pods) != n {
			t.Errorf("%s: %v, error %v", name, pods, err)
		}
	}
	if entries, _ := os.ReadDir(root); len(entries) != 2 {
		t.Errorf("left beside them: %v", entries)
	}
}

func FuzzDecode(f *testing.F) {
	text, err := Encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		pods, err := Decode(text)
		if err != nil {
			return
		}
		if _, err := Encode(pods); err != nil {
			t.Errorf("read, but not to be written: %v", err)
		}
	})
}
