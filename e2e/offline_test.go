package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/local"
	"github.com/nodeagent/nodeagent/pkg/pod"
	"github.com/nodeagent/nodeagent/pkg/record"
)

// ownPlane is a bed with a control plane of its own, which may be stopped.
func ownPlane(t *testing.T) *joined {
	t.Helper()
	p, err := lab.StartControlPlane(t, lab.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return joinedBed(t, p, lab.Containerd2)
}

// here waits until the agent has the pod so.
func (j *joined) here(name, what string, within time.Duration, want func(*local.Pod) bool) *local.Pod {
	j.t.Helper()
	var p *local.Pod
	j.eventually("pod "+name+" here "+what, within, func() error {
		if p = j.pod(name); p == nil || !want(p) {
			out, _ := json.Marshal(p)
			return fmt.Errorf("it is %s", out)
		}
		return nil
	})
	return p
}

func isReadyHere(p *local.Pod) bool { return podReady(p.Pod) }

func restarts(p *v1.Pod) int32 { return p.Status.ContainerStatuses[0].RestartCount }

func containerID(p *v1.Pod) string { return p.Status.ContainerStatuses[0].ContainerID }

// restartable is a pod that ends with code 5 once its file in dir is there, and
// says in a file what it was given.
func restartable(name, dir, more string) string {
	return `
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  terminationGracePeriodSeconds: 2
  volumes: [{name: d, hostPath: {path: ` + dir + `}}]
  containers:
  - name: main
    image: ` + lab.BusyboxImage + `
    command: [sh, -c, "trap exit TERM; echo map=$FROM_MAP secret=$FROM_SECRET service=$KUBERNETES_SERVICE_HOST >/d/` + name + `.given; while [ ! -e /d/` + name + ` ]; do sleep 0.1; done; rm /d/` + name + `; exit 5"]
    volumeMounts: [{name: d, mountPath: /d}]
` + more
}

// TestOutage: the apiserver is away for a minute, and meanwhile containers end,
// the agent is killed and the runtime restarted. What ends is started again; on
// return every status is right soon, and no other container has noticed.
func TestOutage(t *testing.T) {
	t.Parallel()
	j := ownPlane(t)
	dir := j.Lab.Path("d")
	j.must(os.Mkdir(dir, 0o777))
	j.join()
	j.put(clusterMap("map", "one"))
	j.create(sleeper("quiet"))
	j.create(restartable("crashes", dir, "    env: [{name: FROM_MAP, valueFrom: {configMapKeyRef: {name: map, key: key}}}]\n"))
	j.create(restartable("again", dir, ""))
	j.create(sleeper("leaves"))
	was := map[string]*v1.Pod{}
	for _, name := range []string{"quiet", "crashes", "again", "leaves"} {
		was[name] = j.waitReady(name)
	}
	j.waitKept()
	j.must(j.plane.StopAPIServer())
	began := time.Now()

	end := func(name string, count int32) {
		j.t.Helper()
		j.must(os.WriteFile(filepath.Join(dir, name), nil, 0o644))
		j.here(name, "is started again", 40*time.Second, func(p *local.Pod) bool { return isReadyHere(p) && restarts(p.Pod) == count })
	}
	end("crashes", 1)
	j.must(j.Agent.Kill())
	j.must(os.WriteFile(filepath.Join(dir, "again"), nil, 0o644)) // while nobody looks
	j.must(j.Agent.Start())
	j.here("again", "is started again", 40*time.Second, func(p *local.Pod) bool { return isReadyHere(p) && restarts(p.Pod) == 1 })
	j.must(j.Runtime.Restart(t.Context()))
	end("crashes", 2)
	given, err := os.ReadFile(filepath.Join(dir, "crashes.given"))
	if text := string(given); err != nil || !strings.Contains(text, "map=one") || !strings.Contains(text, "service=10.96.0.1") {
		t.Errorf("a container that was started without the apiserver was given %q, %v", text, err)
	}
	j.here("quiet", "runs", 30*time.Second, isReadyHere)
	<-time.After(time.Until(began.Add(60 * time.Second)))

	// Somebody deletes a pod as soon as the apiserver is there.
	j.must(j.plane.StartAPIServer())
	returned := time.Now()
	j.kubectl("delete", "pod", "leaves", "--wait=false")
	for name, count := range map[string]int32{"crashes": 2, "again": 1, "quiet": 0} {
		p := j.waitPod(name, "has its status", func(p *v1.Pod) bool { return podReady(p) && restarts(p) == count })
		if now := "containerd://" + j.instances(string(p.UID))[p.Spec.Containers[0].Name]; containerID(p) != now {
			t.Errorf("%s: the apiserver knows container %s, and %s runs", name, containerID(p), now)
		}
		if name == "quiet" && containerID(p) != containerID(was[name]) {
			t.Error("quiet was restarted")
		}
	}
	if took := time.Since(returned); took > 15*time.Second {
		t.Errorf("the statuses took %v", took)
	}
	j.waitGone("leaves")
	j.waitNode("is Ready", nodeReady)
	j.refusedNothing()
}

// waitKept waits until what the pods refer to is on disk.
func (j *joined) waitKept() {
	j.t.Helper()
	j.eventually("services and objects are on disk", 30*time.Second, func() error {
		files, err := filepath.Glob(filepath.Join(j.Root, "nodeagent/objects/*.json"))
		if err != nil || !slices.ContainsFunc(files, func(f string) bool { return strings.Contains(f, "/Service-") }) ||
			!slices.ContainsFunc(files, func(f string) bool { return strings.Contains(f, "/ConfigMap-") }) {
			return fmt.Errorf("there are %v, %v", files, err)
		}
		return nil
	})
	<-time.After(1500 * time.Millisecond) // those that were still gathered
}

// TestOlderState: the apiserver comes back as it was some time ago. What it does
// not know ends, what it knows goes on, and it is told how that is now.
func TestOlderState(t *testing.T) {
	t.Parallel()
	j := ownPlane(t)
	dir := j.Lab.Path("d")
	j.must(os.Mkdir(dir, 0o777))
	j.join()
	j.create(sleeper("old"))
	j.create(restartable("restarted", dir, ""))
	was := j.waitReady("old")
	j.waitReady("restarted")
	j.must(j.plane.SaveStore("before"))
	j.create(sleeper("new"))
	j.must(os.WriteFile(filepath.Join(dir, "restarted"), nil, 0o644))
	j.waitPod("restarted", "was restarted", func(p *v1.Pod) bool { return podReady(p) && restarts(p) == 1 })
	young := j.waitReady("new")
	j.must(j.plane.RestoreStore("before"))

	j.gone("new", string(young.UID))
	if now := j.waitReady("old"); containerID(now) != containerID(was) {
		t.Error("a pod that the apiserver knows was restarted")
	}
	j.waitPod("restarted", "has the status of now", func(p *v1.Pod) bool { return podReady(p) && restarts(p) == 1 })
	j.waitNode("is Ready", nodeReady)
	j.create(sleeper("after"))
	j.waitReady("after")
}

// offlineStart is the annotation of pods that may be started without asking.
const offlineStart = "\n  annotations: {" + pod.OfflineAnnotation + ": \"true\"}"

// annotated is a manifest with a name and an annotation for its start.
func annotated(manifest string) string {
	before, after, _ := strings.Cut(manifest, "metadata: {")
	name, rest, _ := strings.Cut(after, "}")
	return before + "metadata:\n  " + name + offlineStart + rest
}

// beforeReboot rewrites the records as those of another boot of the machine.
func (j *joined) beforeReboot() {
	j.t.Helper()
	store, err := record.Open(filepath.Join(j.Root, "nodeagent/pods"))
	j.must(err)
	all, asides := record.All[pod.Record](store)
	if len(all) == 0 || len(asides) > 0 {
		j.t.Fatalf("%d records, %v", len(all), asides)
	}
	for name, r := range all {
		r.Boot = "the one before"
		j.must(store.Write(name, r))
	}
}

// TestReboot: the machine starts anew and the apiserver is away. Static pods
// start, others wait and say so, but those that may start without asking.
func TestReboot(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"Waits":       nil,
		"Starts":      {"--offline-start"},
		"WithSecrets": {"--offline-start", "--keep-secrets"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := ownPlane(t)
			dir := j.Lab.Path("d")
			j.must(os.Mkdir(dir, 0o777))
			j.Args = append(j.Args, args...)
			j.join()
			j.secret("pass", "hidden")
			noToken := "  automountServiceAccountToken: false\n"
			j.create(annotated(restartable("may", dir, noToken)))
			j.create(annotated(restartable("secret", dir,
				"    env: [{name: FROM_SECRET, valueFrom: {secretKeyRef: {name: pass, key: key}}}]\n"+noToken)))
			j.create(annotated(sleeper("token")))
			j.create(sleeper("waits"))
			j.apply("static", sleeper("static"))
			was := map[string]*v1.Pod{}
			for _, name := range []string{"may", "secret", "token", "waits"} {
				was[name] = j.waitReady(name)
			}
			j.here("static-"+j.Node, "runs", time.Minute, isReadyHere)
			j.waitKept()
			j.must(j.plane.StopAPIServer())
			j.must(j.Reboot(t.Context()))
			j.beforeReboot()
			j.must(j.Agent.Start())

			says := func(name, text string) {
				t.Helper()
				j.here(name, "waits: "+text, 30*time.Second, func(p *local.Pod) bool {
					return strings.Contains(strings.Join(append(p.Waits, texts(p)...), "; "), text)
				})
			}
			j.here("static-"+j.Node, "runs", 30*time.Second, isReadyHere)
			says("waits", "waits for the apiserver: the machine was started anew")
			if out := j.say("pods"); !strings.Contains(out, "waits for the apiserver") {
				t.Errorf("nodeagent pods: %s", out)
			}
			starts, secrets := len(args) > 0, len(args) > 1
			early := map[string]string{}
			if starts {
				early["may"] = string(j.here("may", "runs", 30*time.Second, isReadyHere).UID)
				says("token", "kube-api-access")
			} else {
				<-time.After(12 * time.Second)
				says("may", "waits for the apiserver")
			}
			switch {
			case secrets:
				early["secret"] = string(j.here("secret", "runs", 30*time.Second, isReadyHere).UID)
				if given, err := os.ReadFile(filepath.Join(dir, "secret.given")); err != nil || !strings.Contains(string(given), "secret=hidden") {
					t.Errorf("it was given %q, %v", given, err)
				}
			case starts:
				says("secret", "Secret "+j.ns+"/pass has not been read from the apiserver yet")
			}
			instance := map[string]string{}
			for name, uid := range early {
				instance[name] = j.instances(uid)["main"]
			}
			if n := len(j.containers(string(was["waits"].UID))); n > 1 {
				t.Errorf("a pod that waits for the apiserver has %d containers", n)
			}

			j.must(j.plane.StartAPIServer())
			for name, p := range was {
				now := j.waitPod(name, "is Ready in the new boot", func(now *v1.Pod) bool { return podReady(now) && containerID(now) != containerID(p) })
				if id := instance[name]; id != "" && containerID(now) != "containerd://"+id {
					t.Errorf("%s was started twice: %s, %s", name, id, containerID(now))
				}
			}
			j.noSecretOnDisk(!secrets)
		})
	}
}

// texts are what the pod's containers wait for.
func texts(p *local.Pod) (out []string) {
	for _, s := range p.Status.ContainerStatuses {
		if s.State.Waiting != nil {
			out = append(out, s.State.Waiting.Message)
		}
	}
	for _, n := range p.Notes {
		out = append(out, n.Message)
	}
	return out
}

// noSecretOnDisk looks at what is kept of objects: Secrets are there only if so
// asked, and all is for root alone.
func (j *joined) noSecretOnDisk(none bool) {
	j.t.Helper()
	dir := filepath.Join(j.Root, "nodeagent/objects")
	info, err := os.Stat(dir)
	j.must(err)
	if info.Mode().Perm() != 0o700 {
		j.t.Errorf("%s: %v", dir, info.Mode())
	}
	entries, err := os.ReadDir(dir)
	j.must(err)
	secrets := 0
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		j.must(err)
		if info.Mode() != 0o600 {
			j.t.Errorf("%s: %v", e.Name(), info.Mode())
		}
		if strings.HasPrefix(e.Name(), "Secret-") {
			secrets++
		}
	}
	if none != (secrets == 0) {
		j.t.Errorf("%d Secrets on disk", secrets)
	}
}

// TestKilledAgainAndAgain: an agent that is killed 20 times under 15 probed,
// ready pods writes nothing that changes their readiness, and restarts nothing.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	const pods = 15
	was := map[string]string{}
	for i := range pods {
		j.create(sleeper(fmt.Sprint("p", i), "    readinessProbe: {exec: {command: [\"true\"]}, periodSeconds: 1, timeoutSeconds: 20}"))
	}
	for i := range pods {
		name := fmt.Sprint("p", i)
		was[name] = containerID(j.waitReady(name))
	}
	before := len(j.statusWrites())
	for i := range 20 {
		j.must(j.Agent.Kill())
		j.must(j.Agent.Start())
		if i%4 == 0 { // else it is killed as it starts
			j.eventually("the agent has the pods", 30*time.Second, func() error {
				r, err := j.report()
				if err == nil && len(r.Pods) < pods {
					err = fmt.Errorf("%d of %d", len(r.Pods), pods)
				}
				return err
			})
			<-time.After(time.Second)
			continue
		}
		<-time.After(time.Duration(50*i) * time.Millisecond)
	}
	j.eventually("the agent has the pods ready", 30*time.Second, func() error {
		for name := range was {
			if p := j.pod(name); p == nil || !isReadyHere(p) {
				return fmt.Errorf("%s is not", name)
			}
		}
		return nil
	})
	<-time.After(3 * time.Second)
	for _, r := range j.statusWrites()[before:] {
		var patch v1.Pod
		j.must(json.Unmarshal(r.Body, &patch))
		for _, c := range patch.Status.Conditions {
			if (c.Type == v1.PodReady || c.Type == v1.ContainersReady) && c.Status != "" {
				t.Errorf("written: %s %s", r.Name, r.Body)
			}
		}
	}
	for name, id := range was {
		p, err := j.client.CoreV1().Pods(j.ns).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		if err != nil || !podReady(p) || containerID(p) != id || restarts(p) != 0 {
			t.Errorf("%s: %v, ready %v, container %s, was %s", name, err, podReady(p), containerID(p), id)
		}
	}
}

// statusWrites are all that this node wrote about statuses of pods so far.
func (j *joined) statusWrites() []lab.Request {
	j.t.Helper()
	<-time.After(300 * time.Millisecond) // a request is in the log a moment after its answer
	found, err := j.plane.Requests(func(r lab.Request) bool {
		return r.User == "system:node:"+j.Node && r.Write() && r.Resource == "pods/status" && r.Namespace == j.ns
	})
	j.must(err)
	return found
}
