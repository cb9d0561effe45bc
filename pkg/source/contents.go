package source

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
)

// contents is what one origin, a file or a URL, gives.
type contents struct {
	pods     []Desired
	objects  []Given
	problems []Problem
	// about is the object that is being decoded, for its problems.
	about string
}

// maxProblems bounds what is kept, told and logged of one origin.
const maxProblems = 100

// add notes a problem. An object that can't be used puts no pod in doubt.
func (c *contents) add(p Problem) {
	if c.about != "" {
		p.Object, p.Pod, p.beside = c.about, "", true
	}
	switch n := len(c.problems); {
	case n < maxProblems:
		c.problems = append(c.problems, p)
	case n == maxProblems:
		c.problems = append(c.problems, Problem{Origin: p.Origin, Message: fmt.Sprintf("has more than %d problems: the others are not listed", maxProblems)})
	}
}

// held says that the origin may have pods that can't be used now.
func (c contents) held() bool {
	return slices.ContainsFunc(c.problems, func(p Problem) bool { return !p.beside })
}

// then returns what is wanted once the origin was read anew. A pod that didn't
// change stays the same value, and one that did keeps the time it was first
// seen. While anything is wrong with the origin nothing is taken away: pods it
// gave before and doesn't give now are kept, since they may be in the part that
// can't be read.
func (c contents) then(read contents, now time.Time) contents {
	old := make(map[types.NamespacedName]Desired, len(c.pods))
	for _, d := range c.pods {
		old[fullName(d)] = d
	}
	next := contents{problems: read.problems, objects: c.thenObjects(read)}
	for _, d := range read.pods {
		before, known := old[fullName(d)]
		delete(old, fullName(d))
		seen := now.Format(time.RFC3339Nano)
		if known && before.Pod.UID == d.Pod.UID {
			seen = before.Pod.Annotations[annotationSeen]
		}
		d.Pod.Annotations[annotationSeen] = seen
		if known && equality.Semantic.DeepEqual(before.Pod, d.Pod) {
			d = before
		}
		next.pods = append(next.pods, d)
	}
	if next.held() {
		for _, d := range c.pods {
			if _, absent := old[fullName(d)]; absent {
				next.pods = append(next.pods, d)
			}
		}
	}
	return next
}

func fullName(d Desired) types.NamespacedName {
	return types.NamespacedName{Namespace: d.Pod.Namespace, Name: d.Pod.Name}
}

// logChanges logs each problem once when it appears and once when it is gone.
func logChanges(log *slog.Logger, before, after []Problem) {
	for _, p := range after {
		if !slices.Contains(before, p) {
			log.Error("manifest can't be used", "origin", p.Origin, "pod", p.Pod, "object", p.Object, "field", p.Field, "problem", p.Message)
		}
	}
	for _, p := range before {
		if !slices.Contains(after, p) {
			log.Info("manifest problem is gone", "origin", p.Origin, "pod", p.Pod, "object", p.Object, "field", p.Field)
		}
	}
}
