package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestRecord: what docs/CONFORMANCE.md says can be read, in whole and in order,
// and has a reason for everything that doesn't pass.
func TestRecord(t *testing.T) {
	data, err := os.ReadFile("../../" + recordFile)
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseRecord(string(data))
	if err != nil {
		t.Fatalf("%s: %v", recordFile, err)
	}
	if r.String() != string(data) {
		t.Errorf("%s is not as the program writes it: names in order, each once, no empty reason", recordFile)
	}
	if len(r.passes) == 0 {
		t.Errorf("%s lists no pass", recordFile)
	}
	for name, why := range r.others {
		if why == unknown {
			t.Errorf("%s: say why it fails: %s", recordFile, name)
		}
	}
}

const example = `# Conformance

Words.

## Passes

- a
- b

## Not passed

### It is so

- c

### It waits for something

- d
`

func TestRecordsFaultsAreFound(t *testing.T) {
	for what, text := range map[string]string{
		"no passes":               "# Conformance\n",
		"a spec twice":            strings.Replace(example, "- d", "- a", 1),
		"a failure has no reason": strings.Replace(example, "### It is so\n", "", 1),
		"neither":                 strings.Replace(example, "- c", "* c", 1),
	} {
		if r, err := parseRecord(text); err == nil {
			t.Errorf("%s: it was read as %+v", what, r)
		}
	}
}

func TestCompare(t *testing.T) {
	r, err := parseRecord(example)
	if err != nil {
		t.Fatal(err)
	}
	results := []result{
		{name: "a", state: passed}, {name: "b", state: failed, message: "gone wrong"},
		{name: "c", state: failed}, {name: "e", state: failed}, {name: "d", state: passed},
	}
	want := []string{"PASSED BEFORE: b\n\tgone wrong", "fails and has no reason: e\n\t", "passes now, list it: d"}
	if got := r.compare(results, regexp.MustCompile("")); !slices.Equal(got, want) {
		t.Errorf("compared: %q, want %q", got, want)
	}
	want = []string{"PASSED BEFORE, was not run: a"}
	if got := r.compare(nil, regexp.MustCompile("a")); !slices.Equal(got, want) {
		t.Errorf("nothing was run: %q, want %q", got, want)
	}
}

// TestUpdate: passes come, and never go.
func TestUpdate(t *testing.T) {
	r, err := parseRecord(example)
	if err != nil {
		t.Fatal(err)
	}
	r.update([]result{
		{name: "a", state: failed}, {name: "d", state: passed}, {name: "c", state: failed},
		{name: "e", state: failed}, {name: "g", state: skipped, message: "no\ndevice"},
	})
	want := strings.Replace(example, "- b\n", "- b\n- d\n", 1)
	want = strings.Replace(want, "### It waits for something\n\n- d\n", "### Not looked into yet\n\n- e\n\n"+
		"### The suite itself finds that it can't be run here: no device\n\n- g\n", 1)
	if got := r.String(); got != want {
		t.Errorf("updated:\n%s\nwant:\n%s", got, want)
	}
}
