package env

import (
	"strings"
	"testing"
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
		if got, err := Expand([]string{in}, values); err != nil || got[0] != want {
			t.Errorf("Expand(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

// A few short texts must not become more than any process may be given.
func TestExpandIsBounded(t *testing.T) {
	values := map[string]string{"MIB": strings.Repeat("x", 1<<20)}
	most := strings.Repeat("$(MIB)", 8)
	for _, c := range []struct {
		words []string
		fits  bool
	}{
		{[]string{most}, true},
		{[]string{most + "x"}, false},
		{[]string{most + "$(MIB)x"}, false},
		{[]string{most, "$(MIB)"}, false},
		{[]string{strings.Repeat("$(MIB)", 1<<17)}, false},
	} {
		if _, err := Expand(c.words, values); (err == nil) != c.fits {
			t.Errorf("%d words, %d bytes: %v", len(c.words), len(c.words[0]), err)
		}
	}
	if _, err := ExpandStrictly(most+"$(MIB)", values); err == nil {
		t.Error("a path may have any length")
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$x$(")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := Expand([]string{s}, nil); err != nil || len(got[0]) > len(s) {
			t.Errorf("%q grows to %q without a variable, %v", s, got, err)
		}
		if got, err := Expand([]string{s}, map[string]string{"A": "1"}); !strings.Contains(s, "$") && (err != nil || got[0] != s) {
			t.Errorf("%q changes without a $, %v", s, err)
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
