package source

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/objects"
)

// mapYAML is a ConfigMap of one key.
func mapYAML(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {key: %s}\n", name, value)
}

func keys(list []Given) string {
	var all []string
	for _, g := range list {
		all = append(all, keyOfGiven(g).String())
	}
	return strings.Join(all, ", ")
}

func TestObjectsAreTaken(t *testing.T) {
	text := mapYAML("c", "v") + `---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: other}
immutable: true
data: {a: b2xk, b: Yg==}
stringData: {a: new}
---
apiVersion: v1
kind: List
items:
- apiVersion: node.k8s.io/v1
  kind: RuntimeClass
  metadata: {name: r}
  handler: runc
  overhead: {podFixed: {memory: 10Mi}}
---
` + podYAML("one", "a:1")
	got := here.decode([]byte(text))
	if want := "ConfigMap default/c, Secret other/s, RuntimeClass r"; keys(got.objects) != want || names(got) == "" || len(got.problems) > 0 {
		t.Fatalf("got %s, want %s; pods %q, problems %v", keys(got.objects), want, names(got), got.problems)
	}
	s := got.objects[1].Object.(*v1.Secret)
	if string(s.Data["a"]) != "new" || string(s.Data["b"]) != "b" || s.StringData != nil || s.Type != v1.SecretTypeOpaque {
		t.Errorf("the secret is %v of type %s", s.Data, s.Type)
	}
}

func TestObjectsAloneAreNoProblem(t *testing.T) {
	if got := here.decode([]byte(mapYAML("c", "v"))); got.unsure() || len(got.objects) != 1 {
		t.Errorf("got %s, problems %v", keys(got.objects), got.problems)
	}
}

// TestObjectsAreRefused names object and field, and no value. None puts pods of
// the origin in doubt.
func TestObjectsAreRefused(t *testing.T) {
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
	for name, c := range map[string]struct{ text, object, field, says string }{
		"unknown field": {mapYAML("c", "v") + "extra: hunter2\n", "ConfigMap default/c", "extra", "unknown field"},
		"number":        {mapYAML("c", "4242"), "ConfigMap default/c", "data.key", "cannot unmarshal number"},
		"bad name":      {mapYAML("C", "v"), "ConfigMap default/C", "metadata.name", "Invalid value"},
		"no name":       {"apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a}\n", "ConfigMap", "metadata.name", "Required"},
		"bad namespace": {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: a/b}\n", "ConfigMap a/b/c", "metadata.namespace", "Invalid value"},
		"bad key":       {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a/b: hunter2}\n", "ConfigMap default/c", "data[a/b]", "Invalid value"},
		"both":          {mapYAML("c", "hunter2") + "binaryData: {key: aHVudGVyMg==}\n", "ConfigMap default/c", "data[key]", "binaryData too"},
		"large":         {mapYAML("c", strings.Repeat("a", 1<<20+1)), "ConfigMap default/c", "data", "Too long"},
		"base64":        {secret + "data: {key: hunter2!}\n", "Secret default/s", "data.key", "illegal base64"},
		"number, too":   {secret + "stringData: {key: 4242}\n", "Secret default/s", "stringData.key", "cannot unmarshal number"},
		"docker config": {secret + "type: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: hunter2}\n", "Secret default/s", "data[.dockerconfigjson]", "JSON object"},
		"tls":           {secret + "type: kubernetes.io/tls\nstringData: {tls.crt: hunter2}\n", "Secret default/s", "data[tls.key]", "Required"},
		"handler":       {"apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: r}\n", "RuntimeClass r", "handler", "Required"},
		"in a list":     {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}, stringdata: {a: hunter2}}\n", "Secret default/s", "items[0].stringdata", "unknown field"},
	} {
		t.Run(name, func(t *testing.T) {
			got := here.decode([]byte(c.text))
			if len(got.problems) != 1 || len(got.objects) > 0 {
				t.Fatalf("got %s, problems %v", keys(got.objects), got.problems)
			}
			p := got.problems[0]
			if p.Object != c.object || p.Field != c.field || !strings.Contains(p.Message, c.says) || got.held() {
				t.Errorf("got %v (held: %v), want %s: %s: %s", p.Error(), got.held(), c.object, c.field, c.says)
			}
			if strings.Contains(p.Error(), "hunter2") || strings.Contains(p.Error(), "4242") {
				t.Errorf("it shows a value: %v", p.Error())
			}
		})
	}
}

// TestBrokenYAMLShowsNoSecret has values that the parser's errors quote.
func TestBrokenYAMLShowsNoSecret(t *testing.T) {
	for _, value := range []string{"*hunter2", "!!float hunter2", "'hunter2", "{hunter2", "hunter2: hunter2: a", "&a {k: *a, v: *hunter2}", "\"\\hunter2\""} {
		text := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n  hunter2: a\n  b: " + value + "\n"
		got := here.decode([]byte(text))
		if len(got.problems) == 0 {
			t.Errorf("%s is taken", value)
		}
		for _, p := range got.problems {
			if strings.Contains(p.Error(), "hunter2") {
				t.Errorf("%s: %v", value, p.Error())
			}
		}
	}
}

func TestJoinedTakesNoObjects(t *testing.T) {
	joined := here
	joined.joined = true
	if got := joined.decode([]byte(mapYAML("c", "v"))); len(got.objects) > 0 || len(got.problems) != 1 {
		t.Errorf("got %s, problems %v", keys(got.objects), got.problems)
	}
}

func TestReferencesNeedStandalone(t *testing.T) {
	text := podYAML("one", "a:1") + "    envFrom: [{secretRef: {name: s}}]\n"
	joined := here
	joined.joined = true
	if got := joined.decode([]byte(text)); len(got.problems) != 1 || !strings.Contains(got.problems[0].Message, "static pods may not reference secrets") {
		t.Errorf("joined: %v", got.problems)
	}
	if got := here.decode([]byte(text)); len(got.problems) > 0 {
		t.Errorf("standalone: %v", got.problems)
	}
}

// TestObjectsStay drops files as a writer would.
func TestObjectsStay(t *testing.T) {
	dir := t.TempDir()
	f := &folder{path: dir, place: here, files: map[string]*entry{}}
	now := time.Now()
	look := func(text string) []Given {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for again := now; !again.IsZero(); now = again.Add(settle) {
			_, again = f.scan(map[string]bool{filepath.Join(dir, "a.yaml"): false}, now)
		}
		return f.update().Objects
	}
	both := mapYAML("one", "a") + "---\n" + mapYAML("two", "a")
	first := look(both)
	if keys(first) != "ConfigMap default/one, ConfigMap default/two" {
		t.Fatalf("got %s", keys(first))
	}
	if got := look(both + "# changed\n"); !slices.Equal(got, first) {
		t.Error("objects that didn't change are other values now")
	}
	if got := look(mapYAML("one", "a") + "---\n" + mapYAML("two", "5")); !slices.Equal(got, first) {
		t.Errorf("one object is broken, left are %s", keys(got))
	}
	if got := look("a: ["); !slices.Equal(got, first) {
		t.Errorf("all is broken, left are %s", keys(got))
	}
	if got := look(mapYAML("two", "b")); keys(got) != "ConfigMap default/two" || got[0] == first[1] {
		t.Errorf("got %s, changed: %v", keys(got), got[0] != first[1])
	}
}

func TestMergeObjects(t *testing.T) {
	given := func(name, origin string) Given {
		return Given{Origin: origin, Object: &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}}
	}
	from := func(m Merge) string {
		var all []string
		for _, g := range m.objects {
			all = append(all, objects.KeyOf(g.Object).Name+"="+g.Origin)
		}
		return strings.Join(all, " ")
	}
	m := NewMerge(FileName, HTTPName)
	for i, s := range []struct {
		source    string
		objects   []Given
		want      string
		conflicts int
	}{
		{HTTPName, []Given{given("a", "url")}, "a=url", 0},
		{FileName, []Given{given("a", "f1"), given("b", "f1"), given("b", "f2")}, "a=url b=f1", 2},
		{FileName, []Given{given("b", "f0"), given("b", "f1")}, "a=url b=f1", 1},
		{FileName, []Given{given("a", "f2"), given("b", "f0")}, "a=url b=f0", 1},
		{HTTPName, nil, "b=f0 a=f2", 0},
	} {
		m = m.With(Update{Source: s.source, Objects: s.objects})
		if from(m) != s.want || len(m.Conflicts()) != s.conflicts {
			t.Errorf("step %d: got %s, want %s; conflicts %v", i, from(m), s.want, m.Conflicts())
		}
	}
}

// TestLogNamesTheObject keeps what people read whole.
func TestLogNamesTheObject(t *testing.T) {
	var log strings.Builder
	logChanges(slog.New(slog.NewTextHandler(&log, nil)), nil, here.decode([]byte(mapYAML("c", "5"))).problems)
	if !strings.Contains(log.String(), `object="ConfigMap default/c"`) {
		t.Error(log.String())
	}
}
