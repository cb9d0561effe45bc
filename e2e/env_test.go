package e2e

import (
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
		"ConfigMapKey": configMapKey,
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

// configMapKey: a variable comes from an object in a file of its own, and the
// container waits for it when it comes later.
func configMapKey(b *bed) {
	b.apply("late", sleeper("late", "    env: [{name: FROM, valueFrom: {configMapKeyRef: {name: late, key: key}}}]"))
	_, s := b.await("late", "main", "waits for its ConfigMap", waitsFor("CreateContainerConfigError"))
	if want := `configmap "late" not found`; s.State.Waiting.Message != want {
		b.t.Errorf("it says %q, want %q", s.State.Waiting.Message, want)
	}
	began := time.Now()
	b.apply("late-map", settings("late", "value"))
	b.await("late", "main", "runs", func(s v1.ContainerStatus) bool { return s.State.Running != nil })
	if took := time.Since(began); took > time.Second {
		b.t.Errorf("it took %v after the object came", took)
	}
	if got := b.environment("late")["FROM"]; got != "value" {
		b.t.Errorf("FROM is %q", got)
	}
}
