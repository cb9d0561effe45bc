package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/e2e/lab"
)

// TestClusterObjects is what pods of an apiserver see of the objects that they
// refer to, with the rights of a node and no others.
func TestClusterObjects(t *testing.T) {
	j := joinedBed(t, cluster(t), lab.Containerd2)
	j.join()
	t.Run("pods", func(t *testing.T) {
		for name, test := range map[string]func(*joined){
			"VolumesFollow":       volumesFollow,
			"VariablesOfBoth":     variablesOfBoth,
			"SecretComesLate":     secretComesLate,
			"VolumeComesLate":     volumeComesLate,
			"NothingIsMissed":     nothingIsMissed,
			"ImmutableIsReadOnce": immutableIsReadOnce,
			"ServiceVariables":    serviceVariables,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(j.in(t))
			})
		}
	})
	t.Run("NoRightIsMissing", func(t *testing.T) { noRightIsMissing(j.in(t)) })
}

// put makes a ConfigMap, or gives it another value.
func (j *joined) put(m *v1.ConfigMap) {
	j.t.Helper()
	maps := j.client.CoreV1().ConfigMaps(j.ns)
	_, err := maps.Update(j.t.Context(), m, metav1.UpdateOptions{})
	if err != nil {
		_, err = maps.Create(j.t.Context(), m, metav1.CreateOptions{})
	}
	j.must(err)
}

func clusterMap(name, value string) *v1.ConfigMap {
	return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"key": value}}
}

func (j *joined) secret(name, value string) {
	j.t.Helper()
	_, err := j.client.CoreV1().Secrets(j.ns).Create(j.t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"key": value}}, metav1.CreateOptions{})
	j.must(err)
}

// inside runs a command in the pod's only container.
func (j *joined) inside(p *v1.Pod, command ...string) string {
	j.t.Helper()
	return j.exec(strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://"), command...)
}

// variables are those of the pod's container whose names have the ending.
func (j *joined) variables(p *v1.Pod, ending string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(j.inside(p, "env")) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), "="); strings.HasSuffix(name, ending) {
			out[name] = value
		}
	}
	return out
}

// warnings are the events about a pod that warn of something.
func (j *joined) warnings(pod string) (out []string) {
	j.t.Helper()
	events, err := j.client.CoreV1().Events(j.ns).List(j.t.Context(), metav1.ListOptions{FieldSelector: "type=Warning,involvedObject.name=" + pod})
	j.must(err)
	for _, e := range events.Items {
		out = append(out, e.Reason+": "+e.Message)
	}
	return out
}

const twoVolumes = `dnsPolicy: Default
volumes: [{name: m, configMap: {name: NAME}}, {name: s, secret: {secretName: NAME}}]
terminationGracePeriodSeconds: 1
containers:
- name: main
  image: BUSYBOX
  command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]
  volumeMounts: [{name: m, mountPath: /m}, {name: s, mountPath: /s}]`

// withEnv is a pod that sleeps, with variables.
func withEnv(name, more string) string {
	return podOf(name, "dnsPolicy: Default\nterminationGracePeriodSeconds: 1\ncontainers:\n- name: main\n  image: BUSYBOX\n"+
		`  command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]`+"\n"+more)
}

func volumesFollow(j *joined) {
	j.put(clusterMap("follow", "one"))
	j.secret("follow", "hidden")
	j.create(podOf("follow", strings.ReplaceAll(twoVolumes, "NAME", "follow")))
	p := j.waitReady("follow")
	if got := j.inside(p, "cat", "/m/key", "/s/key"); got != "onehidden" {
		j.t.Errorf("volumes show %q", got)
	}
	j.put(clusterMap("follow", "two"))
	began := time.Now()
	j.eventually("the volume shows the change", 30*time.Second, func() error {
		if got := j.inside(p, "cat", "/m/key"); got != "two" {
			return fmt.Errorf("it shows %q", got)
		}
		return nil
	})
	j.t.Logf("a change was seen in the container after %v", time.Since(began).Round(time.Millisecond))
}

func variablesOfBoth(j *joined) {
	j.put(clusterMap("both", "open"))
	j.secret("both", "hidden")
	j.create(withEnv("both", "  envFrom: [{prefix: FROM_, configMapRef: {name: both}}]\n  env: [{name: OF_key, valueFrom: {secretKeyRef: {name: both, key: key}}}]"))
	if got := j.variables(j.waitReady("both"), "_key"); got["FROM_key"] != "open" || got["OF_key"] != "hidden" {
		j.t.Errorf("variables: %v", got)
	}
}

func secretComesLate(j *joined) {
	j.create(withEnv("late", "  env: [{name: A, valueFrom: {secretKeyRef: {name: late, key: key}}}]"))
	j.waitPod("late", "says what is missing", func(p *v1.Pod) bool {
		if p == nil || len(p.Status.ContainerStatuses) == 0 {
			return false
		}
		w := p.Status.ContainerStatuses[0].State.Waiting
		return w != nil && w.Reason == "CreateContainerConfigError" && w.Message == `secret "late" not found`
	})
	j.secret("late", "x")
	began := time.Now()
	j.waitReady("late")
	if d := time.Since(began); d > 5*time.Second {
		j.t.Errorf("Ready only %v after the secret came", d)
	}
}

func volumeComesLate(j *joined) {
	j.secret("volume", "x")
	j.create(podOf("volume", strings.ReplaceAll(twoVolumes, "NAME", "volume")))
	j.eventually("an event says what is missing", 30*time.Second, func() error {
		for _, w := range j.warnings("volume") {
			if strings.HasPrefix(w, "FailedMount: ") && strings.Contains(w, `configmap "volume" not found`) {
				return nil
			}
		}
		return fmt.Errorf("events: %v", j.warnings("volume"))
	})
	j.put(clusterMap("volume", "x"))
	began := time.Now()
	j.waitReady("volume")
	if d := time.Since(began); d > 5*time.Second {
		j.t.Errorf("Ready only %v after the ConfigMap came", d)
	}
}

// nothingIsMissed: what is there when the pod comes is never said to be missing.
func nothingIsMissed(j *joined) {
	const n = 12
	for i := range n {
		name := fmt.Sprint("burst-", i)
		j.put(clusterMap(name, name))
		j.secret(name, name)
	}
	var all strings.Builder
	for i := range n {
		all.WriteString(podOf(fmt.Sprint("burst-", i), strings.ReplaceAll(twoVolumes, "NAME", fmt.Sprint("burst-", i))) + "---\n")
	}
	j.create(all.String())
	for i := range n {
		name := fmt.Sprint("burst-", i)
		j.waitReady(name)
		if w := j.warnings(name); len(w) > 0 {
			j.t.Errorf("%s: %v", name, w)
		}
	}
}

// immutableIsReadOnce: what cannot change is not watched.
func immutableIsReadOnce(j *joined) {
	m := clusterMap("fixed", "x")
	m.Immutable = ptr.To(true)
	j.put(m)
	j.create(withEnv("fixed", "  envFrom: [{configMapRef: {name: fixed}}]"))
	if got := j.variables(j.waitReady("fixed"), "key"); got["key"] != "x" {
		j.t.Errorf("variables: %v", got)
	}
	j.eventually("its watch ends", 30*time.Second, func() error {
		ended, err := j.plane.Requests(func(r lab.Request) bool {
			return r.Resource == "configmaps" && r.Namespace == j.ns && r.Name == "fixed" && r.Stage == "ResponseComplete"
		})
		j.must(err)
		if len(ended) == 0 {
			return fmt.Errorf("it goes on")
		}
		return nil
	})
}

func serviceVariables(j *joined) {
	s, err := j.client.CoreV1().Services(j.ns).Create(j.t.Context(), &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "near-by"},
		Spec: v1.ServiceSpec{Ports: []v1.ServicePort{{Name: "web", Port: 80}}}}, metav1.CreateOptions{})
	j.must(err)
	j.create(spec("links", "") + "---\n" + spec("nolinks", "enableServiceLinks: false"))
	got := j.variables(j.waitReady("links"), "")
	for name, want := range map[string]string{
		"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "NEAR_BY_SERVICE_HOST": s.Spec.ClusterIP,
		"NEAR_BY_SERVICE_PORT_WEB": "80", "NEAR_BY_PORT": "tcp://" + s.Spec.ClusterIP + ":80",
	} {
		if got[name] != want {
			j.t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	got = j.variables(j.waitReady("nolinks"), "_SERVICE_HOST")
	if len(got) != 1 || got["KUBERNETES_SERVICE_HOST"] != "10.96.0.1" {
		j.t.Errorf("without links: %v", got)
	}
}

// noRightIsMissing: nothing was asked for that a node may not have, and no
// object that is not referred to. The node authorizer may learn of a pod a
// moment after the node: such a request is granted when it is made again.
func noRightIsMissing(j *joined) {
	asked, err := j.plane.Requests(func(r lab.Request) bool { return r.User == "system:node:"+j.Node })
	j.must(err)
	granted := func(refused lab.Request) bool {
		return slices.ContainsFunc(asked, func(r lab.Request) bool {
			again := r.Code == 200 && r.Resource == refused.Resource && r.Name == refused.Name && r.Namespace == refused.Namespace &&
				r.Time.After(refused.Time) && r.Time.Before(refused.Time.Add(time.Second))
			if again {
				j.t.Logf("%s of %s %s: too early by %v at most", refused.Verb, r.Resource, r.Name, r.Time.Sub(refused.Time))
			}
			return again
		})
	}
	objects, early := 0, 0
	for _, r := range asked {
		object := r.Resource == "configmaps" || r.Resource == "secrets"
		switch {
		case r.Stage != "ResponseComplete" && r.Code == 403: // comes once more
		case r.Code == 403 && object && granted(r):
			early++
		case r.Code == 403:
			j.t.Errorf("forbidden: %s %s", r.Verb, r.URI)
		case object && r.Name == "":
			j.t.Errorf("not by name: %s %s", r.Verb, r.URI)
		case r.Resource == "pods" && (r.Verb == "list" || r.Verb == "watch") && !strings.Contains(r.URI, "spec.nodeName%3D"+j.Node):
			j.t.Errorf("others' pods: %s %s", r.Verb, r.URI)
		case object:
			objects++
		}
	}
	j.t.Logf("%d requests for objects, %d too early", objects, early)
	if objects == 0 || early > objects/4 {
		j.t.Error("want some, and few too early")
	}
}
