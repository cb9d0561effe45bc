package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// churn adds, removes and changes pods of a few names at random.
type churn struct {
	*bed
	random *rand.Rand
	wanted map[string]string // name to manifest; those not wanted are absent
}

func (c *churn) step() {
	name := fmt.Sprintf("churn%d", c.random.IntN(6))
	if _, there := c.wanted[name]; there && c.random.IntN(2) == 0 {
		c.remove(name)
		delete(c.wanted, name)
		return
	}
	manifest := podOf(name, fmt.Sprintf(`
terminationGracePeriodSeconds: 2
volumes: [{name: e, emptyDir: {}}]
initContainers:
- {name: init, image: BUSYBOX, command: ["true"]}
containers:
- {name: main, image: BUSYBOX, command: [sh, -c, "trap exit TERM; sleep %d & wait"], volumeMounts: [{name: e, mountPath: /e}]}`,
		10000+c.random.IntN(1000)))
	c.apply(name, manifest)
	c.wanted[name] = manifest
}

// nothingTwice fails the test if two instances of one container live at once,
// or two pods of one name.
func (c *churn) nothingTwice() {
	c.t.Helper()
	live := map[string]string{}
	for _, s := range c.containers("") {
		if s.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			continue
		}
		key := s.Labels["io.kubernetes.pod.name"] + "/" + s.Metadata.Name
		if live[key] != "" {
			c.t.Fatalf("two instances of %s live: %s and %s", key, live[key], s.Id)
		}
		live[key] = s.Id
	}
}

// TestKilledAtRandom kills the agent 50 times while pods come, go and change.
// Pods that nobody touches notice nothing, and in the end all is as wanted.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &churn{bed: newBed(t, lab.Containerd2), random: rand.New(rand.NewPCG(seed, 0)), wanted: map[string]string{}}
	c.start()
	c.apply("warm", sleeper("warm"))
	uid := string(c.ready("warm").UID)
	c.remove("warm")
	c.gone("warm", uid)
	idle := c.Snapshot()
	stable := map[string]string{} // instance by pod
	for i := range 3 {
		name := fmt.Sprintf("stable%d", i)
		c.apply(name, sleeper(name))
	}
	for i := range 3 {
		p := c.ready(fmt.Sprintf("stable%d", i))
		stable[p.Name] = c.instances(string(p.UID))["main"]
	}
	for range 50 {
		until := time.Now().Add(time.Duration(200+c.random.IntN(1200)) * time.Millisecond)
		for time.Now().Before(until) {
			c.step()
			<-time.After(time.Duration(c.random.IntN(200)) * time.Millisecond)
		}
		c.must(c.Agent.Kill())
		c.nothingTwice()
		c.must(c.Agent.Start())
	}
	c.asWanted(stable)
	for name := range c.wanted {
		c.remove(name)
	}
	for name := range stable {
		c.remove(strings.TrimSuffix(name, "-lab"))
	}
	c.eventually("no pod is left", 60*time.Second, func() error {
		r, err := c.report()
		if err == nil && len(r.Pods) > 0 {
			err = fmt.Errorf("%d are, the first is %s: %v %v", len(r.Pods), r.Pods[0].Name, r.Pods[0].Doing, r.Pods[0].Waits)
		}
		return err
	})
	if leaks := slices.DeleteFunc(c.Leaks(idle), c.runtimesOwn); len(leaks) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(leaks, "\n"))
	}
}

// runtimesOwn tells what containerd itself loses now and then when its client
// dies within a start call: it removes the sandbox, says so, and the sandbox's
// shim or root file system stays. No client can see those any more.
func (c *churn) runtimesOwn(leak string) bool {
	lost := strings.Contains(leak, "/containerd-shim-") || strings.HasPrefix(leak, "mount ") && strings.Contains(leak, "/io.containerd.runtime.v2.task/")
	if lost {
		c.t.Logf("containerd lost %s", leak)
	}
	return lost
}

// asWanted waits until all is as wanted, and compares.
func (c *churn) asWanted(stable map[string]string) {
	c.t.Helper()
	c.eventually("all is as wanted", 90*time.Second, func() error {
		r, err := c.report()
		if err != nil {
			return err
		}
		if len(r.Pods) != len(c.wanted)+len(stable) {
			return fmt.Errorf("%d pods, want %d and %d stable ones", len(r.Pods), len(c.wanted), len(stable))
		}
		for _, p := range r.Pods {
			args := p.Spec.Containers[0].Command
			manifest, ok := c.wanted[strings.TrimSuffix(p.Name, "-lab")]
			if stable[p.Name] == "" && (!ok || !strings.Contains(manifest, args[2])) {
				return fmt.Errorf("%s is not the newest of its name", p.Name)
			}
			if s := container(&p, "main"); s.State.Running == nil {
				return fmt.Errorf("%s waits for %v", p.Name, p.Waits)
			}
		}
		return nil
	})
	c.nothingTwice()
	for name, id := range stable {
		p := c.ready(name)
		if now := c.instances(string(p.UID))["main"]; now != id || container(p, "main").RestartCount != 0 {
			c.t.Errorf("%s: instance %s became %s with %d restarts", name, id, now, container(p, "main").RestartCount)
		}
	}
}
