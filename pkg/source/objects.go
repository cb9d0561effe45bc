package source

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/nodeagent/nodeagent/pkg/manifest"
	"github.com/nodeagent/nodeagent/pkg/objects"
)

// Given is one object that pods may refer to, defaulted and valid.
type Given struct {
	// Object is shared with every later Update and must not be altered.
	Object objects.Object
	// Origin is the path of the file or the URL that it came from.
	Origin string
}

func keyOfGiven(g Given) objects.Key { return objects.KeyOf(g.Object) }

// isObject says whether the kind is taken beside pods: not where an apiserver
// has the objects.
func (p place) isObject(kind metav1.TypeMeta) bool {
	switch kind.APIVersion {
	case "v1":
		return !p.joined && (kind.Kind == objects.ConfigMap || kind.Kind == objects.Secret)
	case nodev1.SchemeGroupVersion.String():
		return !p.joined && kind.Kind == objects.RuntimeClass
	}
	return false
}

// object decodes one object, applies defaults and validates. Its problems never
// show a value: it may be a secret.
func (p place) object(doc []byte, kind metav1.TypeMeta, prefix string, c *contents) {
	name := nameIn(doc)
	if kind.Kind == objects.RuntimeClass { // which is in no namespace
		name = strings.TrimPrefix(name, metav1.NamespaceDefault+"/")
	}
	c.about = strings.TrimSpace(kind.Kind + " " + name)
	defer func() { c.about = "" }()
	var o objects.Object
	var check func() field.ErrorList
	switch kind.Kind {
	case objects.ConfigMap:
		m := &v1.ConfigMap{}
		o, check = m, func() field.ErrorList { return manifest.ValidateConfigMap(m) }
	case objects.Secret:
		s := &v1.Secret{}
		o, check = s, func() field.ErrorList {
			manifest.DefaultSecret(s)
			return manifest.ValidateSecret(s)
		}
	default:
		r := &nodev1.RuntimeClass{}
		o, check = r, func() field.ErrorList { return manifest.ValidateRuntimeClass(r) }
	}
	if !p.strictly(doc, o, "", prefix, c) {
		return
	}
	if kind.Kind != objects.RuntimeClass && o.GetNamespace() == "" {
		o.SetNamespace(metav1.NamespaceDefault)
	}
	errs := check()
	// Some come in the order of a map, and the same problems must be equal.
	slices.SortStableFunc(errs, func(a, b *field.Error) int { return strings.Compare(a.Error(), b.Error()) })
	for _, err := range errs {
		c.add(Problem{Origin: p.origin, Field: prefix + err.Field, Message: err.ErrorBody()})
	}
	if len(errs) == 0 {
		c.objects = append(c.objects, Given{Object: o, Origin: p.origin})
	}
}

// thenObjects is what then is for pods: an object that didn't change stays the
// same value, and while an object of the origin may be in a part that can't be
// used, none is taken away.
func (c contents) thenObjects(read contents) []Given {
	old := map[objects.Key]Given{}
	for _, g := range c.objects {
		old[keyOfGiven(g)] = g
	}
	var next []Given
	for _, g := range read.objects {
		before, known := old[keyOfGiven(g)]
		delete(old, keyOfGiven(g))
		if known && equality.Semantic.DeepEqual(before.Object, g.Object) {
			g = before
		}
		next = append(next, g)
	}
	if read.unsure() {
		for _, g := range c.objects {
			if _, absent := old[keyOfGiven(g)]; absent {
				next = append(next, g)
			}
		}
	}
	return next
}

// acceptObjects takes one object of each name: the one from where it came
// before, else the first; the others are conflicts. Sources share the names, as
// pods of all sources refer to them.
func (m *Merge) acceptObjects(before []Given) {
	type claim struct {
		objects.Key
		origin string
	}
	rank := map[claim]int{}
	for i, g := range before {
		rank[claim{keyOfGiven(g), g.Origin}] = i + 1
	}
	var kept, others []Given
	for _, name := range m.names() {
		for _, g := range m.latest[name].Objects {
			if rank[claim{keyOfGiven(g), g.Origin}] > 0 {
				kept = append(kept, g)
			} else {
				others = append(others, g)
			}
		}
	}
	slices.SortStableFunc(kept, func(a, b Given) int {
		return rank[claim{keyOfGiven(a), a.Origin}] - rank[claim{keyOfGiven(b), b.Origin}]
	})
	holder := map[objects.Key]string{}
	for _, g := range append(kept, others...) {
		key := keyOfGiven(g)
		if other, taken := holder[key]; taken {
			m.conflicts = append(m.conflicts, Problem{Origin: g.Origin, Object: key.String(), Field: "metadata.name",
				Message: fmt.Sprintf("duplicate %s, ignoring: %s has one of this name", key.Kind, other), beside: true})
			continue
		}
		holder[key] = g.Origin
		m.objects = append(m.objects, g)
	}
}

// Objects are all that pods may refer to, one of each name.
func (m Merge) Objects() []objects.Object {
	out := make([]objects.Object, len(m.objects))
	for i, g := range m.objects {
		out[i] = g.Object
	}
	return out
}

// unsure says that the origin may have pods or objects that can't be used now.
func (c contents) unsure() bool {
	return c.held() || slices.ContainsFunc(c.problems, func(p Problem) bool { return p.Object != "" })
}
