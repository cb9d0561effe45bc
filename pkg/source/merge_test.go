package source

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// wish is a pod of a name, with a UID, from an origin.
func wish(name, uid, origin string) Desired {
	return Desired{Origin: origin, Pod: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(uid)}}}
}

func uids(m Merge) string {
	var all []string
	for _, d := range m.Pods() {
		all = append(all, string(d.Pod.UID))
	}
	return strings.Join(all, " ")
}

func TestMerge(t *testing.T) {
	type step struct {
		source string
		pods   []Desired
		want   string // UIDs in order
		ignore string // what conflicts say
	}
	for name, steps := range map[string][]step{
		"arrival is the order": {
			{FileName, []Desired{wish("b", "b", "f1")}, "b", ""},
			{HTTPName, []Desired{wish("c", "c", "u")}, "b c", ""},
			{FileName, []Desired{wish("a", "a", "f0"), wish("b", "b", "f1")}, "b c a", ""},
			{FileName, []Desired{wish("a", "a", "f0")}, "c a", ""},
		},
		"a changed pod keeps its place": {
			{FileName, []Desired{wish("a", "1", "f"), wish("b", "2", "f")}, "1 2", ""},
			{FileName, []Desired{wish("a", "3", "f"), wish("b", "2", "f")}, "3 2", ""},
		},
		"one name twice in a source": {
			{FileName, []Desired{wish("a", "1", "f1"), wish("a", "2", "f2")}, "1", `duplicate pod name "a", ignoring: f1`},
			{FileName, []Desired{wish("a", "2", "f2")}, "2", ""},
		},
		"one name twice in a file": {
			{FileName, []Desired{wish("a", "1", "f"), wish("a", "2", "f")}, "1", `duplicate pod name "a"`},
			{FileName, []Desired{wish("a", "1", "f"), wish("a", "2", "f")}, "1", `duplicate pod name "a"`},
		},
		"who has the name keeps it": {
			{FileName, []Desired{wish("a", "2", "f2")}, "2", ""},
			{FileName, []Desired{wish("a", "1", "f1"), wish("a", "2", "f2")}, "2", `duplicate pod name "a", ignoring: f2`},
			{FileName, []Desired{wish("a", "1", "f1"), wish("a", "3", "f2")}, "3", `duplicate pod name "a", ignoring: f2`},
			{FileName, []Desired{wish("a", "1", "f1")}, "1", ""},
		},
		"one name in two sources": {
			{FileName, []Desired{wish("a", "1", "f")}, "1", ""},
			{HTTPName, []Desired{wish("a", "2", "u")}, "1 2", ""},
		},
		"one UID twice": {
			{FileName, []Desired{wish("a", "1", "f")}, "1", ""},
			{HTTPName, []Desired{wish("b", "1", "u")}, "1", `duplicate pod UID "1", ignoring: f`},
			{FileName, nil, "1", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMerge(FileName, HTTPName)
			for i, s := range steps {
				m = m.With(Update{Source: s.source, Pods: s.pods})
				if got := uids(m); got != s.want {
					t.Errorf("step %d: got %q, want %q", i, got, s.want)
				}
				var says string
				for _, p := range m.Conflicts() {
					says += p.Error()
					if p.Reason != FailedValidation {
						t.Errorf("step %d: conflict of reason %q", i, p.Reason)
					}
				}
				if (says == "") != (s.ignore == "") || !strings.Contains(says, s.ignore) {
					t.Errorf("step %d: conflicts %q, want %q", i, says, s.ignore)
				}
			}
		})
	}
}

func TestMergeSynced(t *testing.T) {
	empty := NewMerge(FileName, HTTPName)
	half := empty.With(Update{Source: FileName})
	full := half.With(Update{Source: HTTPName, Held: []string{"u"}, Problems: []Problem{{Origin: "u", Message: "down"}}})
	if empty.Synced() || half.Synced() || !full.Synced() || !NewMerge().Synced() {
		t.Error("synced before every source has delivered, or not after")
	}
	if len(full.Held(HTTPName)) != 1 || len(full.Held(FileName)) != 0 || len(full.Problems()) != 1 {
		t.Errorf("held %v, problems %v", full.Held(HTTPName), full.Problems())
	}
}
