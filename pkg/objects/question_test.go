package objects

import (
	"errors"
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestUnreadIsNotAbsent: optional objects may be absent, and no apiserver said
// so yet.
func TestUnreadIsNotAbsent(t *testing.T) {
	s := &Store{Remote: true}
	s.Replace("manifests", []Object{configMap("c", "of a file")})
	k := Key{ConfigMap, "ns", "c"}
	get := func() string {
		m, err := s.ConfigMap("ns", "c")
		if apierrors.IsNotFound(err) {
			return "absent"
		}
		if err != nil {
			return err.Error()
		}
		return m.Data["key"]
	}
	is := func(want string) {
		t.Helper()
		if got := get(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	is("ConfigMap ns/c has not been read from the apiserver yet")
	q := s.Ask(k)
	is("ConfigMap ns/c has not been read from the apiserver yet")
	q.Fail(apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, "the whole path"))
	if get() == "absent" {
		t.Error("an apiserver that does not know the path has not said that the object is absent")
	}
	q.Fail(errors.New("no answer"))
	is("ConfigMap ns/c has not been read from the apiserver yet: no answer")
	if s.Answered(k) {
		t.Error("a failure is an answer")
	}
	for i, step := range []struct {
		found          []Object
		first, changed bool
		is             string
	}{
		{nil, true, true, "absent"},
		{nil, false, false, "absent"},
		{[]Object{configMap("c", "a")}, false, true, "a"},
		{[]Object{configMap("c", "a")}, false, false, "a"},
		{[]Object{configMap("c", "b")}, false, true, "b"},
		{nil, false, true, "absent"},
	} {
		if first, changed := q.Answer(step.found); first != step.first || changed != step.changed {
			t.Errorf("step %d: first %v, changed %v", i, first, changed)
		}
		is(step.is)
	}
	q.Fail(errors.New("no answer"))
	is("absent")
	newer := s.Ask(k)
	newer.Answer([]Object{configMap("c", "newer")})
	q.Answer(nil)
	q.Close() // of a question that another has replaced
	is("newer")
	newer.Close()
	is("ConfigMap ns/c has not been read from the apiserver yet")
}

func TestKeysForPeople(t *testing.T) {
	for want, k := range map[string]Key{
		"ConfigMap ns/c":      {ConfigMap, "ns", "c"},
		"RuntimeClass r":      {Kind: RuntimeClass, Name: "r"},
		"every Service of ns": {Kind: Service, Namespace: "ns"},
	} {
		if k.String() != want {
			t.Errorf("got %s, want %s", k, want)
		}
	}
}

func TestIsUnread(t *testing.T) {
	s := &Store{Remote: true}
	_, err := s.Secret("ns", "s")
	_, services := s.Services(&v1.Pod{})
	for _, err := range []error{errors.Join(errors.New("another"), fmt.Errorf("volume: %w", err)), services} {
		if !IsUnread(err) {
			t.Errorf("%v is not awaited", err)
		}
	}
	s.Ask(Key{Secret, "ns", "s"}).Answer(nil)
	if _, err := s.Secret("ns", "s"); err == nil || IsUnread(err) {
		t.Errorf("what is not there is awaited: %v", err)
	}
}
