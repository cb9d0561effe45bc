//go:build faults

package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// faults ends the process at the point that NODEAGENT_FAULT names, as
// before-create or after-start:3, which is the third time.
func faults() func(string) {
	want, nth, _ := strings.Cut(os.Getenv("NODEAGENT_FAULT"), ":")
	left, err := strconv.Atoi(nth)
	if err != nil {
		left = 1
	}
	var count atomic.Int64
	return func(point string) {
		if point == want && count.Add(1) == int64(left) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}
