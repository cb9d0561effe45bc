package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// The points at which the agent is killed while a pod starts, and while one
// ends. A number says at which time.
var (
	startPoints = []string{
		"before-admit", "after-admit", "before-prepare", "after-prepare", "before-mount", "after-mount",
		"before-pull", "after-pull", "after-pull:2", "before-sandbox", "after-sandbox",
		"before-create", "after-create", "before-create:2", "after-create:2", "after-create:3",
		"before-start", "after-start", "before-start:2", "after-start:2", "before-start:3", "after-start:3",
		"before-observe", "after-observe", "before-save", "after-save",
	}
	endPoints = []string{
		"before-save", "after-save", "before-stop", "after-stop", "after-stop:2", "before-observe", "after-observe",
		"before-stopsandbox", "after-stopsandbox", "before-removesandbox", "after-removesandbox",
		"before-unmount", "after-unmount", "before-clean", "after-clean", "before-release", "after-release",
		"before-erase", "after-erase",
	}
)

// TestKilledAtPoint kills the agent at each named point while a pod of an
// init container and two others starts, and while it ends. Its next process
// finishes the work: nothing is started twice, nothing is left. One container has
// a policy of its own, as only the start of such is recorded.
func TestKilledAtPoint(t *testing.T) {
	for half := range 2 {
		t.Run(fmt.Sprintf("Bed%d", half), func(t *testing.T) {
			t.Parallel()
			f := newFaultBed(t)
			for i := half; i < max(len(startPoints), len(endPoints)); i += 2 {
				start, end := startPoints[i%len(startPoints)], endPoints[i%len(endPoints)]
				ok := t.Run("Start/"+start, func(t *testing.T) { f.on(t).dieStarting(start) }) &&
					t.Run("End/"+end, func(t *testing.T) { f.on(t).dieEnding(end) })
				if !ok {
					return
				}
			}
		})
	}
}

// faultBed is a bed on which one pod comes and goes.
type faultBed struct {
	*bed
	dir  string
	idle lab.State
}

func newFaultBed(t *testing.T) *faultBed {
	f := &faultBed{bed: newBed(t, lab.Containerd2)}
	f.dir = f.Path("fault")
	f.must(os.MkdirAll(f.dir, 0o755))
	f.start()
	// What the first pod of a node leaves on purpose is the node's.
	f.apply("warm", sleeper("warm"))
	uid := string(f.ready("warm").UID)
	f.remove("warm")
	f.gone("warm", uid)
	f.idle = f.Snapshot()
	f.must(f.Agent.Kill())
	return f
}

func (f *faultBed) on(t *testing.T) *faultBed {
	return &faultBed{&bed{f.Lab, f.Agent, t}, f.dir, f.idle}
}

// startFaulty starts the agent to be killed at the point, and waits for it.
func (f *faultBed) startFaulty(point string) {
	f.t.Helper()
	f.Env = []string{"NODEAGENT_FAULT=" + point}
	f.must(f.Agent.Start())
	err := f.Agent.Wait(20 * time.Second)
	f.Env = nil
	if err == nil || !strings.Contains(err.Error(), "signal: killed") {
		f.t.Fatalf("the agent did not die at %s: %v", point, err)
	}
}

func (f *faultBed) dieStarting(point string) {
	f.must(os.WriteFile(f.dir+"/starts", nil, 0o644))
	const tell = `volumeMounts: [{name: d, mountPath: /d}], command: [sh, -c, "echo NAME >> /d/starts; `
	const stay = `trap exit TERM; sleep 1000 & wait"]`
	f.apply("fault", podOf("fault", `
volumes: [{name: d, hostPath: {path: `+f.dir+`}}, {name: e, emptyDir: {}}]
initContainers:
- {name: init, image: BUSYBOX, `+strings.Replace(tell, "NAME", "init", 1)+`"]}
containers:
- {name: one, image: BUSYBOX, `+strings.Replace(tell, "NAME", "one", 1)+stay+`}
- {name: two, image: BUSYBOX, restartPolicy: OnFailure, `+strings.Replace(tell, "NAME", "two", 1)+stay+`}`))
	f.startFaulty(point)
	before := f.instances("")
	f.start()
	p := f.ready("fault")
	now := f.instances(string(p.UID))
	for name, id := range before {
		if name != "init" && now[name] != id {
			f.t.Errorf("instance %s of %s became %s", id, name, now[name])
		}
	}
	f.eventually("both containers have spoken", 30*time.Second, func() error {
		if n := len(f.lines(f.dir + "/starts")); n < 3 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
	starts := f.lines(f.dir + "/starts")
	slices.Sort(starts)
	if want := []string{"init", "one", "two"}; !slices.Equal(starts, want) {
		f.t.Errorf("containers started: %v, want each once", starts)
	}
	if n := len(f.sandboxes(string(p.UID))); n != 1 {
		f.t.Errorf("%d sandboxes, want 1", n)
	}
	for _, c := range f.containers(string(p.UID)) {
		if c.Metadata.Attempt != 0 {
			f.t.Errorf("container %s was made %d times", c.Metadata.Name, c.Metadata.Attempt+1)
		}
	}
	if p.Status.ContainerStatuses[0].RestartCount != 0 || p.Status.ContainerStatuses[1].RestartCount != 0 {
		f.t.Error("restarts are counted")
	}
}

func (f *faultBed) dieEnding(point string) {
	uid := string(f.ready("fault").UID)
	f.must(f.Agent.Kill())
	f.remove("fault")
	f.startFaulty(point)
	f.start()
	f.gone("fault", uid)
	if leaks := f.Leaks(f.idle); len(leaks) > 0 {
		f.t.Errorf("left by the pod:\n%s", strings.Join(leaks, "\n"))
	}
	for _, pattern := range []string{"pods/*", "nodeagent/pods/*"} {
		if left, _ := filepath.Glob(filepath.Join(f.Root, pattern)); len(left) > 0 {
			f.t.Errorf("left: %v", left)
		}
	}
	f.must(f.Agent.Kill())
}
