package e2e

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestEnv is what containers find in their environment.
func TestEnv(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.share(map[string]func(*bed){
		"SecretKey":          secretKey,
		"EnvFrom":            envFrom,
		"LaterWins":          laterWins,
		"Fields":             fields,
		"NodeInPlaceOfLimit": nodeInPlaceOfLimit,
		"File":               envFile,
		"MissingKey": waits("missing-key", "env: [{name: A, valueFrom: {configMapKeyRef: {name: broken-map, key: absent}}}]",
			"couldn't find key absent in ConfigMap default/broken-map"),
		"MissingSecret":      waits("missing-secret", "env: [{name: A, valueFrom: {secretKeyRef: {name: absent, key: key}}}]", `secret "absent" not found`),
		"MissingEnvFrom":     waits("missing-from", "envFrom: [{configMapRef: {name: absent}}]", `configmap "absent" not found`),
		"MissingFile":        waits("missing-file", "volumeMounts: [{name: v, mountPath: /v}]\nenv: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: absent, key: A}}}]", "couldn't parse env file absent of volume v: open the file: no such file or directory"),
		"FileLeadsOut":       fileLeadsOut,
		"BrokenFileKeepsIt":  brokenFileKeepsIt,
		"ChangeKeepsRunning": changeKeepsRunning,
		"TwoOfOneName":       twoOfOneName,
		"SecretIsNowhere":    secretIsNowhere,
	})
}

// settings is a ConfigMap of one key.
func settings(name, value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {key: '" + value + "'}\n"
}

// environment is what the pod's only container was started with.
func (b *bed) environment(podName string) map[string]string {
	b.t.Helper()
	p := b.ready(podName)
	out := map[string]string{}
	for line := range strings.Lines(b.exec(b.instances(string(p.UID))["main"], "env")) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		out[name] = value
	}
	return out
}

// settled is a pod of one container that says up and stays, with these fields.
func settled(name, container string) string {
	return podOf(name, "terminationGracePeriodSeconds: 1\nvolumes: [{name: v, emptyDir: {}}]\ncontainers:\n- name: main\n  image: BUSYBOX\n"+
		"  command: [sh, -c, \"trap 'exit 0' TERM; sleep 100000 & wait\"]\n  "+strings.ReplaceAll(container, "\n", "\n  "))
}

func (b *bed) wantEnv(podName string, want map[string]string) {
	b.t.Helper()
	got := b.environment(podName)
	for name, value := range want {
		if got[name] != value {
			b.t.Errorf("%s is %q, want %q", name, got[name], value)
		}
	}
}

// waits is a pod whose container waits with that message, told as an event once.
func waits(name, container, message string) func(*bed) {
	return func(b *bed) {
		if strings.Contains(container, "broken-map") {
			b.apply("broken-map", settings("broken-map", "x"))
		}
		b.apply(name, settled(name, container))
		p, s := b.await(name, "main", "waits", waitsFor("CreateContainerConfigError"))
		if s.State.Waiting.Message != message {
			b.t.Errorf("it says %q, want %q", s.State.Waiting.Message, message)
		}
		if !told(p, "Failed", "Error: "+message) {
			b.t.Errorf("no such event in %+v", p.Notes)
		}
	}
}

func secretKey(b *bed) {
	b.apply("secret-key", "apiVersion: v1\nkind: Secret\nmetadata: {name: secret-key}\ndata: {key: b2xk}\nstringData: {key: new}\n---\n"+
		settled("secret-key", "env: [{name: A, valueFrom: {secretKeyRef: {name: secret-key, key: key}}}, {name: B, value: '<$(A)>'}]"))
	b.wantEnv("secret-key", map[string]string{"A": "new", "B": "<new>"})
}

func envFrom(b *bed) {
	b.apply("env-from-map", settings("env-from", "value"))
	b.apply("env-from", settled("env-from", "envFrom: [{prefix: X_, configMapRef: {name: env-from}}, {secretRef: {name: absent, optional: true}}]"))
	b.wantEnv("env-from", map[string]string{"X_key": "value"})
}

func laterWins(b *bed) {
	b.apply("later", settings("later", "map")+"---\n"+settled("later", "envFrom: [{configMapRef: {name: later}}]\nenv: [{name: A, value: $(key)}, {name: key, value: env}, {name: B, value: $(key)}]"))
	b.wantEnv("later", map[string]string{"A": "map", "key": "env", "B": "env"})
}

func fields(b *bed) {
	env := "env:\n"
	for name, path := range map[string]string{"NAME": "metadata.name", "NS": "metadata.namespace", "UID_": "metadata.uid", "LABEL": "metadata.labels['app']",
		"NODE": "spec.nodeName", "IP": "status.podIP", "IPS": "status.podIPs", "HOST": "status.hostIP"} {
		env += "- {name: " + name + ", valueFrom: {fieldRef: {fieldPath: \"" + path + "\"}}}\n"
	}
	b.apply("fields", strings.Replace(settled("fields", env), "metadata: {name: fields}", "metadata: {name: fields, labels: {app: web}}", 1))
	p := b.ready("fields")
	b.wantEnv("fields", map[string]string{"NAME": p.Name, "NS": "default", "UID_": string(p.UID), "LABEL": "web", "NODE": "lab",
		"IP": p.Status.PodIP, "IPS": p.Status.PodIP, "HOST": p.Status.HostIP})
}

func nodeInPlaceOfLimit(b *bed) {
	b.apply("limitless", settled("limitless", "env:\n- {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}\n- {name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}"))
	got := b.environment("limitless")
	for _, name := range []string{"CPU", "MEM"} {
		if n, err := strconv.Atoi(got[name]); err != nil || n < 1 {
			b.t.Errorf("%s is %q, want what the node has", name, got[name])
		}
	}
}

func envFile(b *bed) {
	b.apply("env-file", strings.Replace(settled("env-file", "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: dir/a.env, key: A}}}]"), "  containers:",
		"  initContainers:\n  - name: writer\n    image: "+lab.BusyboxImage+"\n    volumeMounts: [{name: v, mountPath: /v}]\n    command: [sh, -c, \"mkdir /v/dir; echo \\\"A='from file' # x\\\" > /v/dir/a.env\"]\n  containers:", 1))
	b.wantEnv("env-file", map[string]string{"A": "from file"})
}

// fileLeadsOut: a link in the volume doesn't open a file of the host.
func fileLeadsOut(b *bed) {
	secret := filepath.Join(b.t.TempDir(), "host.env")
	b.must(os.WriteFile(secret, []byte("A='stolen'"), 0o600))
	b.apply("leads-out", strings.Replace(settled("leads-out", "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: link, key: A}}}]"), "  containers:",
		"  initContainers:\n  - name: writer\n    image: "+lab.BusyboxImage+"\n    volumeMounts: [{name: v, mountPath: /v}]\n    command: [ln, -s, "+secret+", /v/link]\n  containers:", 1))
	_, s := b.await("leads-out", "main", "waits", waitsFor("CreateContainerConfigError"))
	if !strings.Contains(s.State.Waiting.Message, "no such file") {
		b.t.Errorf("it says %q", s.State.Waiting.Message)
	}
}

// brokenFileKeepsIt: what a file gave before it was broken is still there.
func brokenFileKeepsIt(b *bed) {
	b.apply("kept-map", settings("kept", "value"))
	b.apply("kept", settled("kept", "envFrom: [{configMapRef: {name: kept}}]"))
	b.ready("kept")
	b.apply("kept-map", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {key: 5}\n")
	b.problem(filepath.Join(b.Manifests, "kept-map.yaml"), "ConfigMap default/kept: data.key")
	b.apply("kept-too", settled("kept-too", "envFrom: [{configMapRef: {name: kept}}]"))
	b.wantEnv("kept-too", map[string]string{"key": "value"})
}

// changeKeepsRunning: variables are of the start, and no change restarts.
func changeKeepsRunning(b *bed) {
	b.apply("steady-map", settings("steady", "old"))
	b.apply("steady", settled("steady", "envFrom: [{configMapRef: {name: steady}}]"))
	was := b.instances(string(b.ready("steady").UID))["main"]
	b.apply("steady-map", settings("steady", "new"))
	b.apply("steady-too", settled("steady-too", "envFrom: [{configMapRef: {name: steady}}]"))
	b.wantEnv("steady-too", map[string]string{"key": "new"})
	if now := b.instances(string(b.ready("steady").UID))["main"]; now != was {
		b.t.Errorf("instance %s became %s", was, now)
	}
	b.wantEnv("steady", map[string]string{"key": "old"})
}

// twoOfOneName: the first stays, the other file is told of.
func twoOfOneName(b *bed) {
	b.apply("double-b", settings("double", "first"))
	b.apply("double", settled("double", "envFrom: [{configMapRef: {name: double}}]"))
	b.ready("double")
	b.apply("double-a", settings("double", "second"))
	b.problem(filepath.Join(b.Manifests, "double-a.yaml"), "ConfigMap default/double: metadata.name: duplicate ConfigMap")
	b.apply("double-too", settled("double-too", "envFrom: [{configMapRef: {name: double}}]"))
	b.wantEnv("double-too", map[string]string{"key": "first"})
}

// secretIsNowhere: neither logs nor records nor what people are shown hold it.
func secretIsNowhere(b *bed) {
	const value = "s3cr3t-hunter2"
	b.apply("nowhere", "apiVersion: v1\nkind: Secret\nmetadata: {name: nowhere}\nstringData: {key: "+value+"}\n---\n"+
		settled("nowhere", "env: [{name: A, valueFrom: {secretKeyRef: {name: nowhere, key: key}}}]"))
	b.wantEnv("nowhere", map[string]string{"A": value})
	b.apply("nowhere-bad", "apiVersion: v1\nkind: Secret\nmetadata: {name: nowhere-bad}\nstringData: {a/b: "+value+"}\n")
	b.problem(filepath.Join(b.Manifests, "nowhere-bad.yaml"), "Secret default/nowhere-bad: data[a/b]")
	said := map[string]string{"log": b.agentLog(), "pods": b.say("pods"), "explain": b.say("explain", "default/nowhere-lab"), "JSON": b.say("pods", "-o", "json")}
	records, err := filepath.Glob(filepath.Join(b.Root, "nodeagent", "pods", "*"))
	b.must(err)
	for _, record := range records {
		if text, err := os.ReadFile(record); err == nil { // some come and go
			said[record] = string(text)
		}
	}
	if len(records) == 0 {
		b.t.Error("there are no records to look at")
	}
	for where, text := range said {
		if strings.Contains(text, value) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(value))) {
			b.t.Errorf("it is in %s", where)
		}
	}
}

// TestURLServesObjects: they may stand behind the URL too.
func TestURLServesObjects(t *testing.T) {
	b, w := newWebBed(t)
	w.serve(text(settings("web", "value") + "---\n" + settled("web", "envFrom: [{configMapRef: {name: web}}]")))
	b.start()
	b.wantEnv("web", map[string]string{"key": "value"})
}

// TestPullSecret: without it the registry says no and people are told what is
// missing; once it is there the image comes.
func TestPullSecret(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	r := b.registry(lab.RegistryOptions{User: "lab", Password: "right"})
	ref, _ := b.push(r, "private:1")
	b.start()
	b.apply("pull-secret", podOf("pull-secret", "imagePullSecrets: [{name: registry}]\ncontainers:\n- {name: main, image: '"+ref+"', command: [sh, -c, 'sleep 1000']}"))
	b.await("pull-secret", "main", "has no image", waitsFor("ErrImagePull"))
	if p := b.pod("pull-secret"); !told(p, "FailedToRetrieveImagePullSecret", "Unable to retrieve some image pull secrets (registry); attempting to pull the image may not succeed.") {
		t.Errorf("no such event in %+v", p.Notes)
	}
	auth := base64.StdEncoding.EncodeToString([]byte("lab:right"))
	b.apply("registry", "apiVersion: v1\nkind: Secret\nmetadata: {name: registry}\ntype: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: '{\"auths\":{\""+r.Host+"\":{\"auth\":\""+auth+"\"}}}'}\n")
	b.ready("pull-secret")
	if strings.Contains(b.agentLog(), auth) {
		t.Error("the password is in the log")
	}
}

// TestObjectComesLate: the container waits for the object, says so, and starts
// soon after it came.
func TestObjectComesLate(t *testing.T) {
	b := newBed(t, lab.Containerd2)
	b.start()
	b.apply("late", sleeper("late", "    env: [{name: FROM, valueFrom: {configMapKeyRef: {name: late, key: key}}}]"))
	_, s := b.await("late", "main", "waits for its ConfigMap", waitsFor("CreateContainerConfigError"))
	if want := `configmap "late" not found`; s.State.Waiting.Message != want {
		t.Errorf("it says %q, want %q", s.State.Waiting.Message, want)
	}
	began := time.Now()
	b.apply("late-map", settings("late", "value"))
	b.await("late", "main", "runs", func(s v1.ContainerStatus) bool { return s.State.Running != nil })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v after the object came", took)
	}
	if got := b.environment("late")["FROM"]; got != "value" {
		t.Errorf("FROM is %q", got)
	}
}
