package env

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)", "": "empty name"}
	for in, want := range map[string]string{
		"":              "",
		"plain":         "plain",
		"$(A)":          "1",
		"x$(A)y$(B)z":   "x1y$(A)z",
		"$$(A)":         "$(A)",
		"$$$(A)":        "$1",
		"$(NO)":         "$(NO)",
		"$(A":           "$(A",
		"$A $ $":        "$A $ $",
		"$(A$":          "$(A$",
		"$(A)$(B$$":     "1$(B$",
		"$(A$(A)":       "$(A$(A)",
		"$()":           "empty name",
		"100$":          "100$",
		"$€$(A)":        "$€1",
		"a) $(A) b) $x": "a) 1 b) $x",
	} {
		got, err := Expand([]string{in}, values)
		if err != nil || got[0] != want {
			t.Errorf("Expand(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

// A megabyte of openings, as large as a manifest may be, takes as long as any
// other text of that size.
func TestExpandIsLinear(t *testing.T) {
	for _, opening := range []string{"$(", "$$", "$a"} {
		text := strings.Repeat(opening, 2<<20/len(opening))
		begin := time.Now()
		if _, err := Expand([]string{text}, nil); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%d times %s took %v", len(text)/len(opening), opening, took)
		}
	}
}

// Variables that each name the one before twice, and a command that names one
// over and over, are refused before they take the node's memory.
func TestExpandIsBounded(t *testing.T) {
	c := &v1.Container{Env: []v1.EnvVar{{Name: "V0", Value: "ten bytes."}}}
	for i := range 40 {
		c.Env = append(c.Env, v1.EnvVar{Name: fmt.Sprint("V", i+1), Value: fmt.Sprintf("$(V%d)$(V%d)", i, i)})
	}
	if _, err := (Resolver{}).Container(&v1.Pod{}, c, Surroundings{}); !errors.Is(err, errTooLong) {
		t.Errorf("got %v, want %v", err, errTooLong)
	}
	values := map[string]string{"A": strings.Repeat("a", 1<<20)}
	word := strings.Repeat("$(A)", 5)
	if got, err := Expand([]string{word}, values); err != nil || len(got[0]) != 5<<20 {
		t.Errorf("%d words, %v", len(got), err)
	}
	if _, err := Expand([]string{word, word}, values); !errors.Is(err, errTooLong) {
		t.Errorf("got %v, want %v", err, errTooLong)
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$x$(")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Expand([]string{s}, nil)
		if err != nil || len(got[0]) > len(s) {
			t.Errorf("%q grows to %q without a variable, %v", s, got, err)
		}
		if got, err = Expand([]string{s}, map[string]string{"A": "1"}); !strings.Contains(s, "$") && (err != nil || got[0] != s) {
			t.Errorf("%q changes without a $", s)
		}
	})
}

func TestExpandStrictly(t *testing.T) {
	values := map[string]string{"A": "a", "EMPTY": "", "ODD": "$(A)"}
	for expr, want := range map[string]string{"$(A)/b": "a/b", "b": "b", "$(ODD)": "$(A)", "$(EMPTY)": "", "x/$(NO)": ""} {
		got, err := ExpandStrictly(expr, values)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v; want %q", expr, got, err, want)
		}
	}
}
