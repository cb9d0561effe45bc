package stats

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// v2 is a machine whose cgroups are files in a folder, as the kernel's v2 has
// them: for what this machine may not have, and for what doesn't answer.
type v2 struct {
	dir  string
	pods []pod.Pod
}

func newV2(t *testing.T) (*v2, *Sampler) {
	f := &v2{dir: t.TempDir()}
	s := &Sampler{pods: f, places: f, boot: bootTime(), units: map[string]*unit{},
		files: hierarchies{v2: true, dir: func(_, cgroup string) string { return filepath.Join(f.dir, cgroup) }}}
	f.cgroup(t, "/", nil)
	return f, s
}

func (f *v2) Pods() []pod.Pod         { return f.pods }
func (f *v2) Tiers() []string         { return nil }
func (f *v2) Parent(p *v1.Pod) string { return "/pod" + string(p.UID) }

// add a pod with one container, both of that name.
func (f *v2) add(t *testing.T, name string) {
	t.Helper()
	p := pod.Pod{
		Spec: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}},
		View: pod.View{
			Sandboxes:  []pod.Sandbox{{ID: name + "-sandbox", HostNetwork: true}},
			Containers: []pod.Container{{ID: name + "-main", Name: "main", State: pod.Running}},
		},
	}
	f.cgroup(t, "pod"+name, nil)
	f.cgroup(t, "pod"+name+"/"+name+"-main", nil)
	f.pods = append(f.pods, p)
}

// hang has the file not answer until the test is over, or free is called.
func (f *v2) hang(t *testing.T, file string) (free func()) {
	t.Helper()
	path := filepath.Join(f.dir, file)
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644)); err != nil {
		t.Fatal(err)
	}
	free = sync.OnceFunc(func() {
		if w, err := os.OpenFile(path, os.O_RDWR, 0); err == nil { // the reader goes on
			_ = os.Remove(path)
			_ = w.Close()
		}
	})
	t.Cleanup(free)
	return free
}

// cgroup with the files of one, but for those that are given.
func (f *v2) cgroup(t *testing.T, name string, files map[string]string) {
	t.Helper()
	all := map[string]string{
		"cpu.stat":            "usage_usec 2000\nuser_usec 1500\nsystem_usec 500\nnr_periods 10\nnr_throttled 3\nthrottled_usec 7\n",
		"cpu.pressure":        "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=55\n",
		"memory.pressure":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=2\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
		"io.pressure":         "some avg10=0.00 avg60=0.00 avg300=0.00 total=4\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
		"memory.current":      "1000000\n",
		"memory.max":          "max\n",
		"memory.swap.current": "4096\n",
		"memory.swap.max":     "8192\n",
		"memory.stat":         "anon 600000\nfile 300000\nfile_mapped 1000\ninactive_file 200000\nactive_file 100000\npgfault 77\npgmajfault 5\n",
		"cgroup.procs":        "4194305\n4194306\n4194307\n", // more than the kernel has
		"cpu.weight":          "100\n",
		"cpu.max":             "50000 100000\n",
		"io.stat":             "4095:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n",
		"memory.events":       "low 0\nhigh 0\nmax 4\noom 1\noom_kill 2\n",
		"memory.peak":         "2000000\n",
		"pids.current":        "5\n",
		"pids.max":            "100\n",
	}
	maps.Copy(all, files)
	dir := filepath.Join(f.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range all {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
