package env

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/objects"
)

// node is a node whose store has the ConfigMap c and the Secret s.
func node() Resolver {
	store := &objects.Store{}
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "ns", Name: name} }
	store.Replace("test", []objects.Object{
		&v1.ConfigMap{ObjectMeta: meta("c"), Data: map[string]string{"A": "a", "b.c-d": "$(A)", "EMPTY": ""}, BinaryData: map[string][]byte{"BIN": []byte("x")}},
		&v1.Secret{ObjectMeta: meta("s"), Data: map[string][]byte{"A": []byte("hidden"), "NUL": []byte("x\x00"), "ODD": {0xff}}},
		&v1.Secret{ObjectMeta: meta("plain"), Data: map[string][]byte{"A": []byte("hidden")}},
	})
	return Resolver{
		Objects:     store,
		Allocatable: v1.ResourceList{"cpu": resource.MustParse("3500m"), "memory": resource.MustParse("4Gi"), "ephemeral-storage": resource.MustParse("10Gi"), "hugepages-2Mi": resource.MustParse("8Mi")},
	}
}

func podFor() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "uid", Labels: map[string]string{"app": "web", "a/b": "c"}, Annotations: map[string]string{"note": "x\ny"}},
		Spec:       v1.PodSpec{NodeName: "node1", ServiceAccountName: "account"},
	}
}

func read[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// list shows variables in their order.
func list(vars []Var) string {
	var out []string
	for _, v := range vars {
		out = append(out, v.Name+"="+v.Value)
	}
	return strings.Join(out, " ")
}

// TestVariablesAreBounded makes each variable ten times the one before: the
// agent must not grow with them.
func TestVariablesAreBounded(t *testing.T) {
	c := v1.Container{Env: []v1.EnvVar{{Name: "V0", Value: "0123456789"}}}
	for i := range 12 {
		c.Env = append(c.Env, v1.EnvVar{Name: fmt.Sprintf("V%d", i+1), Value: strings.Repeat(fmt.Sprintf("$(V%d)", i), 10)})
	}
	_, err := node().Container(podFor(), &c, Surroundings{})
	if want := "variables up to V6: they would have more than 8 MiB"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	many := v1.Container{}
	for i := range 9 {
		many.Env = append(many.Env, v1.EnvVar{Name: fmt.Sprintf("M%d", i), ValueFrom: &v1.EnvVarSource{
			FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.annotations['big']"}}})
	}
	p := podFor()
	p.Annotations["big"] = strings.Repeat("x", 1<<20)
	if _, err := node().Container(p, &many, Surroundings{}); err == nil {
		t.Error("9 MiB of variables are taken")
	}
}

// TestContainer is what a container in YAML finds, or the error, exactly.
func TestContainer(t *testing.T) {
	for container, want := range map[string]string{
		"{}": "",
		"env: [{name: A, value: a}, {name: B, value: '$(A)$(C)'}, {name: C, value: c}]":                                     "A=a B=a$(C) C=c",
		"env: [{name: A, value: a}, {name: B}, {name: A, value: '$(A)b'}]":                                                  "A=ab B=",
		"env: [{name: A, value: '$$(A)'}]":                                                                                  "A=$(A)",
		"envFrom: [{configMapRef: {name: c}}]":                                                                              "A=a EMPTY= b.c-d=$(A)",
		"envFrom: [{prefix: X_, configMapRef: {name: c}}]":                                                                  "X_A=a X_EMPTY= X_b.c-d=$(A)",
		"envFrom: [{configMapRef: {name: c}}, {secretRef: {name: plain}}]":                                                  "A=hidden EMPTY= b.c-d=$(A)",
		"{envFrom: [{configMapRef: {name: c}}], env: [{name: B, value: '$(A)'}, {name: A, value: z}]}":                      "A=z EMPTY= b.c-d=$(A) B=a",
		"envFrom: [{configMapRef: {name: none, optional: true}}, {secretRef: {name: none, optional: true}}]":                "",
		"envFrom: [{configMapRef: {name: none}}]":                                                                           `error: configmap "none" not found`,
		"envFrom: [{secretRef: {name: none, optional: false}}]":                                                             `error: secret "none" not found`,
		"envFrom: [{secretRef: {name: s}}]":                                                                                 "error: variable NUL: its value is not text (UTF-8 without NUL): mount it as a volume instead",
		"env: [{name: V, valueFrom: {configMapKeyRef: {name: c, key: b.c-d}}}]":                                             "V=$(A)",
		"env: [{name: V, valueFrom: {configMapKeyRef: {name: c, key: EMPTY}}}]":                                             "V=",
		"env: [{name: V, valueFrom: {configMapKeyRef: {name: c, key: BIN}}}]":                                               "error: couldn't find key BIN in ConfigMap ns/c",
		"env: [{name: V, valueFrom: {configMapKeyRef: {name: c, key: none, optional: true}}}]":                              "",
		"env: [{name: V, valueFrom: {configMapKeyRef: {name: none, key: none, optional: true}}}]":                           "",
		"env: [{name: V, valueFrom: {configMapKeyRef: {name: none, key: none}}}]":                                           `error: configmap "none" not found`,
		"env: [{name: V, valueFrom: {secretKeyRef: {name: s, key: A}}}, {name: W, value: '<$(V)>'}]":                        "V=hidden W=<hidden>",
		"env: [{name: V, valueFrom: {secretKeyRef: {name: s, key: none}}}]":                                                 "error: couldn't find key none in Secret ns/s",
		"env: [{name: V, valueFrom: {secretKeyRef: {name: s, key: none, optional: true}}}, {name: W, value: '$(V)'}]":       "W=$(V)",
		"env: [{name: V, valueFrom: {secretKeyRef: {name: s, key: ODD}}}]":                                                  "error: variable V: its value is not text (UTF-8 without NUL): mount it as a volume instead",
		"env: [{name: V, value: set}, {name: V, valueFrom: {secretKeyRef: {name: none, key: none, optional: true}}}]":       "V=set",
		"env: [{name: V, valueFrom: {fieldRef: {fieldPath: spec.x}}}]":                                                      `error: fieldRef: unsupported fieldPath "spec.x"`,
		"env: [{name: V, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}]":                                               "V=10.1.0.2,fd00::2",
		"{name: m, resources: {limits: {cpu: 2}}, env: [{name: V, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]}": "V=2",
		"env: [{name: V, valueFrom: {}}]":                                                                                   "error: valueFrom names no source",
	} {
		c := read[v1.Container](t, container)
		vars, err := node().Container(podFor(), &c, Surroundings{PodIPs: []string{"fd00::2", "10.1.0.2", "10.1.0.3"}})
		got := list(vars)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", container, got, want)
		}
	}
}

func TestField(t *testing.T) {
	for path, want := range map[string]string{
		"metadata.name": "p", "metadata.namespace": "ns", "metadata.uid": "uid",
		"metadata.labels['app']": "web", "metadata.labels['a/b']": "c", "metadata.labels['no']": "", "metadata.annotations['note']": "x\ny",
		"metadata.labels": "a/b=\"c\"\napp=\"web\"", "metadata.annotations": `note="x\ny"`,
		"spec.nodeName": "node1", "spec.serviceAccountName": "account",
		"status.hostIP": "10.0.0.1", "status.hostIPs": "10.0.0.1,fd00::1",
		"status.podIP": "10.1.0.2", "status.podIPs": "10.1.0.2,fd00::2",
		"spec.x": "error", "metadata.labels['x'": "error",
	} {
		got, err := Field(podFor(), path, Surroundings{PodIPs: []string{"fd00::2", "10.1.0.2"}, HostIPs: []string{"10.0.0.1", "fd00::1"}})
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
}

// TestPodIPs: the family of the node's primary address comes first, a pod in the
// host's network has the node's.
func TestPodIPs(t *testing.T) {
	for _, c := range []struct {
		hosts, given []string
		hostNetwork  bool
		want         string
	}{
		{nil, []string{"fd00::2", "10.1.0.2"}, false, "10.1.0.2,fd00::2"},
		{[]string{"fd00::1"}, []string{"10.1.0.2", "fd00::2", "fd00::3"}, false, "fd00::2,10.1.0.2"},
		{[]string{"10.0.0.1"}, []string{"fd00::2"}, false, "fd00::2"},
		{[]string{"10.0.0.1"}, nil, false, ""},
		{[]string{"10.0.0.1", "fd00::1"}, nil, true, "10.0.0.1,fd00::1"},
		{[]string{"10.0.0.1"}, []string{"not one"}, false, ""},
	} {
		p := podFor()
		p.Spec.HostNetwork = c.hostNetwork
		if got, err := Field(p, "status.podIPs", Surroundings{PodIPs: c.given, HostIPs: c.hosts}); got != c.want || err != nil {
			t.Errorf("on %v with %v: %q, %v; want %q", c.hosts, c.given, got, err, c.want)
		}
	}
}

func TestResource(t *testing.T) {
	spec := read[v1.PodSpec](t, `
containers:
- {name: full, resources: {limits: {cpu: 1500m, memory: 100Mi, ephemeral-storage: 1Gi, hugepages-2Mi: 4Mi}, requests: {cpu: 10m, memory: 1}}}
- {name: bare, resources: {limits: {cpu: 0}}}
initContainers: [{name: init}]`)
	pods := map[string]*v1.ResourceRequirements{"": nil, "pod ": {Limits: v1.ResourceList{"cpu": resource.MustParse("2"), "ephemeral-storage": resource.MustParse("1")}}}
	for of, want := range map[string]string{
		"full limits.cpu": "2", "full limits.cpu 1m": "1500", "full limits.memory 1Mi": "100", "full limits.memory": "104857600", "full limits.memory 1G": "1",
		"full limits.ephemeral-storage 1Gi": "1", "full limits.hugepages-2Mi 1Mi": "4", "full requests.cpu": "1", "full requests.cpu 1m": "10", "full requests.memory 1Ki": "1",
		"full requests.hugepages-2Mi": "0", "full requests.ephemeral-storage": "0",
		"bare limits.cpu": "4", "bare limits.cpu 1m": "3500", "bare limits.memory 1Gi": "4", "bare limits.ephemeral-storage 1Gi": "10",
		"bare limits.hugepages-2Mi": "0", "bare requests.cpu": "0", "init limits.memory 1Gi": "4",
		"pod bare limits.cpu": "2", "pod full limits.cpu 1m": "1500", "pod bare limits.memory 1Gi": "4", "pod bare limits.ephemeral-storage 1Gi": "10",
		"bare limits.pods": "error", "bare limits.nvidia.com/gpu": "error", "bare x.cpu": "error", "bare cpu": "error", "absent limits.cpu": "error",
	} {
		p := podFor()
		p.Spec = spec
		words := of
		if rest, ok := strings.CutPrefix(of, "pod "); ok {
			p.Spec.Resources, words = pods["pod "], rest
		}
		f := append(strings.Fields(words), "0")
		got, err := node().Resource(p, nil, &v1.ResourceFieldSelector{ContainerName: f[0], Resource: f[1], Divisor: resource.MustParse(f[2])})
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %s, %v; want %s", of, got, err, want)
		}
	}
}

func service(namespace, name, ip string, ports ...v1.ServicePort) *v1.Service {
	return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1.ServiceSpec{ClusterIP: ip, Ports: ports}}
}

func TestServiceVars(t *testing.T) {
	all := []*v1.Service{
		service("ns", "db-main", "10.0.0.9", v1.ServicePort{Name: "sql", Port: 5432}, v1.ServicePort{Name: "up-date", Port: 53, Protocol: "UDP"}),
		service("default", "kubernetes", "10.0.0.1", v1.ServicePort{Name: "https", Port: 443, Protocol: "TCP"}),
		service("ns", "kubernetes", "10.0.0.2", v1.ServicePort{Port: 1}),
		service("ns", "headless", "None", v1.ServicePort{Port: 1}), service("ns", "elsewhere", ""), service("other", "db", "10.0.0.3", v1.ServicePort{Port: 1}),
		service("ns", "six", "fd00::6", v1.ServicePort{Port: 80}),
	}
	own := "KUBERNETES_SERVICE_HOST=10.0.0.1 KUBERNETES_SERVICE_PORT=443 KUBERNETES_SERVICE_PORT_HTTPS=443 KUBERNETES_PORT=tcp://10.0.0.1:443 " +
		"KUBERNETES_PORT_443_TCP=tcp://10.0.0.1:443 KUBERNETES_PORT_443_TCP_PROTO=tcp KUBERNETES_PORT_443_TCP_PORT=443 KUBERNETES_PORT_443_TCP_ADDR=10.0.0.1"
	if got := list(ServiceVars(all, "ns", false)); got != own {
		t.Errorf("without links: %s", got)
	}
	want := "DB_MAIN_SERVICE_HOST=10.0.0.9 DB_MAIN_SERVICE_PORT=5432 DB_MAIN_SERVICE_PORT_SQL=5432 DB_MAIN_SERVICE_PORT_UP_DATE=53 DB_MAIN_PORT=tcp://10.0.0.9:5432 " +
		"DB_MAIN_PORT_5432_TCP=tcp://10.0.0.9:5432 DB_MAIN_PORT_5432_TCP_PROTO=tcp DB_MAIN_PORT_5432_TCP_PORT=5432 DB_MAIN_PORT_5432_TCP_ADDR=10.0.0.9 " +
		"DB_MAIN_PORT_53_UDP=udp://10.0.0.9:53 DB_MAIN_PORT_53_UDP_PROTO=udp DB_MAIN_PORT_53_UDP_PORT=53 DB_MAIN_PORT_53_UDP_ADDR=10.0.0.9 " + own +
		" SIX_SERVICE_HOST=fd00::6 SIX_SERVICE_PORT=80 SIX_PORT=tcp://[fd00::6]:80 SIX_PORT_80_TCP=tcp://[fd00::6]:80 SIX_PORT_80_TCP_PROTO=tcp SIX_PORT_80_TCP_PORT=80 SIX_PORT_80_TCP_ADDR=fd00::6"
	if got := list(ServiceVars(all, "ns", true)); got != want {
		t.Errorf("with links: %s", got)
	}
}

// TestServicesComeLast: what the spec sets wins, and $(NAME) falls back on them.
func TestServicesComeLast(t *testing.T) {
	r := node()
	r.Services = func(*v1.Pod) ([]*v1.Service, error) {
		return []*v1.Service{service("ns", "db", "10.0.0.9", v1.ServicePort{Port: 1})}, nil
	}
	c := read[v1.Container](t, "env: [{name: URL, value: 'db://$(DB_SERVICE_HOST)'}, {name: DB_SERVICE_HOST, value: mine}, {name: LATER, value: $(DB_SERVICE_HOST)}]")
	vars, err := r.Container(podFor(), &c, Surroundings{})
	if got := list(vars); err != nil || !strings.HasPrefix(got, "URL=db://10.0.0.9 DB_SERVICE_HOST=mine LATER=mine DB_SERVICE_PORT=1 ") {
		t.Errorf("got %s, %v", got, err)
	}
	r.Services = func(*v1.Pod) ([]*v1.Service, error) { return nil, errors.New("have not been listed yet") }
	if _, err := r.Container(podFor(), &c, Surroundings{}); err == nil || !strings.Contains(err.Error(), "not been listed") {
		t.Errorf("without services: %v", err)
	}
}

func TestFileVar(t *testing.T) {
	for _, c := range []struct{ text, name, want string }{
		{"A='a'\n", "A", "a"},
		{"A='a'", "A", "a"},
		{"\n  \t\n# A='no'\n \tA='$(B) \"x\" \\n' # why\nB='b'\n", "A", `$(B) "x" \n`},
		{"A='a'\nA='b'\n", "A", "a"},
		{"A='one\n  two\n'\nB='b'", "A", "one\n  two\n"},
		{"A='one\n  two\n'\nB='b'", "B", "b"},
		{"A='B=\n'\nB='b'", "B", "b"},
		{"A='a'\r\nB='b\r\nc'\r", "B", "b\nc"},
		{"A= 'a'\nB='b'\n", "A", ""},
		{"A= 'a'\nB='b'\n", "B", "b"},
		{"A=''\n", "A", ""},
		{"export A='a'\n", "A", ""},
		{"A='a'\n", "B", ""},
		{"", "A", ""},
		{"A='a'#b\nnonsense", "A", "a"},
		{"A='a'\nnonsense", "B", "error: line 2: missing '='"},
		{"nonsense", "A", "error: line 1: missing '='"},
		{"='a'", "A", "error: line 1: empty variable name"},
		{" ='a'", "A", "error: line 1: empty variable name"},
		{"A ='a'", "A", "error: line 1: whitespace before '=' is not allowed"},
		{"A=a", "A", "error: line 1: value must be enclosed in single quotes"},
		{"A=", "A", "error: line 1: value must be enclosed in single quotes"},
		{"A=\n'a'", "A", "error: line 1: value must be enclosed in single quotes"},
		{"A=\"a\"", "A", "error: line 1: value must be enclosed in single quotes"},
		{"A='a' b", "A", "error: line 1: unexpected content after closing quote"},
		{"A='a''b'", "A", "error: line 1: unexpected content after closing quote"},
		{"B='\n\n'\nA='a", "A", "error: line 4: unclosed single quote"},
	} {
		got, err := FileVar(c.text, c.name)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want {
			t.Errorf("%s in %q: %q, want %q", c.name, c.text, got, c.want)
		}
	}
}

// FuzzFileVar writes what it read and reads it again; errors show nothing.
func FuzzFileVar(f *testing.F) {
	for _, text := range []string{"A='a'\n", "# c\nB='b\nc' # d\nA='x'", "A= 'a'", "A='a", "A ='a'", "\r\nA='\r\n'\r", "="} {
		f.Add(text, "A")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		value, err := FileVar(text, name)
		if err != nil {
			if value != "" {
				t.Errorf("%q beside %v", value, err)
			}
			return
		}
		if strings.Contains(value, "'") || !strings.Contains(strings.ReplaceAll(text, "\r\n", "\n"), value) {
			t.Errorf("%q is not in %q", value, text)
		}
		if value == "" || strings.ContainsAny(name, "=\n\r#") || strings.Trim(name, " \t") != name {
			return
		}
		if again, err := FileVar(fmt.Sprintf("%s='%s'\n", name, value), name); err != nil || again != strings.ReplaceAll(value, "\r\n", "\n") {
			t.Errorf("%q became %q, %v", value, again, err)
		}
	})
}

// TestFileKey reads files that a container wrote into a volume.
func TestFileKey(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	dir := t.TempDir()
	for name, text := range map[string]string{outside: "A='stolen'", dir + "/a.env": "A='a'\nEMPTY=''\n", dir + "/bad.env": "hunter2", dir + "/large.env": strings.Repeat("#", maxFile+1)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"out": outside, "up": "../" + filepath.Base(filepath.Dir(outside)) + "/outside", "in": "/a.env", "loop": "loop", "proc": "/proc/self/fd/0"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, key string
		optional  bool
		want      string // "absent": no variable
	}{
		{"a.env", "A", false, "a"},
		{"in", "A", false, "a"},
		{"a.env", "no", false, `error: environment variable key "no" not found in file "a.env"`},
		{"a.env", "EMPTY", false, "error: environment variable key"},
		{"a.env", "no", true, "absent"},
		{"no.env", "A", true, "absent"},
		{"no.env", "A", false, "error: couldn't parse env file no.env of volume v: open the file: no such file"},
		{"bad.env", "A", true, "error: couldn't parse env file bad.env of volume v: line 1: missing '='"},
		{"large.env", "A", false, "error: couldn't parse env file large.env of volume v: it has more than 2 MiB"},
		{"out", "A", false, "error: couldn't parse env file out"},
		{"up", "A", false, "error: couldn't parse env file up"},
		{"../outside", "A", false, "error: couldn't parse env file"},
		{"loop", "A", false, "error: couldn't parse env file loop"},
		{"proc", "A", false, "error: couldn't parse env file proc"},
		{"folder", "A", false, "error: couldn't parse env file folder of volume v: it is no regular file"},
	} {
		k := v1.Container{Env: []v1.EnvVar{{Name: "V", ValueFrom: &v1.EnvVarSource{FileKeyRef: &v1.FileKeySelector{VolumeName: "v", Path: c.path, Key: c.key, Optional: &c.optional}}}}}
		vars, err := node().Container(podFor(), &k, Surroundings{Volumes: map[string]string{"v": dir}})
		got := "absent"
		switch {
		case err != nil:
			got = "error: " + err.Error()
		case len(vars) > 0:
			got = vars[0].Value
		}
		if got != c.want && (!strings.HasPrefix(c.want, "error") || !strings.HasPrefix(got, c.want)) || strings.Contains(got, "hunter2") {
			t.Errorf("%s of %s: %q, want %q", c.key, c.path, got, c.want)
		}
	}
	k := v1.Container{Env: []v1.EnvVar{{Name: "V", ValueFrom: &v1.EnvVarSource{FileKeyRef: &v1.FileKeySelector{VolumeName: "no", Path: "a", Key: "A"}}}}}
	if _, err := node().Container(podFor(), &k, Surroundings{}); err == nil || err.Error() != `cannot find the volume "no" referenced by FileKeyRef` {
		t.Errorf("without a volume: %v", err)
	}
}
