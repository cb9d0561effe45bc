package lab

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
)

// Run calls f with a TB that is no test: for programs, and for what the tests
// of a package share. When f has returned it cleans up; it returns f's error,
// or that of a Fatalf in f, or says that something was left behind.
func Run(f func(TB) error) (err error) {
	tb := &runTB{}
	defer func() {
		if p := recover(); p != nil {
			if p != tb {
				panic(p)
			}
			err = errors.New(tb.fatal)
		}
		if clean := tb.cleanUp(err != nil); err == nil {
			err = clean
		}
	}()
	return f(tb)
}

// runTB logs to stderr.
type runTB struct {
	mu       sync.Mutex
	cleanups []func()
	failed   bool
	fatal    string
}

func (t *runTB) Helper() {}

func (t *runTB) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

func (t *runTB) fail() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = true
}

func (t *runTB) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *runTB) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (t *runTB) Errorf(format string, args ...any) {
	t.fail()
	t.Logf(format, args...)
}

// Fatalf ends f, of whose goroutine it must be called.
func (t *runTB) Fatalf(format string, args ...any) {
	t.fail()
	t.fatal = fmt.Sprintf(format, args...)
	panic(t)
}

func (t *runTB) cleanUp(failed bool) error {
	if failed {
		t.fail()
	}
	before := t.Failed()
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
	if t.Failed() && !before {
		return errors.New("the lab left something behind")
	}
	return nil
}
