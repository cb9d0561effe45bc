package env

import (
	"strings"
	"testing"
	"time"
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
		if got := Expand(in, values); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

// A megabyte of openings, as large as a manifest may be, takes as long as any
// other text of that size.
func TestExpandIsLinear(t *testing.T) {
	for _, opening := range []string{"$(", "$$", "$a"} {
		text := strings.Repeat(opening, 2<<20/len(opening))
		begin := time.Now()
		Expand(text, nil)
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%d times %s took %v", len(text)/len(opening), opening, took)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$x$(")
	f.Fuzz(func(t *testing.T, s string) {
		if got := Expand(s, nil); len(got) > len(s) {
			t.Errorf("%q grows to %q without a variable", s, got)
		}
		if !strings.Contains(s, "$") && Expand(s, map[string]string{"A": "1"}) != s {
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
