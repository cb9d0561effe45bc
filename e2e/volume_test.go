package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
	"github.com/nodeagent/nodeagent/pkg/local"
)

// TestVolumes is what containers find in volumes that show objects and the pod
// itself, and in parts of volumes.
func TestVolumes(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.share(map[string]func(*bed){
		"ConfigMap":               configMapVolume,
		"ItemsAndModes":           itemsAndModes,
		"OptionalMayBeMissing":    optionalMayBeMissing,
		"MissingKeyWaits":         missingKeyWaits,
		"UpdateIsQuickAndWhole":   updateIsQuickAndWhole,
		"FailedUpdateKeepsOld":    failedUpdateKeepsOld,
		"SecretIsInMemory":        secretIsInMemory,
		"ProjectedOfSeveral":      projectedOfSeveral,
		"DownwardFollowsLabels":   downwardFollowsLabels,
		"FSGroupReads":            fsGroupReads,
		"NestedMount":             nestedMount,
		"SubPathIsFrozen":         subPathIsFrozen,
		"SubPathMustStayInside":   subPathMustStayInside,
		"SubPathSurvivesRestart":  subPathSurvivesRestart,
		"MountsReachTheNode":      mountsReachTheNode,
		"VolumesAreReadOnlyThere": volumesAreReadOnlyThere,
	})
}

// object puts a ConfigMap or Secret into the folder; data is YAML.
func (b *bed) object(kind, name, data string) {
	b.t.Helper()
	b.apply(name, fmt.Sprintf("apiVersion: v1\nkind: %s\nmetadata: {name: %s, namespace: default}\n%s\n", kind, name, data))
}

func (b *bed) configMap(name, data string) {
	b.t.Helper()
	b.object("ConfigMap", name, "data: "+data)
}

// showing is a pod that mounts one volume at /v.
func showing(meta, volume string, more ...string) string {
	return podOf(meta, strings.Join(more, "\n")+`
terminationGracePeriodSeconds: 2
volumes: [{name: v, `+volume+`}]
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]
  volumeMounts: [{name: v, mountPath: /v}]`)
}

// folder is where the pod's volume is on the node.
func (b *bed) folder(p *local.Pod, kind string) string {
	return filepath.Join(b.Root, "pods", string(p.UID), "volumes/kubernetes.io~"+kind, "v")
}

// shows waits until the file has the text, and says how long that took.
func (b *bed) shows(file, text string, within time.Duration) time.Duration {
	b.t.Helper()
	began := time.Now()
	b.eventually(file+" shows "+text, within, func() error {
		if got, err := os.ReadFile(file); err != nil || string(got) != text {
			return fmt.Errorf("it shows %q, %v", got, err)
		}
		return nil
	})
	return time.Since(began)
}

func (b *bed) want(container, want string, command ...string) {
	b.t.Helper()
	if d := cmp.Diff(want, b.exec(container, command...)); d != "" {
		b.t.Errorf("%v: %s", command, d)
	}
}

func configMapVolume(b *bed) {
	b.object("ConfigMap", "all-keys", "data: {a: one, b: \"two\\nlines\"}\nbinaryData: {raw: AP8=}")
	_, id := b.running("shows-config", showing("shows-config", "configMap: {name: all-keys}"))
	b.want(id, "a\nb\nraw", "ls", "/v")
	b.want(id, "onetwo\nlines", "cat", "/v/a", "/v/b")
	b.want(id, "2 644", "stat", "-L", "-c", "%s %a", "/v/raw")
}

func itemsAndModes(b *bed) {
	b.configMap("for-items", "{a: one, b: two}")
	_, id := b.running("items", showing("items", "configMap: {name: for-items, defaultMode: 256, items: [{key: a, path: deep/er/a}, {key: b, path: b, mode: 493}]}"))
	b.want(id, "400 /v/deep/er/a\n755 /v/b", "stat", "-L", "-c", "%a %n", "/v/deep/er/a", "/v/b")
	b.want(id, "b\ndeep", "ls", "/v")
}

func optionalMayBeMissing(b *bed) {
	p, id := b.running("optional", showing("optional", "configMap: {name: comes-later, optional: true}"))
	b.want(id, "", "ls", "/v")
	b.configMap("comes-later", "{a: here}")
	b.shows(b.folder(p, "configmap")+"/a", "here", 5*time.Second)
	b.want(id, "here", "cat", "/v/a")
}

// A pod whose key is missing waits and says so; the others don't mind, and it
// runs as soon as the key is there.
func missingKeyWaits(b *bed) {
	b.configMap("lacks", "{a: one}")
	b.apply("waits-key", showing("waits-key", "configMap: {name: lacks, items: [{key: b, path: b}]}"))
	b.eventually("the pod says what it waits for", 30*time.Second, func() error {
		if p := b.pod("waits-key"); p == nil || !strings.Contains(fmt.Sprint(p.Notes), "FailedMount") || !strings.Contains(fmt.Sprint(p.Waits), "references non-existent config key: b") {
			return fmt.Errorf("it is %+v", p)
		}
		return nil
	})
	b.running("minds-not", sleeper("minds-not"))
	b.configMap("lacks", "{a: one, b: two}")
	began := time.Now()
	p := b.ready("waits-key")
	if took := time.Since(began); took > 20*time.Second {
		b.t.Errorf("it took %v once the key was there", took)
	}
	b.want(b.instances(string(p.UID))["main"], "two", "cat", "/v/b")
	b.remove("waits-key")
	b.gone("waits-key", string(p.UID))
}

// checker is a command that looks at the folder all the time and says "half" if
// its files, found at one moment, don't go together.
const checker = `trap exit TERM
while true; do
  d=$(readlink /v/..data)
  a=$(cat /v/$d/a 2>/dev/null) && b=$(cat /v/$d/b 2>/dev/null) && { [ "$a" = "$b" ] || echo "half: $a and $b"; }
done`

func watching(name, volume string) string {
	return podOf(name, `
terminationGracePeriodSeconds: 1
volumes: [{name: v, `+volume+`}]
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, '`+strings.ReplaceAll(checker, "\n", "\n\n    ")+`']
  resources: {limits: {cpu: 200m}}
  volumeMounts: [{name: v, mountPath: /v}]`)
}

// noHalf fails if the checker saw something.
func (b *bed) noHalf(name string) {
	b.t.Helper()
	logs, err := filepath.Glob(filepath.Join(b.PodLogs, "default_"+name+"*", "main", "*.log"))
	if err != nil || len(logs) == 0 {
		b.t.Fatalf("logs: %v, %v", logs, err)
	}
	for _, log := range logs {
		text, err := os.ReadFile(log)
		b.must(err)
		if strings.Contains(string(text), "half") {
			b.t.Errorf("a reader saw %s", text)
		}
	}
}

func both(n int) string {
	text := fmt.Sprintf("%d-%s", n, strings.Repeat("x", 2000))
	return fmt.Sprintf("{a: %s, b: %s}", text, text)
}

func updateIsQuickAndWhole(b *bed) {
	b.configMap("changes", both(0))
	p, _ := b.running("watches", watching("watches", "configMap: {name: changes}"))
	for n := 1; n <= 20; n++ {
		b.configMap("changes", both(n))
		text := fmt.Sprintf("%d-%s", n, strings.Repeat("x", 2000))
		if took := b.shows(b.folder(p, "configmap")+"/b", text, 30*time.Second); took > 5*time.Second {
			b.t.Errorf("update %d was seen after %v", n, took)
		}
	}
	b.noHalf("watches")
}

func failedUpdateKeepsOld(b *bed) {
	b.configMap("loses", "{a: one}")
	p, id := b.running("keeps", showing("keeps", "configMap: {name: loses, items: [{key: a, path: a}]}"))
	b.configMap("loses", "{b: two}")
	failed := func(p *local.Pod) int {
		return strings.Count(fmt.Sprint(p.Notes), "references non-existent config key: a")
	}
	b.eventually("the failure is told", 30*time.Second, func() error {
		if failed(b.pod("keeps")) == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	b.want(id, "one", "cat", "/v/a")
	b.eventually("it was tried again", 30*time.Second, func() error {
		if n := strings.Count(fmt.Sprint(b.pod("keeps").Steps), "references non-existent"); n < 3 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	if n := failed(b.pod("keeps")); n != 1 {
		b.t.Errorf("it is told %d times", n)
	}
	b.configMap("loses", "{a: three}")
	if took := b.shows(b.folder(p, "configmap")+"/a", "three", 30*time.Second); took > 5*time.Second {
		b.t.Errorf("it was seen %v after it came back", took)
	}
}

func secretIsInMemory(b *bed) {
	b.object("Secret", "keys", "stringData: {key: hidden}")
	b.apply("has-keys", showing("has-keys", "secret: {secretName: keys, defaultMode: 256}"))
	p := b.ready("has-keys")
	id := b.instances(string(p.UID))["main"]
	b.want(id, "hidden", "cat", "/v/key")
	b.want(id, "400", "stat", "-L", "-c", "%a", "/v/key")
	b.want(id, "tmpfs", "stat", "-f", "-c", "%T", "/v")
	folder := b.folder(p, "secret")
	b.remove("has-keys")
	b.gone("has-keys", string(p.UID))
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Join(b.Root, "pods", string(p.UID))))
	if _, statErr := os.Stat(folder); err != nil || len(mounts) > 0 || !os.IsNotExist(statErr) {
		b.t.Errorf("left: %v, %v, %v", mounts, err, statErr)
	}
}

func projectedOfSeveral(b *bed) {
	b.configMap("part-one", "{a: one}")
	b.object("Secret", "part-two", "stringData: {key: two}")
	_, id := b.running("projected", showing("projected, labels: {app: demo}", `projected: {sources: [
    {configMap: {name: part-one}}, {secret: {name: part-two, items: [{key: key, path: keys/two}]}},
    {downwardAPI: {items: [{path: pod/labels, fieldRef: {fieldPath: metadata.labels}}]}},
    {configMap: {name: nowhere, optional: true}}]}`))
	b.want(id, "one\ntwo\napp=\"demo\"", "sh", "-c", "cat /v/a; echo; cat /v/keys/two; echo; cat /v/pod/labels")
	b.want(id, "tmpfs", "stat", "-f", "-c", "%T", "/v")
}

// The pod keeps its UID, so that a changed file changes it in place.
func downwardFollowsLabels(b *bed) {
	manifest := func(version string) string {
		return showing("downward, uid: 5d3c8f1e-0000-4000-8000-00000000d011, labels: {version: "+version+"}, annotations: {note: \"say \\\"hi\\\"\"}",
			`downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}},
    {path: cpu, resourceFieldRef: {containerName: main, resource: requests.cpu, divisor: 1m}}, {path: name, fieldRef: {fieldPath: metadata.name}}]}`)
	}
	p, id := b.running("downward", manifest("one"))
	b.want(id, "0 downward-lab say \"hi\" version=\"one\"", "sh", "-c", "echo $(cat /v/cpu) $(cat /v/name) $(cat /v/note) $(cat /v/labels)")
	b.apply("downward", manifest("two"))
	if took := b.shows(b.folder(p, "downward-api")+"/labels", `version="two"`, 30*time.Second); took > 5*time.Second {
		b.t.Errorf("the change was seen after %v", took)
	}
	b.want(id, `version="two"`, "cat", "/v/labels")
}

func fsGroupReads(b *bed) {
	b.object("Secret", "group-key", "stringData: {key: hidden}")
	_, id := b.running("fsgroup", showing("fsgroup", "secret: {secretName: group-key, defaultMode: 256}", "securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 4711}"))
	b.want(id, "440 4711", "stat", "-L", "-c", "%a %g", "/v/key")
	b.want(id, "hidden", "cat", "/v/key")
}

func nestedMount(b *bed) {
	b.configMap("outer", "{a: one}")
	_, id := b.running("nested", podOf("nested", `
terminationGracePeriodSeconds: 2
volumes: [{name: v, configMap: {name: outer}}, {name: cache, emptyDir: {}}]
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]
  volumeMounts: [{name: v, mountPath: /v}, {name: cache, mountPath: /v/var/cache}]`))
	b.want(id, "one", "sh", "-c", "echo x > /v/var/cache/x && cat /v/a")
}

func volumesAreReadOnlyThere(b *bed) {
	b.configMap("fixed", "{a: one}")
	_, id := b.running("reads-only", showing("reads-only", "configMap: {name: fixed}"))
	b.want(id, "refused", "sh", "-c", "echo x 2>/dev/null > /v/x || echo refused")
}

// parts is a pod whose container mounts a part of its volume at /part.
func parts(name, volume, sub, init string) string {
	return podOf(name, `
terminationGracePeriodSeconds: 2
volumes: [{name: v, `+volume+`}]
initContainers: [{name: init, image: BUSYBOX, command: [sh, -c, "`+init+`"], volumeMounts: [{name: v, mountPath: /v}]}]
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; while [ ! -e /part/die ]; do sleep 0.1; done; rm /part/die; exit 3"]
  env: [{name: WHO, value: me}]
  volumeMounts: [{name: v, mountPath: /part, subPathExpr: `+sub+`}, {name: v, mountPath: /v}]`)
}

func subPathIsFrozen(b *bed) {
	b.configMap("thaws", "{a: one}")
	p, id := b.running("frozen", podOf("frozen", `
terminationGracePeriodSeconds: 2
volumes: [{name: v, configMap: {name: thaws}}]
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]
  volumeMounts: [{name: v, mountPath: /v}, {name: v, mountPath: /a, subPath: a}]`))
	b.configMap("thaws", "{a: two}")
	b.shows(b.folder(p, "configmap")+"/a", "two", 10*time.Second)
	b.want(id, "one two", "sh", "-c", "echo $(cat /a) $(cat /v/a)")
}

func subPathMustStayInside(b *bed) {
	b.apply("escapes", parts("escapes", "emptyDir: {}", "way/etc", "ln -s / /v/way"))
	_, s := b.await("escapes", "main", "waits", waitsFor("CreateContainerConfigError"))
	want := `failed to prepare subPath for volumeMount "v" of container "main": subPathExpr "way/etc": leads out of its volume`
	if got := s.State.Waiting.Message; !strings.Contains(got, want) {
		b.t.Errorf("it says %q, want %q", got, want)
	}
	p := b.pod("escapes")
	b.remove("escapes")
	b.gone("escapes", string(p.UID))
}

func subPathSurvivesRestart(b *bed) {
	b.apply("restarts-part", parts("restarts-part", "emptyDir: {}", "$(WHO)/deep", "true"))
	p := b.ready("restarts-part")
	first := b.instances(string(p.UID))["main"]
	b.exec(first, "sh", "-c", "echo kept > /part/data; touch /part/die")
	_, s := b.await("restarts-part", "main", "is restarted", func(s v1.ContainerStatus) bool { return s.RestartCount == 1 && s.Ready })
	_, id, _ := strings.Cut(s.ContainerID, "://")
	b.want(id, "kept kept", "sh", "-c", "echo $(cat /part/data) $(cat /v/me/deep/data)")
	b.remove("restarts-part")
	b.gone("restarts-part", string(p.UID))
}

// A mount that one container makes reaches the node and the other container.
func mountsReachTheNode(b *bed) {
	p, _ := b.running("propagates", podOf("propagates", `
terminationGracePeriodSeconds: 5
volumes: [{name: v, emptyDir: {}}]
containers:
- name: makes
  image: BUSYBOX
  securityContext: {privileged: true}
  command: [sh, -c, "mkdir /v/m; mount -t tmpfs tmpfs /v/m; echo made > /v/m/data; trap 'umount /v/m; exit' TERM; sleep 100000 & wait"]
  volumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional}]
- name: sees
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]
  volumeMounts: [{name: v, mountPath: /v, mountPropagation: HostToContainer}]
- name: blind
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]
  volumeMounts: [{name: v, mountPath: /v}]`))
	b.shows(filepath.Join(b.folder(p, "empty-dir"), "m/data"), "made\n", 10*time.Second)
	b.want(b.instances(string(p.UID))["sees"], "made", "cat", "/v/m/data")
}

// TestKilledDuringUpdates kills the agent again and again while what a volume
// shows changes: a reader in the container never sees a half of it, and in the
// end it sees the newest.
func TestKilledDuringUpdates(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.configMap("changes", both(0))
	b.apply("watches", watching("watches", "configMap: {name: changes}"))
	p := b.ready("watches")
	was := b.instances(string(p.UID))["main"]
	n := 0
	for range 8 {
		for range 5 {
			n++
			b.configMap("changes", both(n))
			<-time.After(time.Duration(rand.IntN(8)) * time.Millisecond)
		}
		b.must(b.Agent.Kill())
		n++
		b.configMap("changes", both(n))
		b.start()
	}
	folder := b.folder(p, "configmap")
	b.shows(folder+"/a", fmt.Sprintf("%d-%s", n, strings.Repeat("x", 2000)), 20*time.Second)
	b.noHalf("watches")
	b.eventually("nothing is left of writes that were cut short", 30*time.Second, func() error {
		left, err := filepath.Glob(folder + "/..*")
		if err == nil && len(left) != 2 {
			err = fmt.Errorf("%v", left)
		}
		return err
	})
	b.ready("watches")
	if now := b.instances(string(p.UID))["main"]; now != was {
		t.Errorf("instance %s became %s", was, now)
	}
	b.remove("watches")
	b.gone("watches", string(p.UID))
}
