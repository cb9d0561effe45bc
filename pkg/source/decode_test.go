package source

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/manifest"
	"github.com/nodeagent/nodeagent/pkg/objects"
)

var here = place{source: FileName, origin: "/pods/a.yaml", node: "node1"}

// podYAML is a pod of one container.
func podYAML(name, image string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\nspec:\n  containers:\n  - name: main\n    image: %s\n", name, image)
}

func names(c contents) string {
	var all []string
	for _, d := range c.pods {
		all = append(all, fullName(d).String())
	}
	return strings.Join(all, " ")
}

func TestDecodeTakes(t *testing.T) {
	one, two := podYAML("one", "a:1"), podYAML("two", "a:1")
	const item = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s"},"spec":{"containers":[{"name":"main","image":"a:1"}]}}`
	items := fmt.Sprintf(item+","+item, "one", "two")
	for name, text := range map[string]string{
		"documents":      one + "---\n" + two,
		"blank between":  "# first\n---\n" + one + "---\n# nothing\n---\n\n---\n" + two + "---\n",
		"PodList":        `{"apiVersion":"v1","kind":"PodList","items":[` + items + `]}`,
		"List":           `{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":""},"items":[` + items + `]}`,
		"List in YAML":   "kind: List\napiVersion: v1\nitems: [" + items + "]\n",
		"Windows lines":  strings.ReplaceAll(one+"---\n"+two, "\n", "\r\n"),
		"aliases":        strings.Replace(one, "a:1", "&image a:1", 1) + "  - name: other\n    image: *image\n---\n" + two,
		"JSON documents": fmt.Sprintf(item, "one") + "\n---\n" + fmt.Sprintf(item, "two"),
	} {
		t.Run(name, func(t *testing.T) {
			got := here.decode([]byte(text))
			if len(got.problems) > 0 || names(got) != "default/one-node1 default/two-node1" {
				t.Errorf("got %q, problems %v", names(got), got.problems)
			}
		})
	}
}

func TestDecodeEmptyList(t *testing.T) {
	if got := here.decode([]byte("apiVersion: v1\nkind: PodList\nitems: []\n")); got.held() || len(got.pods) > 0 {
		t.Errorf("an empty list gave %v, problems %v", names(got), got.problems)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := podYAML("one", "a:1")
	for name, c := range map[string]struct{ text, field, says, pods string }{
		"nothing":          {"\n# a comment\n", "", "is empty", ""},
		"not YAML":         {"a: [1, 2\n", "", "not valid YAML", ""},
		"a scalar":         {"hello\n", "", "not an object", ""},
		"a list":           {"- a\n", "", "not an object", ""},
		"no kind":          {"apiVersion: v1\n", "apiVersion, kind", "must be given", ""},
		"other kind":       {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: c}\n", "kind", `"Deployment" of "apps/v1" is not taken from here`, ""},
		"other in list":    {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service}\n", "items[0].kind", "is not taken from here", ""},
		"unknown field":    {good + "    imagee: b\n", "spec.containers[0].imagee", "unknown field", ""},
		"wrong case":       {good + "  RestartPolicy: Never\n", "spec.RestartPolicy", "unknown field", ""},
		"given twice":      {good + "    image: b\n", "", `"image" already set`, ""},
		"JSON given twice": {`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","name":"b"}}`, "metadata.name", "duplicate", ""},
		"wrong type":       {good + "    command: sh\n", "spec.containers[0].command", "cannot unmarshal", ""},
		"bad quantity":     {good + "    resources: {limits: {memory: lots}}\n", "spec.containers[0].resources.limits.memory", "quantities must match", ""},
		"bad time":         {strings.Replace(good, "metadata:", "metadata:\n  creationTimestamp: yesterday", 1), "metadata.creationTimestamp", "parsing time", ""},
		"no name":          {strings.Replace(good, "name: one", "generateName: one", 1), "metadata.name", "must have a name", ""},
		"one of two":       {good + "---\na: [\n", "", "document 2", "default/one-node1"},
		"first of two":     {"a: [\n---\n" + good, "", "document 1", "default/one-node1"},
		"deep":             {strings.Repeat("[", 200_000), "", "not valid YAML", ""},
		"alias of itself":  {"a: &a [*a]\nb: *a\n", "", "within itself", ""},
		"many elements":    {strings.Repeat("a\n", maxElements+1), "", "elements", ""},
		"in a PodList":     {`{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"x"},"spec":{"containers":[{"name":"main"}]}}]}`, "items[0].spec.containers[0].image", "Required", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := here.decode([]byte(c.text))
			if len(got.problems) != 1 {
				t.Fatalf("got problems %v, want one", got.problems)
			}
			p := got.problems[0]
			if p.Field != c.field || !strings.Contains(p.Message, c.says) || p.Origin != here.origin {
				t.Errorf("got %q at %q of %q, want %q at %q", p.Message, p.Field, p.Origin, c.says, c.field)
			}
			if names(got) != c.pods {
				t.Errorf("took %q, want %q", names(got), c.pods)
			}
		})
	}
}

// TestDecodeBombs gives little text that expands to terabytes.
func TestDecodeBombs(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 15; i++ {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	long := "a: &a " + strings.Repeat("x", 1<<20) + "\nb: [" + strings.Repeat("*a,", 100_000) + "*a]\n"
	for name, text := range map[string]string{"aliases of aliases": laughs.String(), "a long value": long} {
		t.Run(name, func(t *testing.T) {
			got := here.decode([]byte(text))
			if len(got.problems) != 1 || !strings.Contains(got.problems[0].Message, "aliases are written out") {
				t.Errorf("got %v", got.problems)
			}
		})
	}
}

// TestDecodeManyProblems is of one MiB that is wrong in each of its parts.
func TestDecodeManyProblems(t *testing.T) {
	for name, text := range map[string]string{
		"items":     `{"apiVersion":"v1","kind":"List","items":[` + strings.Repeat("{},", 300_000) + `{}]}`,
		"documents": strings.Repeat("a\n---\n", 200_000),
		"elements":  `{"a":[` + strings.Repeat("0,", maxElements+1) + `0]}`,
	} {
		t.Run(name, func(t *testing.T) {
			got := here.decode([]byte(text))
			if n := len(got.problems); n == 0 || n > maxProblems+1 || !got.held() {
				t.Errorf("%d problems, held %v", n, got.held())
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	uid := func(p place, text string) string {
		t.Helper()
		got := p.decode([]byte(text))
		if len(got.pods) != 1 {
			t.Fatalf("problems: %v", got.problems)
		}
		return string(got.pods[0].Pod.UID)
	}
	text := podYAML("one", "a:1")
	base := uid(here, text)
	if len(base) != 32 {
		t.Errorf("UID %q hasn't 32 digits", base)
	}
	if got := uid(here, "# another layout\n"+strings.ReplaceAll(text, "name: main", "name:   \"main\"")); got != base {
		t.Error("the layout changed the UID")
	}
	elsewhere := here
	elsewhere.origin = "/pods/b.yaml"
	other := here
	other.node = "node2"
	for name, got := range map[string]string{"content": uid(here, podYAML("one", "a:2")), "file": uid(elsewhere, text), "node": uid(other, text)} {
		if got == base {
			t.Errorf("another %s has the same UID", name)
		}
	}
	adopted := Adopt(here.decode([]byte(text)).pods[0].Pod, "old")
	if adopted.UID != "old" || adopted.Annotations[annotationHash] != "old" {
		t.Errorf("adopted as %q with hash %q", adopted.UID, adopted.Annotations[annotationHash])
	}
}

func FuzzDecodeFile(f *testing.F) {
	fuzzDecode(f, here)
}

func FuzzDecodeBody(f *testing.F) {
	fuzzDecode(f, place{source: HTTPName, origin: "http://example.com/pods", node: "node1"})
}

// fuzzDecode checks that whatever is given yields objects, and pods that are valid and have
// an identity, or a problem, and the same when decoded again.
func fuzzDecode(f *testing.F, p place) {
	f.Add([]byte(podYAML("one", "a:1")))
	f.Add([]byte(podYAML("one", "a:1") + "---\n" + podYAML("two", "a:1")))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{}]}`))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}`))
	f.Add([]byte(mapYAML("c", "v")))
	f.Add([]byte("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: YQ==}\nstringData: {b: c}\ntype: kubernetes.io/tls\n"))
	f.Add([]byte(`{"apiVersion":"node.k8s.io/v1","kind":"RuntimeClass","metadata":{"name":"r"},"handler":"h","overhead":{"podFixed":{"cpu":"x"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got := p.decode(data)
		for _, g := range got.objects {
			if k := keyOfGiven(g); k.Kind == "" || k.Name == "" || (k.Namespace == "") != (k.Kind == objects.RuntimeClass) {
				t.Errorf("took an object called %q", k)
			}
		}
		if len(got.pods)+len(got.objects)+len(got.problems) == 0 && !strings.Contains(string(data), "List") {
			t.Fatal("neither pods nor objects nor problems")
		}
		for i, d := range got.pods {
			if errs := manifest.Validate(d.Pod, false); len(errs) > 0 {
				t.Errorf("took an invalid pod: %v", errs)
			}
			before := text(t, d.Pod)
			manifest.Default(d.Pod)
			if text(t, d.Pod) != before {
				t.Error("defaults were not complete")
			}
			if again := p.decode(data); again.pods[i].Pod.UID != d.Pod.UID {
				t.Error("the UID is another at the second time")
			}
		}
	})
}
