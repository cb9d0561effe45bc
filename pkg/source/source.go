// Package source says which pods this node is to run: those that an apiserver
// has bound to it, with what they refer to, those in a folder or file, and those
// behind a URL. The latter it decodes strictly, applies the defaults that an
// apiserver would have applied, gives each pod its static identity, validates
// it, and says what is wrong in terms of origin and field. Merge joins what the
// sources say.
//
// A source never takes away what it can't read: while a file is broken or a
// URL doesn't answer, what it gave before stays wanted.
package source

import (
	"context"
	"errors"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// The names of the sources, as they appear in the annotation
// kubernetes.io/config.source.
const (
	FileName = "file"
	HTTPName = "http"
)

// Desired is one pod that is to run here: defaulted, valid, with its identity.
type Desired struct {
	// Pod is shared with every later Update and must not be altered.
	Pod *v1.Pod
	// Origin is the path of the file or the URL that the pod came from, or APIName.
	Origin string
	// Told is what the apiserver said of the pod's containers when it was first
	// seen: see pod.Told.
	Told *v1.PodStatus
}

// Update is all that one source wants at a moment: never a difference.
type Update struct {
	Source string // APIName, FileName or HTTPName
	// Pods are in the order of the source: by file name, then by place.
	Pods []Desired
	// Objects are what pods may refer to, in the order of the source.
	Objects []Given
	// Held are the origins that give something unusable now. What they gave
	// before is still in Pods. After a restart of the agent nothing is known of
	// what they gave, so while Held isn't empty no pod that the runtime shows
	// from this source may be killed for being absent from Pods.
	Held     []string
	Problems []Problem
}

// Problem is one thing that is wrong with what a source gives.
type Problem struct {
	Origin string // path of the file, or URL
	Pod    string // namespace/name, empty when not known
	Object string // as in ConfigMap default/settings, when it is about one
	Field  string // as in spec.containers[0].image, empty when not known
	// Reason is the reason of the event that belongs to the problem, empty when
	// there is no pod that an event could be about.
	Reason  string
	Message string
	// beside says that the problem puts no pod of the origin in doubt.
	beside bool
}

// FailedValidation is the reason of problems with a pod that could be decoded
// (behaviour row 1.1-7).
const FailedValidation = "FailedValidation"

// Error joins origin, pod, field and message.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Origin)
	if p.Object != "" {
		b.WriteString(": " + p.Object)
	}
	if p.Pod != "" {
		b.WriteString(": pod " + p.Pod)
	}
	if p.Field != "" {
		b.WriteString(": " + p.Field)
	}
	b.WriteString(": " + p.Message)
	return b.String()
}

// A Source tells what is wanted, now and at every change.
type Source interface {
	Name() string
	// Run sends the full list first as soon as the source has been looked at,
	// readable or not, and again whenever it changed. An Update that was not
	// received yet is replaced by a newer one. Problems are logged once when
	// they appear and once when they are gone. Run returns when ctx ends, with
	// ctx's error.
	Run(ctx context.Context, out chan<- Update) error
}

// errNothing is given for input without any document.
var errNothing = errors.New("is empty: to remove pods, remove the file or serve an empty PodList")
