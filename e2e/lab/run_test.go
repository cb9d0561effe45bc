package lab

import (
	"errors"
	"slices"
	"testing"
)

// Run cleans up in reverse order whatever f came to, and tells the first thing
// that was wrong.
func TestRun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		f    func(TB) error
		want string
	}{
		"nothing":  {func(TB) error { return nil }, ""},
		"an error": {func(TB) error { return errors.New("broken") }, "broken"},
		"a Fatalf": {func(tb TB) error { tb.Fatalf("%d broken", 1); return nil }, "1 broken"},
		"left behind": {func(tb TB) error {
			tb.Cleanup(func() { tb.Errorf("a test's own example of something left behind") })
			return nil
		}, "the lab left something behind"},
	} {
		t.Run(name, func(t *testing.T) {
			var order []int
			err := Run(func(tb TB) error {
				tb.Cleanup(func() { order = append(order, 1) })
				tb.Cleanup(func() { order = append(order, 2) })
				return c.f(tb)
			})
			if got := text(err); got != c.want {
				t.Errorf("error %q, want %q", got, c.want)
			}
			if !slices.Equal(order, []int{2, 1}) {
				t.Errorf("cleaned up in the order %v", order)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
